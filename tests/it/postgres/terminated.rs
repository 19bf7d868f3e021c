//! Our sessions may end at any moment, and servers may be silent for long: the pipeline continues.

use super::world::{Reader, TIMEOUT, World, feed, shorts};
use crate::contract_source::scan_all;
use crate::servers::port::wait_for;
use crate::session::scan;
use feedline::batch::Budget;
use feedline::event::FeedId;
use feedline::fault::{Classify, Fault};
use feedline::source::postgres::Error;
use feedline::source::{Opened, Prefeed, Probe as _, Slice, SourceConnector, ToRead};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const ROWS: u64 = 20_000;
const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g";

fn world() -> World {
    World::new(TABLE, vec![feed("t", &["id"])])
}

/// Terminates one of our sessions that meets this condition; returns how many were terminated.
fn terminate(world: &World, condition: &str) -> usize {
    let ours = "application_name = 'feedline/shop' AND datname = current_database()";
    let ended = world.sql(&format!(
        "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE {ours} AND {condition} ORDER BY random() LIMIT 1) one"
    ));
    ended.parse().unwrap()
}

/// Reads all rows under one snapshot, until an error; returns their number.
async fn read_all(world: &World) -> Result<u64, Error> {
    let mut rows = world.connector().prefeed().await?;
    let opened = rows.open(&[ToRead { feed: FeedId(0), after: None }], TIMEOUT).await?;
    assert!(matches!(opened, Opened::Cut(_)), "{opened:?}");
    let budget = Budget::new(1 << 20, 64 << 10);
    let (mut slice, mut after, mut read) = (Slice { number: 1, next_row: 0 }, None, 0);
    loop {
        let mut out = budget.writer().await;
        let scanned = scan(&mut rows, "0", FeedId(0), after.as_ref(), &mut slice, &mut out).await?;
        (after, read) = (scanned.after.or(after), read + scanned.rows);
        if scanned.done {
            rows.close().await?;
            return Ok(read);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_at_any_moment_is_a_transient_fault() {
    let world = world();
    world.establish().await;
    let (mut ended, mut failed) = (0, 0);
    for round in 0..60_u64 {
        let wait = Duration::from_millis(round * 3 % 90);
        let (read, terminated) = std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                // At another moment of reading each time.
                std::thread::sleep(wait);
                terminate(&world, "true")
            });
            let read = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async { read_all(&world).await.map_err(Box::new) })
            });
            (read, killer.join().unwrap())
        });
        ended += terminated;
        match read {
            Ok(read) => assert_eq!(read, ROWS),
            Err(error) => {
                failed += 1;
                assert_eq!(error.fault(), Fault::Transient, "{error}");
            }
        }
    }
    assert!(0 < failed && failed <= ended, "{failed} of {ended}");
    assert_eq!(read_all(&world).await.unwrap(), ROWS);
}

#[tokio::test]
async fn a_table_whose_lock_was_lost_is_not_read_as_empty() {
    let world = world();
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    assert!(matches!(rows.open(&[ToRead { feed: FeedId(0), after: None }], TIMEOUT).await.unwrap(), Opened::Cut(_)));
    assert_eq!(terminate(&world, "backend_type = 'walsender'"), 1);
    world.sql("TRUNCATE t");
    let budget = Budget::new(1 << 20, 64 << 10);
    let mut out = budget.writer().await;
    let error = scan(&mut rows, "0", FeedId(0), None, &mut Slice { number: 1, next_row: 0 }, &mut out).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Transient, "{error}");
    assert!(out.is_empty());
}

#[tokio::test]
async fn a_probe_makes_a_new_connection() {
    let world = world();
    let (_, token) = world.establish().await;
    let mut probe = world.connector().probe().await.unwrap();
    for _ in 0..2 {
        probe.head(&token).await.unwrap();
        assert_eq!(terminate(&world, "backend_type = 'client backend'"), 1);
        let lost = probe.head(&token).await.unwrap_err();
        assert_eq!(lost.fault(), Fault::Transient, "{lost}");
    }
    // A probe that is cancelled does not use the answer of the earlier query.
    let cut_off = tokio::time::timeout(Duration::ZERO, probe.head(&token)).await;
    assert!(cut_off.is_err());
    let head = probe.head(&token).await.unwrap();
    assert!(head.lag_bytes.is_some() && head.clock_offset_seconds.is_some(), "{head:?}");
}

#[tokio::test]
async fn a_short_wal_sender_timeout_does_not_end_our_connection() {
    let world = World::alone(&[("wal_sender_timeout", "1s")], TABLE, vec![feed("t", &["id"])]);
    let mut reader = world.begin().await;
    let sender = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'";
    let before = world.sql(sender);
    // While a snapshot is opened and read, nobody reads the log or sends keep-alives.
    assert_eq!(scan_all(&mut world.connector(), FeedId(0), 64 << 10, false).await.len() as u64, ROWS);
    // Four times as long as the timeout.
    sleep(Duration::from_secs(4)).await;
    assert_eq!(world.sql(sender), before);
    world.sql("INSERT INTO t VALUES (0, 'live')");
    assert_eq!(shorts(&reader.take(1).await), [r#"insert {"id":0} 0!"#]);
}

/// Up to version 15, a walsender does not answer while it skips the rows of a rewritten relation.
#[tokio::test]
async fn a_server_that_is_busy_decoding_is_waited_for() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE n (id int); INSERT INTO n VALUES (1); \
                  CREATE MATERIALIZED VIEW m AS SELECT g AS a, g AS b FROM generate_series(1, 4000000) g, n";
    let world = World::of_version("14", &[("wal_sender_timeout", "1s"), ("max_wal_size", "4GB")], tables, vec![feed("t", &["id"])]);
    let mut reader = world.begin().await;
    world.sql("REFRESH MATERIALIZED VIEW m");
    world.sql("INSERT INTO t VALUES (1, 'after')");
    let deadline = Instant::now() + Duration::from_mins(10);
    let mut sent = Vec::new();
    while sent.is_empty() {
        assert!(Instant::now() < deadline, "no record arrived");
        if let Ok(batch) = tokio::time::timeout(Duration::from_secs(1), reader.batch(None)).await {
            sent = batch.unwrap();
        } else {
            let token = reader.log.token();
            reader.log.acknowledge(Some(&token)).await.unwrap();
        }
    }
    assert_eq!(shorts(&sent), [r#"insert {"id":1} 0!"#]);
}

#[tokio::test]
async fn a_silent_connection_is_still_closed() {
    let world = World::alone(&[("wal_sender_timeout", "2s")], TABLE, vec![feed("t", &["id"])]);
    let (identity, token) = world.establish().await;
    let log = world.connect(&identity, &world.resume(&token, &token)).await.unwrap();
    let mut reader = Reader::of(log, &token, 1 << 20);
    let pid = wait_for("a walsender", TIMEOUT, || {
        let pid = world.sql("SELECT active_pid FROM pg_replication_slots WHERE active");
        (!pid.is_empty()).then_some(pid)
    });
    // It is stopped while it is idle, so that it waits for the network.
    let idle = format!("SELECT wait_event_type IN ('Activity', 'Client') FROM pg_stat_activity WHERE pid = {pid}");
    wait_for("it is idle", TIMEOUT, || (world.sql(&idle) == "t").then_some(()));
    let signal = |name: &str| assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-STOP");
    let (sent, failed) = reader.failure().await;
    assert!(sent.is_empty(), "{sent:?}");
    signal("-CONT");
    assert!(matches!(failed, Error::Silent { .. }) && failed.fault() == Fault::Transient, "{failed}");
}
