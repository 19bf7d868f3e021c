//! The SQLite source, with writers in other processes: Python's SQLite and the `sqlite3` shell.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

mod definitions;
mod foreign;
mod history;
mod random;
mod remedies;
mod replace;
mod running;
mod unseen;
mod values;

use crate::children::Lines;
use crate::contract_source::{RowChange, Stream, Taken, Workload, feed, feeds, head, live, sql, verify};
use feedline::checkpoint::{Identity, ResumeToken};
use feedline::event::Operations;
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::{Feed, Feeds};
use feedline::source::SourceConnector;
use feedline::source::sqlite::{Connector, Error, Log, Options};
use feedline::status::metrics::Metrics;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that is removed when the test ends.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sqlite-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Whatever cannot be removed now, the next `cargo clean` removes.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// A writer in its own process.
struct Writer {
    child: Child,
    input: ChildStdin,
    output: Lines,
}

impl Writer {
    fn new(path: &Path, timeout_seconds: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/sqlite_writer.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(path)
            .arg(timeout_seconds)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let input = child.stdin.take().unwrap();
        let output = Lines::of(child.stdout.take().unwrap());
        let writer = Self { child, input, output };
        assert!(writer.answer()["version"].is_string());
        writer
    }

    fn answer(&self) -> Value {
        let line = self.output.next().unwrap_or_default();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the writer ended: {line}"))
    }

    fn try_run(&mut self, statements: &[&str]) -> Result<Value, String> {
        writeln!(self.input, "{}", json!(statements)).unwrap();
        let answer = self.answer();
        answer["error"].as_str().map_or_else(|| Ok(answer["rows"].clone()), |error| Err(error.to_owned()))
    }

    fn run(&mut self, statements: &[&str]) -> Value {
        self.try_run(statements).unwrap_or_else(|error| panic!("{error}: {statements:?}"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A database in WAL mode, and a writer to it.
struct Database {
    path: PathBuf,
    writer: Writer,
    _directory: Directory,
}

impl Database {
    fn new(statements: &[&str]) -> Self {
        let directory = Directory::new();
        let path = directory.0.join("shop.db");
        let mut writer = Writer::new(&path, "5");
        writer.run(&["PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"]);
        if !statements.is_empty() {
            writer.run(statements);
        }
        Self { path, writer, _directory: directory }
    }

    fn connector_of(&self, pipeline: &str) -> Connector {
        let options = Options { path: self.path.clone(), pipeline: pipeline.into() };
        Connector::new(options, Metrics::new(pipeline).source)
    }

    /// Makes the change log for these feeds, and returns where it begins.
    async fn established(&self, list: Vec<Feed>) -> (Connector, Captured) {
        let mut connector = self.connector_of("shop");
        let feeds = feeds(list);
        connector.select(Arc::clone(&feeds));
        verify(&mut connector).await.expect("the tables can be followed");
        let begin = connector.establish().await.expect("the log is made");
        let known = connector.identity().await.unwrap();
        (connector, Captured { begin, known, feeds })
    }
}

impl Workload for Database {
    type Connector = Connector;

    fn schema(&self) -> &'static str {
        "main"
    }

    fn connector(&self) -> Connector {
        self.connector_of("shop")
    }

    fn create(&mut self, table: &str) {
        self.writer.run(&[&sql::create(table)]);
    }

    fn write(&mut self, table: &str, transaction: &[RowChange]) {
        let statements = sql::transaction(table, transaction);
        self.writer.run(&statements.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

struct Captured {
    begin: ResumeToken,
    known: Identity,
    feeds: Arc<Feeds>,
}

impl Captured {
    async fn connect(&self, connector: &mut Connector) -> Result<Stream<Log>, Error> {
        self.connect_at(connector, &self.begin).await
    }

    async fn connect_at(&self, connector: &mut Connector, token: &ResumeToken) -> Result<Stream<Log>, Error> {
        let resume = live(token, &self.begin, self.feeds.len());
        Ok(Stream::new(connector.connect(&self.known, &resume).await?, &self.feeds, &resume, 64 * 1024))
    }

    /// Everything in the log.
    async fn all(&self, connector: &mut Connector) -> Vec<Taken> {
        let end = head(connector).await;
        let mut stream = self.connect(connector).await.expect("the log opens");
        stream.batches(&end).await.into_iter().flat_map(|batch| batch.records).collect()
    }
}

fn table(name: &str, key: &[&str]) -> Feed {
    feed("main", name, key, Operations::ALL)
}

mod contract {
    use super::Database;

    crate::contract_source::suite!(Database::new(&[]));
}

async fn refused(connected: Result<Stream<Log>, Error>) -> Error {
    match connected {
        Err(error) => error,
        Ok(mut stream) => stream.failure().await.1,
    }
}

#[track_caller]
fn assert_refusal(error: &impl Classify, code: Code, fault: Fault, says: &str) {
    assert!(error.code() == code && error.fault() == fault && error.to_string().contains(says), "{} {error} {error:?}", error.code());
}
