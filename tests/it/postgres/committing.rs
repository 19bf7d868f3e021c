//! A transaction that is committed in the log and not yet in the server's commit log. A session that reads its rows then would mark them, for all
//! sessions, as written by an aborted transaction.

use super::world::{TIMEOUT, World, feed};
use crate::children::{Lines, ended};
use feedline::batch::Budget;
use feedline::event::FeedId;
use feedline::source::postgres::Rows;
use feedline::source::{Opened, Prefeed, Slice, SourceConnector, ToRead};
use std::io::Write as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::timeout;

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t SELECT g, 'before' FROM generate_series(1, 100) g; \
                      CREATE TABLE u (id int PRIMARY KEY)";

/// A session of an application that runs one statement after the other.
struct Application {
    psql: Child,
    stdin: ChildStdin,
    name: &'static str,
}

impl Application {
    fn new(world: &World, name: &'static str) -> Self {
        let mut psql = world.server.psql_command(&world.database);
        let mut psql = psql.env("PGAPPNAME", name).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stdin = psql.stdin.take().unwrap();
        Self { psql, stdin, name }
    }

    fn run(&mut self, statement: &str) {
        writeln!(self.stdin, "{statement};").unwrap();
    }

    /// Waits until the session meets this condition in `pg_stat_activity`, and returns its process.
    async fn wait_until(&self, world: &World, state: &str) -> String {
        let mut pid = String::new();
        until(&format!("{} is {state}", self.name), || {
            let ours = format!("application_name = '{}' AND datname = current_database() AND {state}", self.name);
            pid = world.sql(&format!("SELECT pid FROM pg_stat_activity WHERE {ours}"));
            !pid.is_empty()
        })
        .await;
        pid
    }

    fn end(mut self) {
        drop(self.stdin);
        assert!(ended(&mut self.psql).success(), "{} failed", self.name);
    }
}

async fn until(condition: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < 2 * TIMEOUT, "{condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A server process that gdb stops when it is about to write to the commit log.
struct Stopped {
    gdb: Child,
    stdin: ChildStdin,
    output: Lines,
}

impl Stopped {
    fn attach(pid: &str) -> Self {
        let mut gdb = Command::new("gdb")
            .args(["-q", "-nx", "-p", pid, "-ex", "break TransactionIdCommitTree", "-ex", "echo is ready\\n", "-ex", "continue"])
            .env("DEBUGINFOD_URLS", "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start gdb");
        let (stdin, output) = (gdb.stdin.take().unwrap(), Lines::of(gdb.stdout.take().unwrap()));
        output.until("is ready");
        Self { gdb, stdin, output }
    }

    /// Waits until the process has reached the breakpoint.
    fn wait_for_breakpoint(&self) {
        self.output.until("Breakpoint 1,");
    }

    fn resume(mut self) {
        writeln!(self.stdin, "delete\ndetach\nquit").unwrap();
        assert!(ended(&mut self.gdb).success());
    }
}

/// A transaction that began while the slot was created. Its commit record is in the log, and other sessions still see it as running.
struct HalfCommitted {
    writer: Application,
    stopped: Stopped,
}

impl HalfCommitted {
    /// Creates one during an attempt to open a snapshot, so that the snapshot shows it.
    async fn during(world: &World, opening: impl Future<Output = Opened>) -> Self {
        let mut first = Application::new(world, "first");
        // It must run before the attempt begins, so that the attempt waits for it.
        first.run("BEGIN; INSERT INTO u VALUES (1)");
        first.wait_until(world, "state = 'idle in transaction'").await;
        tokio::select! { biased;
            half_committed = Self::create(world, first) => half_committed,
            opened = opening => panic!("the attempt waited for no transaction: {opened:?}"),
        }
    }

    async fn create(world: &World, mut first: Application) -> Self {
        let [mut last, mut writer] = ["last", "billing"].map(|name| Application::new(world, name));
        writer.run("SELECT 1");
        let process = writer.wait_until(world, "state = 'idle'").await;
        world.wait_until_slot_waits_for("first").await;
        last.run("BEGIN; INSERT INTO u VALUES (2)");
        last.wait_until(world, "state = 'idle in transaction'").await;
        first.run("COMMIT");
        world.wait_until_slot_waits_for("last").await;
        first.end();
        // The slot waits for transactions that ran when it began to wait. This one begins later.
        let stopped = Stopped::attach(&process);
        writer.run("BEGIN; INSERT INTO t VALUES (1000, 'committed'); UPDATE t SET note = 'committed' WHERE id = 7; DELETE FROM t WHERE id = 8; COMMIT");
        stopped.wait_for_breakpoint();
        last.run("COMMIT; DELETE FROM u");
        last.end();
        Self { writer, stopped }
    }

    fn end(self) {
        self.stopped.resume();
        self.writer.end();
    }
}

impl World {
    /// Waits until the slot that is being created waits for this application.
    async fn wait_until_slot_waits_for(&self, name: &str) {
        let waits = format!(
            "SELECT count(*) = 1 FROM pg_locks l, pg_stat_activity a WHERE NOT l.granted AND l.locktype = 'transactionid' \
             AND a.application_name = '{name}' AND a.datname = current_database() AND a.pid = ANY (pg_blocking_pids(l.pid))"
        );
        until(&format!("the slot waits for {name}"), || self.sql(&waits) == "t").await;
    }
}

fn world() -> World {
    World::alone(&[], TABLES, vec![feed("t", &["id"])])
}

async fn open(rows: &mut Rows, within: Duration) -> Opened {
    rows.open(&[ToRead { feed: FeedId(0), after: None }], within).await.unwrap()
}

/// Reads all rows under the open snapshot.
async fn read(rows: &mut Rows) -> Vec<String> {
    let budget = Budget::new(1 << 20, 1 << 19);
    let mut out = budget.writer().await;
    let scanned = crate::session::scan(rows, "0", FeedId(0), None, &mut Slice { number: 1, next_row: 0 }, &mut out).await.unwrap();
    assert!(scanned.done);
    out.records().map(|record| String::from_utf8(record.body.unwrap().to_vec()).unwrap()).collect()
}

/// Asserts that the changes of the transaction are there.
fn assert_committed(world: &World) {
    let rows = "SELECT string_agg(id || ' ' || note, ', ' ORDER BY id) FROM t WHERE id IN (7, 8, 1000)";
    assert_eq!(world.sql(rows), "7 committed, 1000 committed");
}

#[tokio::test]
async fn nothing_is_read_before_every_visible_transaction_is_finished() {
    let world = world();
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    let mut opening = Box::pin(open(&mut rows, 20 * TIMEOUT));
    let half_committed = HalfCommitted::during(&world, &mut opening).await;
    // Time in which an implementation that does not wait would go wrong.
    let early = timeout(Duration::from_secs(2), &mut opening).await;
    if early.is_ok() {
        drop(opening);
        let _read = read(&mut rows).await;
        half_committed.end();
        assert_committed(&world);
        panic!("rows were read too early, and were undamaged only by chance");
    }
    half_committed.end();
    assert!(matches!(opening.await, Opened::Cut(_)));
    assert_committed(&world);
    let read = read(&mut rows).await;
    assert_eq!(read.len(), 100, "one row was inserted and one deleted");
    assert_eq!(read.iter().filter(|row| row.contains("\"note\":\"committed\"")).count(), 2, "{read:?}");
    rows.close().await.unwrap();
    assert_committed(&world);
}

#[tokio::test]
async fn an_unfinished_transaction_is_named_and_the_snapshot_released() {
    let world = world();
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    // The time is long because it includes the creation of the transaction.
    let mut opening = Box::pin(open(&mut rows, TIMEOUT));
    let half_committed = HalfCommitted::during(&world, &mut opening).await;
    let Opened::Blocked { by } = opening.await else { panic!("the snapshot shows an unfinished transaction") };
    // A server of 15.20 waits for the transaction itself, before the slot is there; one of 15.18 does not.
    let waits = ["process ", "a transaction that is committed in the log but not yet visible to others, of process "];
    assert!(waits.iter().any(|begin| by.starts_with(begin)) && by.contains("\"billing\""), "{by}");
    half_committed.end();
    assert_committed(&world);
}

#[tokio::test]
async fn a_session_that_waits_for_our_lock_meanwhile_continues() {
    let world = world();
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    let mut opening = Box::pin(open(&mut rows, 20 * TIMEOUT));
    let half_committed = HalfCommitted::during(&world, &mut opening).await;
    let mut impatient = Application::new(&world, "impatient");
    impatient.run("ALTER TABLE t ADD COLUMN extra int");
    let Opened::Blocked { by } = opening.await else { panic!("the snapshot was opened while a session waits for the table") };
    assert!(by.contains("\"impatient\""), "{by}");
    half_committed.end();
    impatient.end();
    assert_committed(&world);
}
