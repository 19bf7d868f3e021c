//! Snapshots: they show exactly what stands before their place in the log, and no statement of an application fails or waits for long.

use super::world::World;
use crate::contract_source::{TIMEOUT, Taken, records};
use crate::servers::mysql::MySql;
use crate::session::{prefix, scan};
use feedline::batch::Budget;
use feedline::event::{FeedId, Operation};
use feedline::source::mysql::{Log, Rows, Session};
use feedline::source::{Opened, Prefeed as _, Slice, SourceConnector as _, ToRead};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const FEEDS: &[(&str, &[&str])] = &[("a", &["id"]), ("b", &["id"])];
const TABLES: &str = "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, n int)";

/// Writes to both tables, one transaction after the other: each ends with the same number in both. Tables are not written in their order.
const CHURN: &str = "\
    CREATE PROCEDURE {database}.churn(pause double) BEGIN DECLARE i int DEFAULT 0; \
    WHILE i < 1000000 DO SET i = i + 1; START TRANSACTION; \
    REPLACE INTO b VALUES (i % 50, i); REPLACE INTO a VALUES (i % 50, i); \
    IF i % 7 = 0 THEN DELETE FROM b WHERE id = i % 50; DELETE FROM a WHERE id = i % 50; END IF; \
    COMMIT; IF pause > 0 THEN DO SLEEP(pause); END IF; END WHILE; END";

/// A statement that an application runs meanwhile.
pub(super) struct Statement {
    client: Child,
    server: &'static MySql,
    session: String,
}

impl Statement {
    pub(super) fn run(world: &World, sql: &str) -> Self {
        let mut client = world.server.client(&world.database);
        client.args(["--unbuffered", "-e", &format!("SELECT CONNECTION_ID(); {sql}")]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = client.spawn().unwrap();
        let mut session = String::new();
        BufReader::new(client.stdout.take().unwrap()).read_line(&mut session).unwrap();
        Self { client, server: world.server, session: session.trim().to_owned() }
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.client.try_wait().unwrap().is_none()
    }
}

impl Drop for Statement {
    /// The server would not notice that the client is gone before the statement ends.
    fn drop(&mut self) {
        if self.is_running() {
            self.server.try_sql("", &format!("KILL {}", self.session)).ok();
        }
        let _killed = (self.client.kill(), self.client.wait());
    }
}

/// The table of sessions. That of MySQL's `information_schema` cannot be read while a statement with certain characters runs.
fn processes(world: &World) -> &'static str {
    if world.server.is_mariadb() { "information_schema.PROCESSLIST" } else { "performance_schema.processlist" }
}

pub(super) fn both() -> [ToRead; 2] {
    [0, 1].map(|feed| ToRead { feed: FeedId(feed), after: None })
}

/// All rows of a feed under the open snapshot.
pub(super) async fn read(prefeed: &mut Rows, prefix: &str, feed: FeedId) -> Vec<Taken> {
    let (mut slice, budget) = (Slice { number: 1, next_row: 0 }, Budget::new(8 << 20, 1 << 20));
    let mut out = budget.writer().await;
    let scanned = tokio::time::timeout(TIMEOUT, scan(prefeed, prefix, feed, None, &mut slice, &mut out)).await.unwrap().unwrap();
    assert!(scanned.done);
    records(&out)
}

type State = BTreeMap<(FeedId, String), String>;

fn apply(state: &mut State, taken: &Taken) {
    let key = (taken.feed, taken.key.clone());
    match taken.operation {
        Operation::Delete => drop(state.remove(&key)),
        _ => drop(state.insert(key, super::reading::after(taken).to_owned())),
    }
}

/// Opens snapshots while an application writes, and compares each with the log up to its place.
async fn assert_exact(world: &World, pause: &str, cuts: usize) {
    // The distribution's client would take it for several statements.
    let mut session = Session::open(&world.options).await.unwrap();
    session.query(&CHURN.replace("{database}", &world.database)).await.unwrap();
    drop(session);
    let (mut log, _, mut connector) = world.follow().await;
    let mut application = Statement::run(world, &format!("CALL churn({pause})"));
    let mut prefeed = connector.prefeed().await.unwrap();
    let mut state = State::new();
    let deadline = Instant::now() + 6 * TIMEOUT;
    let mut exact = 0;
    while exact < cuts {
        assert!(Instant::now() < deadline && application.is_running(), "{exact} cuts");
        let Opened::Cut(cut) = prefeed.open(&both(), Duration::from_secs(5)).await.unwrap() else { continue };
        let prefix = prefix::<Log>(&cut.token);
        let mut shown = State::new();
        for feed in [0, 1] {
            for taken in read(&mut prefeed, &prefix, FeedId(feed)).await {
                shown.insert((taken.feed, taken.key.clone()), super::reading::after(&taken).to_owned());
            }
        }
        prefeed.close().await.unwrap();
        for batch in log.batches(&cut.token).await {
            batch.records.iter().for_each(|taken| apply(&mut state, taken));
        }
        assert_eq!(shown, state, "{}", cut.token.0);
        exact += 1;
    }
    assert!(application.is_running(), "the application goes on");
}

#[tokio::test]
async fn a_snapshot_shows_what_stands_before_its_place_in_the_log() {
    assert_exact(&World::new(TABLES, FEEDS), "0.001", 15).await;
    assert_exact(&World::new(TABLES, FEEDS), "0.02", 8).await;
}

/// MariaDB gives out a snapshot's place by way of variables that all sessions share.
#[tokio::test]
async fn a_snapshots_place_is_its_own_while_others_ask_for_theirs() {
    if !MySql::shared().is_mariadb() {
        return;
    }
    // The snapshots of other tests would be asked for more often, too.
    let world = World::alone(&[], TABLES, FEEDS);
    let mut session = Session::open(&world.options).await.unwrap();
    let ask = format!(
        "CREATE PROCEDURE {}.ask() BEGIN DECLARE n int; WHILE TRUE DO SELECT count(*) INTO n FROM information_schema.GLOBAL_STATUS \
         WHERE VARIABLE_NAME LIKE 'BINLOG_SNAPSHOT%'; END WHILE; END",
        world.database
    );
    session.query(&ask).await.unwrap();
    let others = [(); 3].map(|()| Statement::run(&world, "CALL ask()"));
    assert_exact(&world, "0.001", 30).await;
    drop(others);
}

#[tokio::test]
async fn a_snapshot_is_exact_where_transactions_have_no_names() {
    if MySql::shared().is_mariadb() {
        return;
    }
    // No moment can be proven to be quiet, so the tables are locked.
    let world = World::alone(&[("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")], TABLES, FEEDS);
    assert_exact(&world, "0.001", 15).await;
    assert_application_goes_on(&world).await;
}

/// A transaction that has written one table holds up a snapshot of both. It writes the other table meanwhile, which must not be a deadlock.
async fn assert_application_goes_on(world: &World) {
    let mut application = Session::open(&world.options).await.unwrap();
    let id = application.query("SELECT CONNECTION_ID()").await.unwrap()[0].text(0).to_owned();
    for statement in ["SET SESSION lock_wait_timeout = 600", "BEGIN", &format!("REPLACE INTO {}.b VALUES (1, 1)", world.database)] {
        application.query(statement).await.unwrap();
    }
    let mut prefeed = world.established().await.prefeed().await.unwrap();
    let writes = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        application.query(&format!("REPLACE INTO {}.a VALUES (1, 1)", world.database)).await.unwrap();
    };
    let tables = both();
    let both_end = async { tokio::join!(prefeed.open(&tables, Duration::from_secs(10)), writes) };
    let (opened, ()) = tokio::time::timeout(TIMEOUT, both_end).await.expect("nobody waits for the other");
    let Opened::Blocked { by } = opened.unwrap() else { panic!("a transaction blocks it") };
    assert!(by.contains(&format!("session {id} (user \"root\"")), "{by}");
    application.query("COMMIT").await.unwrap();
    assert!(matches!(prefeed.open(&both(), Duration::from_secs(10)).await.unwrap(), Opened::Cut(_)));
    prefeed.close().await.unwrap();
}

#[tokio::test]
async fn who_holds_a_table_is_named_and_waits_for_nothing() {
    let world = World::new(TABLES, FEEDS);
    let mut prefeed = world.established().await.prefeed().await.unwrap();
    let mut holder = Statement::run(&world, "LOCK TABLES a WRITE; DO SLEEP(60)");
    let held = || world.sql(&format!("SELECT count(*) FROM {} WHERE INFO LIKE 'DO SLEEP(60)%'", processes(&world)));
    crate::servers::port::wait_for("the table is locked", TIMEOUT, || (held() == "1").then_some(()));
    let opened = prefeed.open(&both(), Duration::from_secs(10)).await.unwrap();
    let Opened::Blocked { by } = opened else { panic!("{opened:?}") };
    assert!(by.contains("session") || by.contains("a table's definition"), "{by}");
    assert!(holder.is_running());
    drop(holder);
    crate::servers::port::wait_for("the table is free", TIMEOUT, || (held() == "0").then_some(()));
    let opened = prefeed.open(&both(), Duration::from_secs(10)).await.unwrap();
    assert!(matches!(opened, Opened::Cut(_)), "{opened:?}");
    prefeed.close().await.unwrap();
}

#[tokio::test]
async fn a_slice_ends_when_an_application_waits_for_a_table() {
    // Where a statement of another test waits, a slice ends too.
    let world = World::alone(&[], TABLES, FEEDS);
    world.sql("INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1)");
    // MySQL cannot convert this statement for its list of processes.
    let _other = Statement::run(&world, "SELECT SLEEP(60), '😀'");
    let mut prefeed = world.established().await.prefeed().await.unwrap();
    let Opened::Cut(_) = prefeed.open(&both(), Duration::from_secs(10)).await.unwrap() else { panic!("nobody blocks it") };
    assert!(!prefeed.is_waited_for().await.unwrap());
    let begun = Instant::now();
    let mut application = Statement::run(&world, "ALTER TABLE b ADD COLUMN more int NOT NULL DEFAULT 7");
    while !prefeed.is_waited_for().await.unwrap() {
        assert!(begun.elapsed() < TIMEOUT && application.is_running(), "the table is held");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    prefeed.close().await.unwrap();
    let released = Instant::now();
    while application.is_running() {
        assert!(released.elapsed() < TIMEOUT);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let Opened::Cut(cut) = prefeed.open(&both(), Duration::from_secs(10)).await.unwrap() else { panic!("nobody blocks it") };
    let rows = read(&mut prefeed, &prefix::<Log>(&cut.token), FeedId(1)).await;
    assert_eq!(rows.iter().map(super::reading::after).collect::<Vec<_>>(), ["{\"id\":1,\"n\":1,\"more\":7}"]);
    prefeed.close().await.unwrap();
}

#[tokio::test]
async fn a_slice_that_ends_early_stops_its_statements() {
    let world = World::new(
        "CREATE TABLE a (id int PRIMARY KEY, note varchar(1000)); CREATE TABLE b (id int PRIMARY KEY)",
        &[("a", &["id"]), ("b", &["id"])],
    );
    world.sql("INSERT INTO a WITH RECURSIVE n AS (SELECT 1 g UNION ALL SELECT g + 1 FROM n WHERE g < 1000) SELECT a.g * 1000 + b.g, REPEAT('x', 900) FROM n a, n b WHERE b.g <= 100");
    let mut prefeed = world.established().await.prefeed().await.unwrap();
    for _ in 0..3 {
        let Opened::Cut(cut) = prefeed.open(&both(), Duration::from_secs(10)).await.unwrap() else { panic!("nobody blocks it") };
        let (mut slice, budget) = (Slice { number: 1, next_row: 0 }, Budget::new(8 << 20, 1 << 16));
        let mut out = budget.writer().await;
        let scanned = scan(&mut prefeed, &prefix::<Log>(&cut.token), FeedId(0), None, &mut slice, &mut out).await.unwrap();
        assert!(!scanned.done && 0 < scanned.rows);
        prefeed.close().await.unwrap();
        let running = format!("SELECT count(*) FROM {} WHERE INFO LIKE 'SELECT `id`, `note` FROM%'", processes(&world));
        // The server shows a statement a moment longer than it runs. One that goes on would wait here for 60 s (net_write_timeout).
        crate::servers::port::wait_for("no statement runs", TIMEOUT / 2, || (world.sql(&running) == "0").then_some(()));
    }
}

#[tokio::test]
async fn a_slice_ends_when_a_table_is_locked_whose_key_ranges_are_not_found_yet() {
    let tables = "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, note varchar(1000))";
    let world = World::new(tables, FEEDS);
    world.sql("INSERT INTO a VALUES (1, 1)");
    world.sql("INSERT INTO b WITH RECURSIVE n AS (SELECT 1 g UNION ALL SELECT g + 1 FROM n WHERE g < 1000) SELECT a.g * 1000 + b.g, REPEAT('x', 900) FROM n a, n b WHERE b.g <= 30; ANALYZE TABLE b");
    let mut prefeed = world.established().await.prefeed().await.unwrap();
    // Only a large table is split into ranges.
    assert!(20_000 < prefeed.expected_rows(FeedId(1)).await.unwrap().unwrap());
    let Opened::Cut(cut) = prefeed.open(&both(), Duration::from_secs(10)).await.unwrap() else { panic!("nobody blocks it") };
    // It waits for the reader that holds both tables, and all others wait for it.
    let mut application = Statement::run(&world, "ALTER TABLE b ADD COLUMN more int NOT NULL DEFAULT 7");
    let waiting =
        format!("SELECT count(*) FROM {} WHERE INFO LIKE 'ALTER TABLE b%' AND STATE LIKE 'Waiting for table%'", processes(&world));
    crate::servers::port::wait_for("the application waits", TIMEOUT, || (world.sql(&waiting) == "1").then_some(()));
    let (mut slice, budget) = (Slice { number: 1, next_row: 0 }, Budget::new(8 << 20, 1 << 20));
    let mut out = budget.writer().await;
    let prefix = prefix::<Log>(&cut.token);
    let scanning = scan(&mut prefeed, &prefix, FeedId(0), None, &mut slice, &mut out);
    tokio::time::timeout(TIMEOUT, scanning).await.expect("it does not wait for the application").unwrap();
    assert!(prefeed.is_waited_for().await.unwrap());
    prefeed.close().await.unwrap();
    crate::servers::port::wait_for("the application goes on", TIMEOUT, || (!application.is_running()).then_some(()));
    let rows = crate::contract_source::scan_all(&mut world.established().await, FeedId(1), 1 << 20, false).await;
    assert_eq!((rows.len(), rows[0].field("after")["more"].as_i64()), (30_000, Some(7)));
}
