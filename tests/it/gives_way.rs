//! While the prefeed waits for a stopped reader or a rate limit, it holds no lock, snapshot or log in the source.

use crate::children::ended;
use crate::crash::run::tempdir;
use crate::servers::{port::wait_for, postgres::Postgres};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const WAIT_MAX: Duration = Duration::from_mins(2);
const ROWS: usize = 50_000;
const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text)";

/// The program, with its standard output as the sink. The sink accepts nothing while nobody reads.
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

    /// Waits for the first event, and reads no more.
    fn read_first(&mut self) -> BufReader<ChildStdout> {
        let mut output = BufReader::new(self.child.stdout.take().unwrap());
        let within = Timespec { tv_sec: 120, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(output.get_ref(), PollFlags::IN)], Some(&within)).unwrap();
        assert_eq!(ready, 1, "no event came: {}", self.log());
        assert!(0 < output.read_line(&mut String::new()).unwrap(), "{}", self.log());
        output
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = ended(&mut self.child);
        assert!(status.success(), "{status}: {}", self.log());
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// Reads all further events in a thread, and counts the different keys.
fn count_keys(output: BufReader<ChildStdout>) -> Arc<AtomicUsize> {
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
    // The first one was read before.
    wait_for("every row arrives", WAIT_MAX, || (ROWS - 1 <= count.load(Ordering::Relaxed)).then_some(()));
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

/// A statement that waits for every reader of the table.
fn alter(database: &str, statement: &str) {
    Postgres::shared().psql(database, &format!("SET lock_timeout = '2s'; ALTER TABLE orders {statement}"));
}

#[test]
fn a_stopped_reader_holds_no_lock_and_no_snapshot_in_postgres() {
    let server = Postgres::shared();
    let database = server.create_database("stands_still");
    let mut feedline = postgres(&database, "stands_still", "memory = \"8MiB\"");
    let output = feedline.read_first();
    let held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                AND application_name LIKE 'feedline/%' AND (backend_xmin IS NOT NULL OR state = 'idle in transaction')";
    wait_for("nothing is held", WAIT_MAX, || (server.psql(&database, held) == "0").then_some(()));
    let locks = "SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND pid <> pg_backend_pid()";
    assert_eq!(server.psql(&database, locks), "0");
    alter(&database, "ADD COLUMN extra int");
    wait_for_all(&count_keys(output));
    feedline.stop();
    server.psql("postgres", "SELECT pg_drop_replication_slot('stands_still')");
}

#[test]
fn a_low_rate_limit_is_waited_for_between_snapshots() {
    let server = Postgres::shared();
    let database = server.create_database("low_rate");
    let mut feedline = postgres(&database, "low_rate", "prefeed_rate = \"40KiB/s\"");
    let count = count_keys(feedline.read_first());
    for round in 0..4 {
        alter(&database, &format!("ADD COLUMN extra_{round} int"));
        let before = count.load(Ordering::Relaxed);
        wait_for("the prefeed continues", WAIT_MAX, || (before < count.load(Ordering::Relaxed)).then_some(()));
    }
    assert!(count.load(Ordering::Relaxed) < ROWS - 1, "the prefeed is not finished yet");
    feedline.stop();
    server.psql("postgres", "SELECT pg_drop_replication_slot('low_rate')");
}

#[test]
fn a_stopped_reader_does_not_pin_the_log_of_sqlite() {
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
    let output = feedline.read_first();
    wait_for("the whole log can be checkpointed", WAIT_MAX, || {
        connection.execute_batch("UPDATE orders SET note = 'changed' WHERE id = 1").unwrap();
        let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        (busy == 0).then_some(())
    });
    wait_for_all(&count_keys(output));
    feedline.stop();
    drop(connection);
    std::fs::remove_dir_all(directory).unwrap();
}
