//! Nothing is held in the source while the prefeed waits for somebody else: a reader that stands still, or a rate.

use crate::crash::run::tempdir;
use crate::servers::{port::wait_for, postgres::Postgres};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(2);
const ROWS: usize = 50_000;
const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text)";

/// The program, with its standard output as the sink, which stands still until it is read.
struct Feedline {
    directory: PathBuf,
    child: Child,
}

impl Feedline {
    fn start(name: &str, source: &str, tables: &str, pipeline: &str) -> Self {
        let directory = tempdir(name);
        let configuration = directory.join("feedline.toml");
        let settings = format!(
            "name = \"{name}\"\n[source]\n{source}\n[[feeds]]\ntables = [\"{tables}\"]\n[sink]\nkind = \"stdout\"\n\
             [checkpoint]\npath = \"{}\"\n[pipeline]\n{pipeline}\n[admin]\nlisten = \"127.0.0.1:0\"\n",
            directory.join("checkpoint").display()
        );
        std::fs::write(&configuration, settings).unwrap();
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
        let child = command.args(["run", "-c"]).arg(configuration).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        Self { directory, child }
    }

    /// Waits for the first event, and reads no further.
    fn first(&mut self) -> BufReader<ChildStdout> {
        let mut output = BufReader::new(self.child.stdout.take().unwrap());
        assert!(0 < output.read_line(&mut String::new()).unwrap(), "{}", self.log());
        output
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// Reads on, and counts how many keys have come.
fn listen(output: BufReader<ChildStdout>) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut keys = BTreeSet::new();
        for line in output.lines() {
            let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            keys.insert(event["key"].to_string());
            counted.store(keys.len(), Ordering::Relaxed);
        }
    });
    count
}

fn wait_for_all(count: &AtomicUsize) {
    // The first was read before.
    wait_for("every row comes", PATIENCE, || (ROWS - 1 <= count.load(Ordering::Relaxed)).then_some(()));
}

fn postgres(database: &str, name: &str, pipeline: &str) -> Feedline {
    let server = Postgres::shared();
    server.psql(database, &format!("{TABLE}; INSERT INTO orders SELECT g, repeat('x', 600) FROM generate_series(1, {ROWS}) g"));
    let source = format!(
        "kind = \"postgres\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{database}\"\ntls = \"disable\"\nslot = \"{name}\"",
        server.port()
    );
    Feedline::start(name, &source, "public.orders", pipeline)
}

/// A statement that waits for everybody who reads the table.
fn alter(database: &str, statement: &str) {
    Postgres::shared().psql(database, &format!("SET lock_timeout = '2s'; ALTER TABLE orders {statement}"));
}

#[test]
fn a_reader_that_stands_still_costs_postgres_neither_locks_nor_a_snapshot() {
    let server = Postgres::shared();
    let database = server.create_database("stands_still");
    let mut feedline = postgres(&database, "stands_still", "memory = \"8MiB\"");
    let output = feedline.first();
    let held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                AND application_name LIKE 'feedline/%' AND (backend_xmin IS NOT NULL OR state = 'idle in transaction')";
    wait_for("nothing is held", PATIENCE, || (server.psql(&database, held) == "0").then_some(()));
    let locks = "SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND pid <> pg_backend_pid()";
    assert_eq!(server.psql(&database, locks), "0");
    alter(&database, "ADD COLUMN extra int");
    wait_for_all(&listen(output));
    feedline.stop();
    server.psql("postgres", "SELECT pg_drop_replication_slot('stands_still')");
}

#[test]
fn a_low_rate_is_waited_for_between_snapshots() {
    let server = Postgres::shared();
    let database = server.create_database("low_rate");
    let mut feedline = postgres(&database, "low_rate", "prefeed_rate = \"40KiB/s\"");
    let count = listen(feedline.first());
    for round in 0..4 {
        alter(&database, &format!("ADD COLUMN extra_{round} int"));
        let before = count.load(Ordering::Relaxed);
        wait_for("the prefeed goes on", PATIENCE, || (before < count.load(Ordering::Relaxed)).then_some(()));
    }
    assert!(count.load(Ordering::Relaxed) < ROWS - 1, "it is in the middle of it");
    feedline.stop();
    server.psql("postgres", "SELECT pg_drop_replication_slot('low_rate')");
}

#[test]
fn a_reader_that_stands_still_pins_nothing_of_sqlites_log() {
    let directory = tempdir("pins");
    let path: &Path = &directory.join("shop.db");
    let connection = rusqlite::Connection::open(path).unwrap();
    let fill = format!(
        "PRAGMA journal_mode = WAL; {TABLE}; WITH RECURSIVE g (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM g WHERE id < {ROWS}) \
         INSERT INTO orders SELECT id, printf('%0600d', id) FROM g"
    );
    connection.execute_batch(&fill).unwrap();
    let source = format!("kind = \"sqlite\"\npath = \"{}\"", path.display());
    let mut feedline = Feedline::start("pins_wal", &source, "orders", "memory = \"8MiB\"");
    let output = feedline.first();
    wait_for("the log can be written back whole", PATIENCE, || {
        connection.execute_batch("UPDATE orders SET note = 'changed' WHERE id = 1").unwrap();
        let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        (busy == 0).then_some(())
    });
    wait_for_all(&listen(output));
    feedline.stop();
    drop(connection);
    std::fs::remove_dir_all(directory).unwrap();
}
