//! feedline is never a synchronous standby: commits of applications must not wait for a broker.

use super::world::{TIMEOUT, World, feed};
use crate::servers::port::wait_for;
use feedline::fault::{Classify, Code, Fault};
use feedline::source::SourceConnector;
use tokio::time::{Instant, sleep};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text)";

fn world() -> World {
    World::alone(&[], TABLE, vec![feed("t", &["id"])])
}

fn set(world: &World, names: &str) {
    world.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
    world.sql("SELECT pg_reload_conf()");
    wait_for("the setting is active", TIMEOUT, || (world.sql("SHOW synchronous_standby_names") == names).then_some(()));
}

/// Runs the statements that the error prints, and waits until the setting is active.
fn obey(world: &World, error: &impl Classify) {
    let remedy = error.to_string().split_once("run: ").unwrap().1.to_owned();
    let (setting, reload) = remedy.split_once("; ").unwrap();
    world.sql(setting);
    world.sql(reload);
    let names = setting.split_once("= '").unwrap().1.trim_end_matches('\'').to_owned();
    wait_for("the new setting is active", TIMEOUT, || (world.sql("SHOW synchronous_standby_names") == names).then_some(()));
}

#[tokio::test]
async fn a_server_that_would_wait_for_us_is_refused_with_the_names_to_set() {
    let world = world();
    for (names, remedy) in [
        ("*", ""),
        ("ANY 1 (*)", ""),
        ("FIRST 2 (s1, \"feedline/shop\", \"s 3\")", "FIRST 2 (\"s1\", \"s 3\")"),
        ("\"FeedLine/SHOP\"", ""),
        ("s1, *", "\"s1\""),
    ] {
        set(&world, names);
        let errors = world.verify().await.unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert_eq!((errors[0].code(), errors[0].fault()), (Code::PostgresUnsuitable, Fault::Fatal), "{names}: {}", errors[0]);
        obey(&world, &errors[0]);
        assert_eq!(world.sql("SHOW synchronous_standby_names"), remedy);
        world.verify().await.unwrap();
    }
    for names in ["s1", "ANY 1 (s1, \"feedline/other\")", "feedline"] {
        set(&world, names);
        world.verify().await.unwrap();
    }
    set(&world, "");
    world.establish().await;
}

#[tokio::test]
async fn an_existing_synchronous_standby_stays_one() {
    let mut primary = crate::servers::postgres::Postgres::start(&crate::servers::postgres::Options::default());
    let standby = primary.standby();
    let primary = &*Box::leak(Box::new(primary));
    let world = World::on(primary, TABLE, vec![feed("t", &["id"])]);
    wait_for("the standby follows", TIMEOUT, || {
        (world.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1").then_some(())
    });
    set(&world, "*");
    let errors = world.verify().await.unwrap_err();
    obey(&world, &errors[0]);
    assert_eq!(world.sql("SHOW synchronous_standby_names"), "\"walreceiver\"");
    let mut reader = world.begin().await;
    world.sql("INSERT INTO t VALUES (1, 'a')");
    reader.take(1).await;
    assert_eq!(world.sql("SELECT string_agg(application_name, ',') FROM pg_stat_replication WHERE sync_state = 'sync'"), "walreceiver");
    drop(standby);
}

#[tokio::test]
async fn a_server_that_begins_to_wait_for_us_is_disconnected() {
    let world = world();
    let (identity, token) = world.establish().await;
    let resume = world.resume(&token, &token);
    for is_held in [false, true] {
        let log = world.connect(&identity, &resume).await.unwrap();
        let mut reader = super::world::Reader::of(log, &token, 1 << 20);
        set(&world, "ANY 1 (*)");
        let begun = Instant::now();
        let error = loop {
            assert!(begun.elapsed() < TIMEOUT, "it is not noticed");
            // While the log is held for a slice, only acknowledgements are sent.
            let ended = if is_held {
                sleep(std::time::Duration::from_millis(50)).await;
                reader.log.acknowledge(Some(&token)).await.err()
            } else {
                reader.batch(None).await.err()
            };
            if let Some(error) = ended {
                break error;
            }
        };
        assert_eq!((error.code(), error.fault()), (Code::PostgresUnsuitable, Fault::Transient), "{error}");
        drop(reader);
        // A new connection is refused while the setting is unchanged.
        let refused = world.connector().connect(&identity, &resume).await.err().unwrap();
        assert_eq!((refused.code(), refused.fault()), (Code::PostgresUnsuitable, Fault::Transient), "{refused}");
        let ours = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'feedline/shop'";
        wait_for("no walsender of ours is left", TIMEOUT, || (world.sql(ours) == "0").then_some(()));
        obey(&world, &refused);
        world.sql("INSERT INTO t VALUES (1, 'a') ON CONFLICT DO NOTHING");
    }
    let mut reader = super::world::Reader::of(world.connect(&identity, &resume).await.unwrap(), &token, 1 << 20);
    reader.take(1).await;
}
