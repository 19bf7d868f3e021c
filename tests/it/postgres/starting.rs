//! A start while transactions are open: it names them at once and waits for them. A start that is given up leaves nothing behind.

use super::world::{TIMEOUT, World, feed};
use crate::children::ended;
use crate::servers::port::wait_for;
use feedline::fault::{Classify, Code, Fault};
use feedline::net::secret::Secret;
use feedline::preflight::Findings;
use feedline::source::SourceConnector;
use feedline::source::postgres::{Connector, Error};
use std::process::{Child, Stdio};

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE u (id int PRIMARY KEY)";
const PREPARING: (&str, &str) = ("max_prepared_transactions", "4");

fn world(version: Option<&'static str>) -> World {
    let feeds = vec![feed("t", &["id"])];
    match version {
        Some(version) => World::of_version(version, &[PREPARING], TABLES, feeds),
        None => World::alone(&[PREPARING], TABLES, feeds),
    }
}

/// An open transaction of an application. It may be in another database than the pipeline's.
struct Open(Child);

impl Open {
    fn begin(world: &World, database: &str) -> Self {
        Self::run(world, database, "BEGIN; SELECT pg_current_xact_id(); SELECT pg_sleep(600)")
    }

    /// Runs statements, one of which sleeps.
    fn run(world: &World, database: &str, sql: &str) -> Self {
        let mut psql = world.server.psql_command(database);
        psql.env("PGAPPNAME", "billing").args(["-c", sql]);
        let open = Self(psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let begun = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'billing' AND wait_event = 'PgSleep'";
        wait_for("the transaction is open", TIMEOUT, || (world.sql(begun) == "1").then_some(()));
        open
    }

    fn end(mut self, world: &World) {
        world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'billing'");
        ended(&mut self.0);
    }
}

fn held_up<T: std::fmt::Debug>(result: Result<T, Error>, words: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::PostgresHeldUp, Fault::Transient), "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in {error}");
    }
}

/// Does what each attempt of a start does, up to the slot.
async fn attempt(connector: &mut Connector) -> Result<feedline::checkpoint::ResumeToken, Error> {
    connector.catalogue().await?;
    let Findings { refusals, warnings: warned, .. } = connector.preflight().await?;
    assert!(refusals.is_empty(), "{refusals:#?}");
    assert!(warned.iter().all(|warning| warning.code != Code::SourceBusy), "{warned:#?}");
    connector.establish().await
}

#[tokio::test]
async fn a_start_names_the_transactions_that_it_waits_for_and_continues() {
    let world = world(None);
    let mut connector = world.connector();
    let open = Open::begin(&world, "postgres");
    held_up(attempt(&mut connector).await, &["\"billing\"", "process "]);
    world.sql("BEGIN; INSERT INTO u VALUES (1); PREPARE TRANSACTION 'an orphan'");
    open.end(&world);
    // The attempt goes on. A transaction that began after it may delay it again.
    let deadline = tokio::time::Instant::now() + 4 * TIMEOUT;
    loop {
        match attempt(&mut connector).await {
            Err(error) if error.to_string().contains("\"billing\"") && tokio::time::Instant::now() < deadline => {}
            other => {
                held_up(other, &["\"an orphan\""]);
                break;
            }
        }
    }
    world.sql("ROLLBACK PREPARED 'an orphan'");
    let token = attempt(&mut connector).await.unwrap();
    let slots = "SELECT string_agg(slot_name, ',') FROM pg_replication_slots";
    assert_eq!(world.sql(slots), world.options.slot);
    let identity = connector.identity().await.unwrap();
    world.connect(&identity, &world.resume(&token, &token)).await.unwrap();
}

#[tokio::test]
async fn a_start_names_who_has_locked_a_table_and_begins_once_it_is_free() {
    let world = world(None);
    let mut connector = world.connector();
    let open = Open::run(&world, &world.database, "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)");
    for _ in 0..2 {
        held_up(attempt(&mut connector).await, &["publication", "is made", "\"billing\""]);
    }
    open.end(&world);
    attempt(&mut connector).await.unwrap();
}

/// The application locks one table, waits longer than `deadlock_timeout`, and then locks another one. The publication locks them in the other
/// order. Otherwise the server would end the deadlock with an error of the application.
#[tokio::test]
async fn a_deadlock_with_a_start_does_not_fail_the_application() {
    let world = World::alone(&[PREPARING], TABLES, vec![feed("t", &["id"]), feed("u", &["id"])]);
    let mut connector = world.connector();
    let sql = "BEGIN; LOCK TABLE u IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1.5); ALTER TABLE t ADD COLUMN more int; COMMIT";
    let mut application = Open::run(&world, &world.database, sql);
    held_up(attempt(&mut connector).await, &["\"billing\""]);
    let ended = loop {
        if let Some(ended) = application.0.try_wait().unwrap() {
            break ended;
        }
        if attempt(&mut connector).await.is_ok() {
            break application.0.wait().unwrap();
        }
    };
    assert!(ended.success(), "the application's statement failed: {ended}");
    attempt(&mut connector).await.unwrap();
}

/// An autovacuum of a large table takes hours, and gives way to a statement that waits.
#[tokio::test]
async fn an_autovacuum_does_not_delay_a_start() {
    let slow = [("autovacuum_naptime", "1s"), ("autovacuum_vacuum_cost_delay", "100ms"), ("autovacuum_vacuum_cost_limit", "1")];
    let world = World::alone(&[&[PREPARING, ("autovacuum", "on")], &slow[..]].concat(), TABLES, vec![feed("t", &["id"])]);
    world.sql("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i; DELETE FROM t WHERE id % 2 = 0");
    let vacuumed = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 't'::regclass";
    wait_for("autovacuum is at work", TIMEOUT, || (world.sql(vacuumed) == "1").then_some(()));
    attempt(&mut world.connector()).await.unwrap();
}

async fn a_start_that_is_given_up_leaves_nothing(version: Option<&'static str>) {
    let world = world(version);
    let open = Open::begin(&world, &world.database);
    let mut connector = world.connector();
    held_up(attempt(&mut connector).await, &["\"billing\""]);
    drop(connector);
    let ours = "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'feedline/shop')";
    wait_for("nothing of ours is left", TIMEOUT, || (world.sql(ours) == "0").then_some(()));
    // Another start has the same result.
    let mut connector = world.connector();
    held_up(attempt(&mut connector).await, &["\"billing\""]);
    // An attempt whose connection is lost begins again.
    world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'");
    wait_for("the slot is gone", TIMEOUT, || (world.sql("SELECT count(*) FROM pg_replication_slots") == "0").then_some(()));
    let lost = attempt(&mut connector).await.unwrap_err();
    assert_eq!(lost.fault(), Fault::Transient, "{lost}");
    held_up(attempt(&mut connector).await, &["\"billing\""]);
    open.end(&world);
    attempt(&mut connector).await.unwrap();
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing_behind() {
    a_start_that_is_given_up_leaves_nothing(None).await;
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing_behind_on_the_oldest_version() {
    a_start_that_is_given_up_leaves_nothing(Some("14")).await;
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing_behind_on_the_newest_version() {
    a_start_that_is_given_up_leaves_nothing(Some("18")).await;
}

#[tokio::test]
async fn a_gap_is_repaired_as_soon_as_open_transactions_end() {
    let world = world(None);
    let mut connector = world.connector();
    let identity = connector.identity().await.unwrap();
    let token = attempt(&mut connector).await.unwrap();
    world.sql(&format!("SELECT pg_drop_replication_slot('{}')", world.options.slot));
    let open = Open::begin(&world, &world.database);
    for _ in 0..2 {
        // Until the new slot exists, each connect finds the gap.
        let gap = connector.connect(&identity, &world.resume(&token, &token)).await.err().unwrap();
        assert_eq!((gap.code(), gap.fault()), (Code::SourceLogLost, Fault::Gap), "{gap}");
        held_up(connector.renew(&identity, &world.resume(&token, &token)).await, &["\"billing\""]);
    }
    open.end(&world);
    let renewed = connector.renew(&identity, &world.resume(&token, &token)).await.unwrap();
    assert_eq!(renewed.feeds.len(), 1);
    world.connect(&identity, &world.resume(&renewed.token, &renewed.token)).await.unwrap();
}

#[tokio::test]
async fn preflight_names_transactions_that_would_delay_a_start_for_any_role() {
    let mut world = world(None);
    let warned = |warnings: &[feedline::preflight::Warning], word: &str| {
        warnings.iter().any(|warning| warning.code == Code::PostgresHeldUp && warning.message.contains(word))
    };
    assert!(!warned(&world.connector().preflight().await.unwrap().warnings, ""));
    let open = Open::begin(&world, "postgres");
    world.sql("BEGIN; INSERT INTO u VALUES (1); PREPARE TRANSACTION 'an orphan'");
    let user = world.server.create_user("plain", "secret", "REPLICATION");
    for (user, password) in [("postgres".to_owned(), None), (user, Some(Secret::new("secret".to_owned())))] {
        (world.options.user, world.options.password) = (user, password);
        for word in ["\"billing\"", "'an orphan'"] {
            let deadline = tokio::time::Instant::now() + TIMEOUT;
            while !warned(&world.connector().preflight().await.unwrap().warnings, word) {
                assert!(tokio::time::Instant::now() < deadline, "{word} is not named");
            }
        }
    }
    open.end(&world);
    world.sql("ROLLBACK PREPARED 'an orphan'");
    // Once the slot exists and no rows are to be read, a start does not wait.
    (world.options.user, world.options.password) = ("postgres".to_owned(), None);
    world.establish().await;
    let open = Open::begin(&world, "postgres");
    assert!(!warned(&world.connector().preflight().await.unwrap().warnings, ""));
    open.end(&world);
}
