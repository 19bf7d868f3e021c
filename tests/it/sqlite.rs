//! The SQLite source, with writers in other processes: Python's SQLite and the command line's.

use crate::contract_source::{Stream, Taken, Workload, feed, feeds, head, live, scan_all};
use feedline::change::{FeedId, Operations};
use feedline::checkpoint::{FeedState, Identity, ResumeToken};
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::{Feed, Feeds};
use feedline::format::{Envelope, Format};
use feedline::metrics::Metrics;
use feedline::source::sqlite::{Connector, Error, Log, Options};
use feedline::source::{Probe, Resume, SourceConnector};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A directory that goes when the test ends.
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
        // The next `cargo clean` removes what could not be removed now.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// A writer in a process of its own.
struct Writer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
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
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut writer = Self { child, input, output };
        assert!(writer.answer()["version"].is_string());
        writer
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
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
        let envelope = Envelope { name: pipeline.into(), backend: "sqlite", database: "shop.db".into(), tombstones: false };
        let options = Options { path: self.path.clone(), pipeline: pipeline.into() };
        Connector::new(options, Format::Json(Arc::new(envelope)), Metrics::new(pipeline).source)
    }

    /// A connector with these feeds, and where its log begins.
    async fn established(&self, list: Vec<Feed>) -> (Connector, Captured) {
        let mut connector = self.connector_of("shop");
        let feeds = feeds(list);
        connector.select(Arc::clone(&feeds));
        connector.verify().await.expect("the tables can be followed");
        let begin = connector.establish().await.expect("the log is made");
        let known = connector.catalogue().await.unwrap().identity;
        (connector, Captured { begin, known, feeds })
    }
}

impl Workload for Database {
    type Connector = Connector;
    const SCHEMA: &'static str = "main";

    fn connector(&self) -> Connector {
        self.connector_of("shop")
    }

    fn run(&mut self, statements: &[&str]) {
        self.writer.run(statements);
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
        Ok(Stream::new(connector.connect(&self.known, &resume).await?, 64 * 1024))
    }

    /// All that is in the log.
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

/// Runs statements on a table and compares the events that come of them, whatever `recursive_triggers` is.
async fn check(make: &[&str], key: &[&str], statements: &[&str], expected: &[&str]) {
    for recursive in ["OFF", "ON"] {
        let mut database = Database::new(make);
        let (mut connector, captured) = database.established(vec![table("t", key)]).await;
        database.writer.run(&[&format!("PRAGMA recursive_triggers = {recursive}")]);
        database.writer.run(statements);
        let taken = captured.all(&mut connector).await;
        let found: Vec<_> = taken.iter().map(|taken| format!("{} {}", taken.brief(), taken.field("after"))).collect();
        assert_eq!(found, expected, "{statements:?} with recursive_triggers = {recursive}");
        // The state that the events leave is the table's.
        let rows = scan_all(&mut connector, FeedId(0), 4096, false).await;
        let mut state = std::collections::BTreeMap::new();
        for taken in taken {
            let after = taken.field("after");
            if after.is_null() {
                state.remove(&taken.key)
            } else {
                state.insert(taken.key, after)
            };
        }
        let rows = rows.into_iter().map(|row| (row.key.clone(), row.field("after"))).collect();
        assert_eq!(state, rows, "{statements:?} with recursive_triggers = {recursive}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_over_the_same_key_is_an_update() {
    check(
        &["CREATE TABLE t (id INTEGER PRIMARY KEY, a)"],
        &["id"],
        &["INSERT INTO t VALUES (1, 'a')", "INSERT OR REPLACE INTO t VALUES (1, 'b'), (2, 'c')", "REPLACE INTO t VALUES (1, 'd')"],
        &[
            r#"insert {"id":1} {"a":"a","id":1}"#,
            r#"update {"id":1} {"a":"b","id":1}"#,
            r#"insert {"id":2} {"a":"c","id":2}"#,
            r#"update {"id":1} {"a":"d","id":1}"#,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_replace_pushes_out_are_deleted_first() {
    check(
        &["CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, b, c, UNIQUE (b, c))"],
        &["id"],
        &[
            "INSERT INTO t VALUES (1, 'a', 1, 1), (2, 'b', 2, 2), (3, 'c', NULL, 3)",
            "INSERT OR REPLACE INTO t VALUES (4, 'a', 2, 2)",
            "INSERT OR REPLACE INTO t VALUES (3, 'a', NULL, 3)",
            "UPDATE OR REPLACE t SET a = 'z' WHERE id = 3",
            "INSERT INTO t VALUES (5, 'y', 5, 5)",
            "UPDATE OR REPLACE t SET a = 'z' WHERE id = 5",
            "INSERT INTO t VALUES (6, 'x', 6, 6)",
            "UPDATE OR REPLACE t SET id = 6 WHERE id = 5",
        ],
        &[
            r#"insert {"id":1} {"a":"a","b":1,"c":1,"id":1}"#,
            r#"insert {"id":2} {"a":"b","b":2,"c":2,"id":2}"#,
            r#"insert {"id":3} {"a":"c","b":null,"c":3,"id":3}"#,
            r#"delete {"id":1} null"#,
            r#"delete {"id":2} null"#,
            r#"insert {"id":4} {"a":"a","b":2,"c":2,"id":4}"#,
            r#"delete {"id":4} null"#,
            r#"update {"id":3} {"a":"a","b":null,"c":3,"id":3}"#,
            r#"update {"id":3} {"a":"z","b":null,"c":3,"id":3}"#,
            r#"insert {"id":5} {"a":"y","b":5,"c":5,"id":5}"#,
            r#"delete {"id":3} null"#,
            r#"update {"id":5} {"a":"z","b":5,"c":5,"id":5}"#,
            r#"insert {"id":6} {"a":"x","b":6,"c":6,"id":6}"#,
            r#"delete {"id":6} null"#,
            r#"delete {"id":5} null"#,
            r#"insert {"id":6} {"a":"z","b":5,"c":5,"id":6}"#,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ignored_or_upserted_deletes_nothing() {
    check(
        &["CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE)"],
        &["id"],
        &[
            "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
            "INSERT OR IGNORE INTO t VALUES (1, 'x'), (3, 'a')",
            "INSERT INTO t VALUES (4, 'b') ON CONFLICT DO NOTHING",
            "INSERT INTO t VALUES (2, 'u') ON CONFLICT (id) DO UPDATE SET a = excluded.a",
            "DELETE FROM t WHERE id = 1",
            "INSERT INTO t VALUES (1, 'a')",
            "UPDATE t SET id = 9 WHERE id = 2",
            "INSERT INTO t VALUES (2, 'b')",
        ],
        &[
            r#"insert {"id":1} {"a":"a","id":1}"#,
            r#"insert {"id":2} {"a":"b","id":2}"#,
            r#"update {"id":2} {"a":"u","id":2}"#,
            r#"delete {"id":1} null"#,
            r#"insert {"id":1} {"a":"a","id":1}"#,
            r#"delete {"id":2} null"#,
            r#"insert {"id":9} {"a":"u","id":9}"#,
            r#"insert {"id":2} {"a":"b","id":2}"#,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_and_computed_unique_indexes_push_rows_out_too() {
    check(
        &[
            "CREATE TABLE t (id INTEGER PRIMARY KEY, \"the mail\" TEXT, active, g AS (id * 2))",
            "CREATE UNIQUE INDEX mail ON t (lower(\"the mail\") DESC, g / g)",
            "CREATE UNIQUE INDEX one ON t (active) WHERE active = 1",
        ],
        &["id"],
        &[
            "INSERT INTO t VALUES (1, 'A@b', 0), (2, 'c@d', 1), (3, 'e@f', 0)",
            "INSERT OR REPLACE INTO t VALUES (4, 'a@B', 0)",
            "INSERT OR REPLACE INTO t VALUES (5, 'g@h', 1)",
            "UPDATE OR REPLACE t SET active = 1 WHERE id = 3",
        ],
        &[
            r#"insert {"id":1} {"active":0,"id":1,"the mail":"A@b"}"#,
            r#"insert {"id":2} {"active":1,"id":2,"the mail":"c@d"}"#,
            r#"insert {"id":3} {"active":0,"id":3,"the mail":"e@f"}"#,
            r#"delete {"id":1} null"#,
            r#"insert {"id":4} {"active":0,"id":4,"the mail":"a@B"}"#,
            r#"delete {"id":2} null"#,
            r#"insert {"id":5} {"active":1,"id":5,"the mail":"g@h"}"#,
            r#"delete {"id":5} null"#,
            r#"update {"id":3} {"active":1,"id":3,"the mail":"e@f"}"#,
        ],
    )
    .await;
}
