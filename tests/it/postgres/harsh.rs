//! Servers that keep little log or have short timeouts, and publications and tables that disappear.

use super::world::{Reader, TIMEOUT, World, feed, shorts};
use feedline::checkpoint::FeedState;
use feedline::fault::{Classify, Code, Fault};
use feedline::source::postgres::Error;
use feedline::source::{Probe, Resume, SourceConnector};
use std::process::Command;
use std::time::{Duration, Instant};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text)";

/// A world with a server of its own.
fn world(settings: &[(&'static str, &'static str)]) -> World {
    World::alone(settings, TABLE, vec![feed("t", &["id"])])
}

fn walsender(world: &World) -> String {
    world.sql(&format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}'", world.options.slot))
}

#[tokio::test]
async fn a_slot_whose_log_was_dropped_is_a_gap() {
    let world = world(&[("max_slot_wal_keep_size", "16MB"), ("min_wal_size", "32MB"), ("max_wal_size", "64MB")]);
    let (identity, token) = world.establish().await;
    let mut probe = world.connector().probe().await.unwrap();
    let at_first = probe.head(&token).await.unwrap().headroom_ratio.unwrap();
    for _ in 0..6 {
        world.sql("INSERT INTO t SELECT coalesce(max(id), 0) + 1, 'x' FROM t; SELECT pg_switch_wal(); CHECKPOINT");
    }
    crate::servers::port::wait_for("the slot is lost", TIMEOUT, || {
        world.sql("CHECKPOINT");
        let status = world.sql(&format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{}'", world.options.slot));
        (status == "lost").then_some(())
    });
    assert!(0.0 < at_first && probe.head(&token).await.unwrap().headroom_ratio == Some(0.0));
    let error = world.connector().connect(&identity, &world.resume(&token, &token)).await.err().unwrap();
    assert_eq!((error.code(), error.fault()), (Code::SourceLogLost, Fault::Gap), "{error}");
    assert!(error.to_string().contains("max_slot_wal_keep_size"), "{error}");
}

#[tokio::test]
async fn a_slot_that_was_idle_for_too_long_is_a_gap() {
    let world = World::of_version("18", &[("idle_replication_slot_timeout", "1s")], TABLE, vec![feed("t", &["id"])]);
    let (identity, token) = world.establish().await;
    crate::servers::port::wait_for("the slot is invalidated", TIMEOUT, || {
        world.sql("CHECKPOINT");
        let reason = world.sql(&format!("SELECT invalidation_reason FROM pg_replication_slots WHERE slot_name = '{}'", world.options.slot));
        (reason == "idle_timeout").then_some(())
    });
    let error = world.connector().connect(&identity, &world.resume(&token, &token)).await.err().unwrap();
    assert_eq!((error.code(), error.fault()), (Code::SourceLogLost, Fault::Gap), "{error}");
    assert!(error.to_string().contains("idle_replication_slot_timeout"), "{error}");
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_closed_and_an_idle_one_is_not() {
    let world = world(&[("wal_sender_timeout", "2s")]);
    let mut reader = world.begin().await;
    let begun = Instant::now();
    // Longer than the server's timeout for a silent receiver, and than our timeout for a silent server.
    while begun.elapsed() < Duration::from_secs(6) {
        let (filled, token) = (tokio::time::timeout(Duration::from_secs(1), reader.batch(None)).await, reader.log.token());
        assert!(filled.is_err() || filled.unwrap().unwrap().is_empty());
        reader.log.acknowledge(Some(&token)).await.unwrap();
    }
    world.sql("INSERT INTO t VALUES (1, 'a')");
    assert_eq!(shorts(&reader.take(1).await), [r#"insert {"id":1} 0!"#]);
    let pid = walsender(&world);
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-STOP");
    let begun = Instant::now();
    let (sent, failed) = reader.failure().await;
    assert!(sent.is_empty(), "{sent:?}");
    signal("-CONT");
    assert!(matches!(failed, Error::Silent { .. }) && failed.fault() == Fault::Transient, "{failed}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_missing_publication_is_an_error_and_nothing_is_skipped() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let mut reader = world.begin().await;
    world.sql(&format!("DROP PUBLICATION {}; INSERT INTO t VALUES (1, 'a')", world.options.publication));
    let (sent, failed) = reader.failure().await;
    assert!(sent.is_empty(), "{sent:?}");
    assert_eq!((failed.code(), failed.fault()), (Code::PostgresPublication, Fault::Fatal), "{failed}");
}

#[tokio::test]
async fn a_table_that_was_dropped_and_created_again_is_a_gap() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let (identity, start) = world.establish().await;
    let log = world.connect(&identity, &world.resume(&start, &start)).await.unwrap();
    let mut reader = Reader::of(log, &start, 1 << 20);
    world.sql("INSERT INTO t VALUES (1, 'a')");
    assert_eq!(shorts(&reader.take(1).await), [r#"insert {"id":1} 0!"#]);
    let token = reader.log.token();
    let seen = Resume { layouts: vec![Some(reader.log.table_changes().remove(0).layout)], ..world.resume(&token, &start) };
    drop(reader);
    world.sql(&format!("DROP TABLE t; {TABLE}; INSERT INTO t VALUES (2, 'nowhere in the log')"));
    let error = world.connect(&identity, &seen).await.err().unwrap();
    assert_eq!((error.code(), error.fault()), (Code::SourceLogLost, Fault::Gap), "{error}");
    assert!(error.to_string().contains(r#""public"."t""#), "{error}");
    // The position in the log makes no difference: perhaps nothing was written since the table was first seen.
    let quiet = Resume { feeds: vec![FeedState::Live { start: token.clone() }], ..seen };
    assert_eq!(world.connect(&identity, &quiet).await.err().unwrap().code(), Code::SourceLogLost);
    // A new feed begins where the log continues.
    assert!(world.connect(&identity, &world.resume(&token, &token)).await.is_ok());
}
