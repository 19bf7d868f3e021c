//! Resuming the log at a token: the same bytes are repeated.

use super::world::{Reader, Sent, TIMEOUT, World, feed, shorts};
use crate::children::ended;
use feedline::checkpoint::ResumeToken;
use feedline::source::{Probe, SourceConnector};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text)";

/// Reads `count` records in small batches; returns them, and the token after each batch with the number of records before it.
async fn read_in_batches(reader: &mut Reader, count: usize) -> (Vec<Sent>, Vec<(usize, ResumeToken)>) {
    let (mut sent, mut tokens) = (Vec::new(), vec![(0, reader.log.token())]);
    let deadline = Instant::now() + 4 * TIMEOUT;
    while sent.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} records came", sent.len());
        sent.extend(reader.batch(None).await.unwrap());
        tokens.push((sent.len(), reader.log.token()));
    }
    (sent, tokens)
}

#[tokio::test]
async fn resuming_at_any_batch_end_repeats_the_same_bytes() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let (identity, token) = world.establish().await;
    world.sql(
        "INSERT INTO t SELECT g, repeat('x', 300) FROM generate_series(1, 40) g; \
         BEGIN; UPDATE t SET id = id + 100 WHERE id <= 12; DELETE FROM t WHERE id BETWEEN 20 AND 30; COMMIT; \
         INSERT INTO t VALUES (200, 'last')",
    );
    let count = 40 + 24 + 11 + 1;
    let resume = world.resume(&token, &token);
    // A batch holds two or three records. Batches end everywhere, also between the delete and the insert of a changed key.
    let mut reader = Reader::of(world.connect(&identity, &resume).await.unwrap(), &token, 2048);
    let (all, tokens) = read_in_batches(&mut reader, count).await;
    assert_eq!(all.len(), count);
    assert!(all.iter().map(|sent| &sent.id).is_sorted());
    let mut ids: Vec<_> = all.iter().map(|sent| sent.id.clone()).collect();
    ids.dedup();
    assert_eq!(ids.len(), count);
    assert!(10 < tokens.len(), "{}", tokens.len());
    assert!(tokens.iter().any(|(_, token)| token.0.matches(':').count() == 4), "no token is inside a transaction");
    drop(reader);
    for (before, from) in tokens {
        let log = world.connect(&identity, &world.resume(&from, &token)).await.unwrap();
        let mut reader = Reader::of(log, &from, 1 << 20);
        let again = if before == count { Vec::new() } else { reader.take(count - before).await };
        assert_eq!(again, all[before..], "from {} at {before}", from.0);
    }
}

#[tokio::test]
async fn rows_from_before_a_definition_change_are_read_as_they_were() {
    let world = World::new("CREATE TABLE t (id int PRIMARY KEY, note text, number int)", vec![feed("t", &["id"])]);
    let (identity, start) = world.establish().await;
    world.sql("INSERT INTO t VALUES (1, 'a', 7); ALTER TABLE t DROP COLUMN note; INSERT INTO t VALUES (2, 8)");
    world.sql("ALTER TABLE t ADD COLUMN more text; INSERT INTO t VALUES (3, 9, 'b'); ALTER TABLE t ALTER number TYPE text; INSERT INTO t VALUES (4, '10', 'c')");
    let log = world.connect(&identity, &world.resume(&start, &start)).await.unwrap();
    let sent = Reader::of(log, &start, 1 << 20).take(4).await;
    let after: Vec<_> = sent.iter().map(|sent| sent.event()["after"].clone()).collect();
    let expected = json!([
        {"id": 1, "note": "a", "number": 7},
        {"id": 2, "number": 8},
        {"id": 3, "number": 9, "more": "b"},
        {"id": 4, "number": "10", "more": "c"},
    ]);
    assert_eq!(serde_json::Value::Array(after), expected);
}

#[tokio::test]
async fn the_slot_advances_only_to_durable_positions() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let mut reader = world.begin().await;
    let slot = || world.sql(&format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'", world.options.slot));
    let at_first = slot();
    world.sql("INSERT INTO t VALUES (1, 'a')");
    reader.take(1).await;
    let first = reader.token.clone();
    reader.log.acknowledge(Some(&first)).await.unwrap();
    world.sql("INSERT INTO t VALUES (2, 'b')");
    reader.take(1).await;
    assert_eq!(slot(), at_first);
    let durable = reader.log.token();
    reader.log.acknowledge(Some(&durable)).await.unwrap();
    let expected = durable.0.split([':', '@']).nth(1).unwrap().to_owned();
    crate::servers::port::wait_for("the slot follows", TIMEOUT, || (slot() == expected).then_some(()));
}

#[tokio::test]
async fn an_idle_database_on_a_busy_server_does_not_retain_log() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let other = World::new(TABLE, Vec::new());
    let mut reader = world.begin().await;
    let mut probe = world.connector().probe().await.unwrap();
    other.sql("INSERT INTO t SELECT g, 'busy' FROM generate_series(1, 5000) g; SELECT pg_switch_wal()");
    let head = world.sql("SELECT pg_current_wal_lsn()");
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        assert!(reader.batch(None).await.unwrap().is_empty());
        let durable = reader.log.token();
        reader.log.acknowledge(Some(&durable)).await.unwrap();
        let follows = world.sql(&format!(
            "SELECT confirmed_flush_lsn >= '{head}'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
            world.options.slot
        ));
        if follows == "t" {
            break;
        }
        assert!(Instant::now() < deadline, "the slot does not follow the head");
    }
    let head = probe.head(&reader.log.token()).await.unwrap();
    assert!(head.clock_offset_seconds.unwrap().abs() < 5.0, "{head:?}");
    assert_eq!(head.headroom_ratio, Some(1.0));
}

#[tokio::test]
async fn a_change_that_is_not_confirmed_is_lag() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let mut reader = world.begin().await;
    let mut probe = world.connector().probe().await.unwrap();
    let start = reader.token.clone();
    world.sql("INSERT INTO t VALUES (1, 'a')");
    let head = probe.head(&start).await.unwrap();
    assert!(!head.caught_up && head.lag_bytes.unwrap() > 0 && head.retained_bytes.unwrap() > 0, "{head:?}");
    reader.take(1).await;
    assert!(!probe.head(&start).await.unwrap().caught_up);
    let deadline = Instant::now() + TIMEOUT;
    while !probe.head(&reader.log.token()).await.unwrap().caught_up {
        assert!(Instant::now() < deadline);
        reader.batch(None).await.unwrap();
    }
}

#[tokio::test]
async fn the_limit_is_decided_where_a_transaction_begins() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let mut reader = world.begin().await;
    world.sql("INSERT INTO t VALUES (1, 'a')");
    let until = ResumeToken(format!("1:{}", world.sql("SELECT pg_current_wal_lsn()")).into());
    world.sql("INSERT INTO t VALUES (2, 'b')");
    let sent = reader.read_to(&until).await;
    assert_eq!(shorts(&sent), [r#"insert {"id":1} 0!"#]);
    assert!(reader.batch(Some(&until)).await.unwrap().is_empty());
    assert_eq!(shorts(&reader.take(1).await), [r#"insert {"id":2} 0!"#]);
}

#[tokio::test]
async fn the_limit_is_reached_even_if_only_log_of_other_databases_follows() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let other = World::new(TABLE, Vec::new());
    let mut reader = world.begin().await;
    for _ in 0..5 {
        // A position at which no transaction ends. The server passes it, and reports a later position.
        let position = world.sql("BEGIN; INSERT INTO t VALUES (1, 'a'); SELECT pg_current_wal_insert_lsn(); ROLLBACK");
        let until = ResumeToken(format!("1:{position}").into());
        other.sql("INSERT INTO t SELECT g, 'busy' FROM generate_series(1, 50) g; TRUNCATE t");
        assert!(reader.read_to(&until).await.is_empty());
        assert_eq!(reader.log.token().0.split('@').next(), Some(&*until.0));
    }
}

#[tokio::test]
async fn a_giant_transaction_is_read_with_a_small_buffer() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let mut reader = world.begin().await;
    reader.budget = feedline::batch::Budget::new(1 << 20, 64 << 10);
    world.sql("BEGIN; INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 50000) g; INSERT INTO t SELECT 0, repeat('y', 3000000); COMMIT");
    let sent = reader.take(50_001).await;
    assert_eq!(sent[50_000].event()["source"]["index"], 50_000);
    assert_eq!(sent.iter().filter(|sent| sent.event()["source"]["last"] == true).count(), 1);
}

#[tokio::test]
async fn a_fill_that_is_cancelled_anywhere_loses_and_repeats_nothing() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let mut reader = world.begin().await;
    reader.budget = feedline::batch::Budget::new(256 << 20, 128 << 20);
    // Each transaction has a new definition of the table, so that a cancellation also hits the query for its types.
    let writer = world.server.psql_command(&world.database);
    let mut writer = { writer }
        .args([
            "-c",
            "DO $$ BEGIN FOR i IN 1..60 LOOP EXECUTE format('CREATE TYPE e%s AS ENUM (''a''); ALTER TABLE t ADD c%s e%s', i, i, i); \
               INSERT INTO t (id, note) SELECT g, repeat('x', 500) FROM generate_series(i * 50, i * 50 + 49) g; COMMIT; END LOOP; END $$",
        ])
        .spawn()
        .unwrap();
    let mut out = reader.budget.writer().await;
    let (mut cancelled, deadline) = (0, Instant::now() + TIMEOUT);
    while out.records().len() < 3000 {
        assert!(Instant::now() < deadline, "{} records", out.records().len());
        match tokio::time::timeout(Duration::from_micros(fastrand::u64(0..3000)), reader.log.fill(&mut out, None)).await {
            Ok(filled) => drop(filled.unwrap()),
            Err(_) => cancelled += 1,
        }
    }
    assert!(ended(&mut writer).success());
    let ids: Vec<_> = out.records().map(|record| record.id.to_vec()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(ids.len(), 3000);
    assert!(0 < cancelled);
}
