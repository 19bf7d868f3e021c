//! Remedies that need a restart of the server: each printed statement is run, the server is restarted, and then a start succeeds.

use super::remedies::statements;
use super::world::{Reader, TIMEOUT, World, feed};
use crate::servers::port::wait_for;
use crate::servers::postgres::{Options, Postgres};
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::{Feed, PrefeedKind};
use std::time::Duration;

type Settings<'s> = &'s [(&'static str, &'static str)];

/// A server with these settings, and a world for it.
fn world(settings: Settings<'_>, prefeed: PrefeedKind) -> (Postgres, World) {
    let server = Postgres::start(&Options { settings: settings.to_vec(), ..Options::default() });
    let database = server.create_database("source");
    server.psql(&database, "CREATE TABLE t (id int PRIMARY KEY)");
    let mut world = World::within(Postgres::shared(), database, vec![Feed { prefeed, ..feed("t", &["id"]) }]);
    world.options.port = server.port();
    (server, world)
}

/// Runs the printed statements; returns the codes of the errors.
async fn follow(server: &mut Postgres, world: &World) -> Vec<Code> {
    let errors = world.verify().await.unwrap_err();
    for error in &errors {
        let statements = statements(&error.to_string());
        assert!(error.to_string().contains(" and restart the server") && !statements.is_empty(), "{error}");
        for statement in statements {
            server.psql("postgres", &statement);
        }
    }
    server.kill();
    server.restart();
    errors.iter().map(Classify::code).collect()
}

#[tokio::test]
async fn statements_for_server_settings_let_a_start_succeed() {
    const SLOTS: &[Code] = &[Code::PostgresSlotsExhausted];
    let cases: [(Settings<'_>, PrefeedKind, &[Code]); 5] = [
        (&[("wal_level", "replica")], PrefeedKind::None, &[Code::PostgresUnsuitable]),
        (
            &[("wal_level", "minimal"), ("max_wal_senders", "0")],
            PrefeedKind::Snapshot,
            &[Code::PostgresUnsuitable, Code::PostgresSlotsExhausted],
        ),
        (&[("max_replication_slots", "1")], PrefeedKind::Snapshot, SLOTS),
        (&[("max_replication_slots", "0")], PrefeedKind::None, SLOTS),
        (&[("max_wal_senders", "1")], PrefeedKind::Snapshot, SLOTS),
    ];
    for (settings, prefeed, expected) in cases {
        let (mut server, world) = world(settings, prefeed);
        assert_eq!(follow(&mut server, &world).await, expected, "{settings:?}");
        assert_starts(&server, &world).await;
    }
}

#[tokio::test]
async fn the_suggested_number_of_slots_includes_those_of_others() {
    let (mut server, world) = world(&[("max_replication_slots", "2")], PrefeedKind::None);
    server.psql(&world.database, "SELECT pg_create_physical_replication_slot('a'), pg_create_physical_replication_slot('b')");
    assert_eq!(follow(&mut server, &world).await, [Code::PostgresSlotsExhausted]);
    assert_starts(&server, &world).await;
}

/// Asserts that a start succeeds, that a snapshot's slot is available if the feed needs one, and that a later row arrives.
async fn assert_starts(server: &Postgres, world: &World) {
    let (identity, token) = world.establish().await;
    // The walsender that created the slot takes a moment to end.
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    let log = loop {
        match world.connect(&identity, &world.resume(&token, &token)).await {
            Err(error) if error.fault() == Fault::Transient && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            connected => break connected.unwrap(),
        }
    };
    let mut reader = Reader::of(log, &token, 1 << 20);
    if world.feeds[0].prefeed != PrefeedKind::None {
        // A snapshot needs one more slot and one more walsender.
        server.psql(&world.database, "SELECT pg_create_logical_replication_slot('one_more', 'pgoutput', true)");
    }
    server.psql(&world.database, "INSERT INTO t VALUES (1)");
    assert_eq!(reader.take(1).await[0].key, "{\"id\":1}");
    drop(reader);
    wait_for("the log's reader is gone", TIMEOUT, || {
        (server.psql("postgres", "SELECT count(*) FROM pg_stat_replication") == "0").then_some(())
    });
}
