//! Opening and holding a snapshot: applications do not wait for us for long, none is cancelled because of us, and what blocks us is named.

use super::world::{World, feed};
use crate::contract_source::scan_all;
use crate::session::scan;
use feedline::batch::Budget;
use feedline::event::FeedId;
use feedline::fault::{Classify, Fault};
use feedline::source::postgres::Rows;
use feedline::source::{Opened, Prefeed, Probe as _, Slice, SourceConnector, ToRead};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t SELECT g, 'before' FROM generate_series(1, 20000) g; \
                      CREATE TABLE u (id int PRIMARY KEY)";

fn world() -> World {
    World::new(TABLES, vec![feed("t", &["id"])])
}

/// Runs statements of an application in a session of its own.
pub fn application(world: &World, statements: &str) -> Child {
    let mut psql = world.server.psql_command(&world.database);
    psql.env("PGAPPNAME", "billing").args(["-v", "ON_ERROR_STOP=1", "-c", statements]);
    psql.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn succeed(application: Child) {
    let ended = application.wait_with_output().unwrap();
    assert!(ended.status.success(), "the application failed: {}", String::from_utf8_lossy(&ended.stderr));
}

fn all() -> [ToRead; 1] {
    [ToRead { feed: FeedId(0), after: None }]
}

async fn blocked(rows: &mut Rows, within: Duration) -> String {
    match rows.open(&all(), within).await.unwrap() {
        Opened::Blocked { by } => by,
        Opened::Cut(cut) => panic!("nothing blocked it: {cut:?}"),
    }
}

pub async fn opened(rows: &mut Rows) {
    assert!(matches!(rows.open(&all(), Duration::from_secs(20)).await.unwrap(), Opened::Cut(_)));
}

/// Waits until somebody waits for the snapshot.
pub async fn waited_for(rows: &mut Rows) {
    let begun = Instant::now();
    while !rows.is_waited_for().await.unwrap() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody waits for the snapshot");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn eventually(world: &World, condition: &str) {
    let begun = Instant::now();
    while world.sql(condition) != "t" {
        assert!(begun.elapsed() < Duration::from_secs(20), "{condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_open_transaction_is_named_and_waited_for_no_longer_than_allowed() {
    let world = world();
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    let mut writer = application(&world, "BEGIN; INSERT INTO u VALUES (1); SELECT pg_sleep(600)");
    eventually(&world, "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'billing' AND wait_event = 'PgSleep' AND datname = current_database()").await;
    let begun = Instant::now();
    let by = blocked(&mut rows, Duration::from_secs(1)).await;
    assert!(by.contains("\"billing\"") && by.contains("for ") && by.contains("process "), "{by}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let ours = "SELECT count(*) = 0 FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessShareLock' AND pid <> pg_backend_pid()";
    eventually(&world, ours).await;
    writer.kill().unwrap();
    writer.wait().unwrap();
    world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'billing' AND datname = current_database()");
    opened(&mut rows).await;
    rows.close().await.unwrap();
}

#[tokio::test]
async fn a_prepared_transaction_is_named() {
    let world = World::alone(&[("max_prepared_transactions", "4")], TABLES, vec![feed("t", &["id"])]);
    world.establish().await;
    world.sql("BEGIN; INSERT INTO u VALUES (1); PREPARE TRANSACTION 'an orphan'");
    let mut rows = world.connector().prefeed().await.unwrap();
    let by = blocked(&mut rows, Duration::from_secs(1)).await;
    assert!(by.contains("\"an orphan\""), "{by}");
    world.sql("COMMIT PREPARED 'an orphan'");
    opened(&mut rows).await;
}

#[tokio::test]
async fn an_application_that_waits_for_a_table_ends_the_slice() {
    let world = world();
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    for statement in
        ["ALTER TABLE t ALTER COLUMN note TYPE varchar(100)", "ALTER TABLE t ADD COLUMN extra int", "TRUNCATE t", "DROP TABLE t"]
    {
        opened(&mut rows).await;
        assert!(!rows.is_waited_for().await.unwrap());
        let begun = Instant::now();
        let waiting = application(&world, statement);
        waited_for(&mut rows).await;
        rows.close().await.unwrap();
        succeed(waiting);
        // The limit is generous: on a busy machine the wait also depends on other processes.
        assert!(begun.elapsed() < Duration::from_secs(10), "{statement} waited {:?}", begun.elapsed());
    }
    let dropped = rows.open(&all(), Duration::from_secs(5)).await.unwrap_err();
    assert!(dropped.to_string().contains("was dropped before all its rows were read"), "{dropped}");
}

#[tokio::test]
async fn an_application_that_would_be_the_victim_of_a_deadlock_continues() {
    let world = world();
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    for round in 0..3 {
        // It has an open transaction for which our snapshot waits, and then needs a lock on a table that we have locked.
        let statements =
            format!("BEGIN; INSERT INTO u VALUES ({round}); SELECT pg_sleep(0.7); ALTER TABLE t ADD COLUMN c{round} int; COMMIT");
        let writer = application(&world, &statements);
        eventually(&world, "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'billing' AND wait_event = 'PgSleep' AND datname = current_database()").await;
        let by = blocked(&mut rows, Duration::from_secs(10)).await;
        assert!(by.contains("our table lock"), "{by}");
        succeed(writer);
    }
    opened(&mut rows).await;
    rows.close().await.unwrap();
}

#[tokio::test]
async fn a_change_that_is_in_the_log_before_it_is_visible_is_not_lost() {
    let world = World::alone(&[], TABLES, vec![feed("t", &["id"])]);
    let mut reader = world.begin().await;
    world.sql("ALTER SYSTEM SET synchronous_standby_names = 'a_standby_that_is_absent'");
    world.sql("SELECT pg_reload_conf()");
    eventually(&world, "SELECT current_setting('synchronous_standby_names') <> ''").await;
    let writer = application(&world, "UPDATE t SET note = 'after' WHERE id = 7");
    // The change is in the log, and no snapshot shows it.
    let update = reader.take(1).await.remove(0);
    assert_eq!(world.sql("SELECT note FROM t WHERE id = 7"), "before");
    let mut rows = world.connector().prefeed().await.unwrap();
    let by = blocked(&mut rows, Duration::from_secs(1)).await;
    assert!(by.contains("billing"), "{by}");
    world.sql("ALTER SYSTEM RESET synchronous_standby_names");
    world.sql("SELECT pg_reload_conf()");
    succeed(writer);
    drop(rows);
    let read = scan_all(&mut world.connector(), FeedId(0), 1 << 20, false).await;
    let row = read.iter().find(|row| row.key == "{\"id\":7}").unwrap();
    assert!(row.body.as_deref().unwrap().contains("after"), "{row:?}");
    assert!(update.id < row.id, "{} {}", update.id, row.id);
}

#[tokio::test]
async fn a_session_that_is_terminated_is_a_transient_fault() {
    for session in [
        "backend_type = 'client backend'",
        "backend_type = 'walsender' AND pid NOT IN (SELECT active_pid FROM pg_replication_slots WHERE active)",
    ] {
        let world = world();
        world.establish().await;
        let mut rows = world.connector().prefeed().await.unwrap();
        opened(&mut rows).await;
        let budget = Budget::new(1 << 20, 1 << 16);
        let mut slice = Slice { number: 1, next_row: 0 };
        let scanned = scan(&mut rows, "0", FeedId(0), None, &mut slice, &mut budget.writer().await).await.unwrap();
        assert!(!scanned.done && 0 < scanned.rows);
        let ours = format!("application_name = 'feedline/shop' AND datname = current_database() AND {session}");
        world.sql(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"));
        eventually(&world, &format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE {ours}")).await;
        let mut after = scanned.after;
        let failed = loop {
            match scan(&mut rows, "0", FeedId(0), after.as_ref(), &mut slice, &mut budget.writer().await).await {
                Err(error) => break Some(error),
                Ok(scanned) if scanned.done => break rows.close().await.err(),
                Ok(scanned) => after = scanned.after,
            }
        };
        let failed = failed.unwrap_or_else(|| panic!("{session}: no error"));
        assert_eq!(failed.fault(), Fault::Transient, "{failed}");
        let again = scan_all(&mut world.connector(), FeedId(0), 1 << 20, false).await;
        assert_eq!(again.len(), 20_000);
    }
}

#[tokio::test]
async fn the_age_of_what_a_snapshot_holds_back_is_measured() {
    let world = world();
    let (_, token) = world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    let mut probe = world.connector().probe().await.unwrap();
    opened(&mut rows).await;
    for id in 0..50 {
        world.sql(&format!("INSERT INTO u VALUES ({id})"));
    }
    let age = probe.head(&token).await.unwrap().xmin_age.unwrap();
    assert!(50 <= age, "{age}");
    rows.close().await.unwrap();
}
