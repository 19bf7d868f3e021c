//! A transaction that the log shows as committed and the server's commit log does not know yet: whoever reads its rows by then would note on
//! them, for everybody, that it was aborted.

use super::world::{PATIENCE, World, feed};
use feedline::batch::Budget;
use feedline::event::FeedId;
use feedline::source::postgres::Rows;
use feedline::source::{Opened, Prefeed, Slice, SourceConnector, ToRead};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::timeout;

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t SELECT g, 'before' FROM generate_series(1, 100) g; \
                      CREATE TABLE u (id int PRIMARY KEY)";

/// A session of an application that is told one statement after the other.
struct Application {
    psql: Child,
    says: ChildStdin,
    name: &'static str,
}

impl Application {
    fn new(world: &World, name: &'static str) -> Self {
        let mut psql = world.server.psql_command(&world.database);
        let mut psql = psql.env("PGAPPNAME", name).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let says = psql.stdin.take().unwrap();
        Self { psql, says, name }
    }

    fn say(&mut self, statement: &str) {
        writeln!(self.says, "{statement};").unwrap();
    }

    /// Waits until the server shows the session so, and returns its process.
    async fn is(&self, world: &World, state: &str) -> String {
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
        drop(self.says);
        assert!(self.psql.wait().unwrap().success(), "{} failed", self.name);
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < 2 * PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Stops a process of the server where it is about to tell the commit log.
struct Stopped {
    gdb: Child,
    says: ChildStdin,
    heard: BufReader<ChildStdout>,
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
        let (says, heard) = (gdb.stdin.take().unwrap(), BufReader::new(gdb.stdout.take().unwrap()));
        let mut stopped = Self { gdb, says, heard };
        stopped.on_consumed("is ready");
        stopped
    }

    fn on_consumed(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(0 < self.heard.read_line(&mut line).unwrap(), "gdb ended before it said {words:?}");
        }
    }

    /// The process has come to the place.
    fn is_there(&mut self) {
        self.on_consumed("Breakpoint 1,");
    }

    fn go_on(mut self) {
        writeln!(self.says, "delete\ndetach\nquit").unwrap();
        assert!(self.gdb.wait().unwrap().success());
    }
}

/// A transaction that began while the slot was made, and whose commit record is in the log; nobody else knows of its end.
struct Halfway {
    writer: Application,
    stopped: Stopped,
}

impl Halfway {
    /// Brings one about under an attempt to open a snapshot, which shows it.
    async fn under(world: &World, opening: impl Future<Output = Opened>) -> Self {
        let mut first = Application::new(world, "first");
        // It runs before the attempt begins, or nobody is waited for.
        first.say("BEGIN; INSERT INTO u VALUES (1)");
        first.is(world, "state = 'idle in transaction'").await;
        tokio::select! { biased;
            halfway = Self::begun(world, first) => halfway,
            opened = opening => panic!("no transaction was waited for: {opened:?}"),
        }
    }

    async fn begun(world: &World, mut first: Application) -> Self {
        let [mut last, mut writer] = ["last", "billing"].map(|name| Application::new(world, name));
        writer.say("SELECT 1");
        let process = writer.is(world, "state = 'idle'").await;
        world.is_waited_for("first").await;
        last.say("BEGIN; INSERT INTO u VALUES (2)");
        last.is(world, "state = 'idle in transaction'").await;
        first.say("COMMIT");
        world.is_waited_for("last").await;
        first.end();
        // The slot waits for those that ran when it began to wait: not for this one.
        let mut stopped = Stopped::attach(&process);
        writer.say("BEGIN; INSERT INTO t VALUES (1000, 'committed'); UPDATE t SET note = 'committed' WHERE id = 7; DELETE FROM t WHERE id = 8; COMMIT");
        stopped.is_there();
        last.say("COMMIT; DELETE FROM u");
        last.end();
        Self { writer, stopped }
    }

    fn end(self) {
        self.stopped.go_on();
        self.writer.end();
    }
}

impl World {
    /// Waits until the slot that is being made waits for this application.
    async fn is_waited_for(&self, name: &str) {
        let waits = format!(
            "SELECT count(*) = 1 FROM pg_locks l, pg_stat_activity a WHERE NOT l.granted AND l.locktype = 'transactionid' \
             AND a.application_name = '{name}' AND a.datname = current_database() AND a.pid = ANY (pg_blocking_pids(l.pid))"
        );
        until(&format!("{name} is waited for"), || self.sql(&waits) == "t").await;
    }
}

fn world() -> World {
    World::alone(&[], TABLES, vec![feed("t", &["id"])])
}

async fn open(rows: &mut Rows, within: Duration) -> Opened {
    rows.open(&[ToRead { feed: FeedId(0), after: None }], within).await.unwrap()
}

/// All rows under the open snapshot.
async fn read(rows: &mut Rows) -> Vec<String> {
    let budget = Budget::new(1 << 20, 1 << 19);
    let mut out = budget.writer().await;
    let scanned = rows.scan(FeedId(0), None, &mut Slice { number: 1, next_row: 0 }, &mut out).await.unwrap();
    assert!(scanned.done);
    out.records().map(|record| String::from_utf8(record.body.unwrap().to_vec()).unwrap()).collect()
}

/// Asserts that the transaction did what it was told that it did.
fn assert_committed(world: &World) {
    let rows = "SELECT string_agg(id || ' ' || note, ', ' ORDER BY id) FROM t WHERE id IN (7, 8, 1000)";
    assert_eq!(world.sql(rows), "7 committed, 1000 committed");
}

#[tokio::test]
async fn nothing_is_read_before_every_transaction_that_is_shown_is_finished() {
    let world = world();
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    let mut opening = Box::pin(open(&mut rows, 20 * PATIENCE));
    let halfway = Halfway::under(&world, &mut opening).await;
    // A little while for whoever does not wait to go wrong in.
    let early = timeout(Duration::from_secs(2), &mut opening).await;
    if early.is_ok() {
        drop(opening);
        let _read = read(&mut rows).await;
        halfway.end();
        assert_committed(&world);
        panic!("rows were read too early, and came to no harm by chance");
    }
    halfway.end();
    assert!(matches!(opening.await, Opened::Cut(_)));
    assert_committed(&world);
    let read = read(&mut rows).await;
    assert_eq!(read.len(), 100, "one more and one less");
    assert_eq!(read.iter().filter(|row| row.contains("\"note\":\"committed\"")).count(), 2, "{read:?}");
    rows.close().await.unwrap();
    assert_committed(&world);
}

#[tokio::test]
async fn whoever_is_not_finished_is_named_and_the_snapshot_given_up() {
    let world = world();
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    // It is long, since all that brings the transaction about is part of it.
    let mut opening = Box::pin(open(&mut rows, PATIENCE));
    let halfway = Halfway::under(&world, &mut opening).await;
    let Opened::Blocked { by } = opening.await else { panic!("the snapshot shows what is not finished") };
    assert!(by.contains("committed in the log but not yet visible to others") && by.contains("\"billing\""), "{by}");
    halfway.end();
    assert_committed(&world);
}

#[tokio::test]
async fn whoever_waits_for_us_meanwhile_goes_on() {
    let world = world();
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    let mut opening = Box::pin(open(&mut rows, 20 * PATIENCE));
    let halfway = Halfway::under(&world, &mut opening).await;
    let mut impatient = Application::new(&world, "impatient");
    impatient.say("ALTER TABLE t ADD COLUMN extra int");
    let Opened::Blocked { by } = opening.await else { panic!("somebody waits for the table") };
    assert!(by.contains("\"impatient\""), "{by}");
    halfway.end();
    impatient.end();
    assert_committed(&world);
}
