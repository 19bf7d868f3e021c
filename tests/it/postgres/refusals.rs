//! Refusals: their codes and their remedies.

use super::world::{World, feed};
use crate::contract_source::Refusal;
use feedline::fault::{Classify, Code, Fault};
use feedline::net::TlsMode;
use feedline::source::SourceConnector;
use feedline::source::postgres::{Connector, Error};

fn check<T>(result: Result<T, Error>, code: Code, fault: Fault, words: &[&str]) {
    let Err(error) = result else { panic!("{code} is not refused") };
    let text = error.to_string();
    assert_eq!((error.code(), error.fault()), (code, fault), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

/// Asserts that a preflight found, among others, a refusal with this code and these words.
fn found(result: Result<(), Vec<Refusal>>, code: Code, words: &[&str]) {
    let errors = result.unwrap_err();
    let matches = |error: &Refusal| error.code() == code && words.iter().all(|word| error.to_string().contains(word));
    assert!(errors.iter().any(matches), "{code} {words:?} is not in {errors:#?}");
    assert!(errors.iter().all(|error| error.fault() == Fault::Fatal), "{errors:#?}");
}

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text)";

fn world() -> World {
    World::new(TABLE, vec![feed("t", &["id"])])
}

#[tokio::test]
async fn tables_without_a_usable_key_are_refused_with_the_alter_to_run() {
    let world = World::new("CREATE TABLE t (id int, note text)", vec![feed("t", &["id"])]);
    found(world.verify().await, Code::TableKeyless, &["public.t", "ALTER TABLE \"public\".\"t\" REPLICA IDENTITY FULL"]);
    found(world.verify().await, Code::TableKeyless, &["public.t", "ALTER TABLE \"public\".\"t\" ADD PRIMARY KEY (\"id\")"]);
    world.sql("ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t ADD PRIMARY KEY (id)");
    world.verify().await.unwrap();
    world.sql("ALTER TABLE t REPLICA IDENTITY NOTHING");
    found(world.verify().await, Code::TableKeyless, &["NOTHING"]);
    let mut world = self::world();
    world.feeds = vec![feed("t", &["note"])];
    found(world.verify().await, Code::TableKeyless, &["\"note\"", "replica identity"]);
}

#[tokio::test]
async fn the_error_for_a_table_without_a_primary_key_suggests_a_key() {
    let mut world =
        World::new("CREATE TABLE t (code int NOT NULL UNIQUE, note text); ALTER TABLE t REPLICA IDENTITY FULL", vec![feed("t", &[])]);
    let errors = world.verify().await.unwrap_err();
    let [error] = errors.as_slice() else { panic!("there must be one error only: {errors:?}") };
    assert!(error.to_string().contains("set key = [\"code\"] in its [[feeds]], or run: ALTER TABLE"), "{error}");
    world.feeds = vec![feed("t", &["code"])];
    world.verify().await.unwrap();
    // A key in the feed does not help if the log would not contain it.
    world.feeds = vec![feed("t", &[])];
    world.sql("ALTER TABLE t REPLICA IDENTITY DEFAULT");
    let errors = world.verify().await.unwrap_err();
    assert!(errors.len() == 1 && !errors[0].to_string().contains("set key"), "{errors:?}");
    world.sql("ALTER TABLE t ADD PRIMARY KEY (code)");
    world.feeds = vec![feed("t", &["code"])];
    world.verify().await.unwrap();
}

#[tokio::test]
async fn a_slot_without_a_checkpoint_is_not_taken_over() {
    let world = world();
    let (_, token) = world.establish().await;
    check(world.connector().unclaimed().await, Code::SourceClaimed, Fault::Fatal, &["replication slot", "detach"]);
    // Once the intent is stored, a second attempt takes over the slot of the first one.
    assert_eq!(world.connector().establish().await.unwrap(), token);
    let removed = world.connector().detach().await.unwrap();
    let [slot, publication] = [&world.options.slot, &world.options.publication];
    assert_eq!(removed, [format!("removed replication slot {slot}"), format!("removed publication {publication}")]);
    world.connector().unclaimed().await.unwrap();
    assert!(world.connector().detach().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_publication_that_somebody_else_created_is_used_and_kept() {
    let mut world = world();
    let role = world.server.create_user("plain", "secret", "REPLICATION");
    world.sql(&format!("CREATE PUBLICATION {} FOR TABLE t; GRANT SELECT ON t TO {role}", world.options.publication));
    (world.options.user, world.options.password) = (role, Some(feedline::net::secret::Secret::new("secret".to_owned())));
    // The role owns neither the table nor the publication, and can still read the log.
    world.establish().await;
    // A publication of ours without a slot means that the pipeline has run before; one that others created does not.
    let removed = world.connector().detach().await.unwrap();
    assert_eq!(removed, [format!("removed replication slot {}", world.options.slot)]);
    world.connector().unclaimed().await.unwrap();
    assert_eq!(world.sql(&format!("SELECT count(*) FROM pg_publication WHERE pubname = '{}'", world.options.publication)), "1");
}

#[tokio::test]
async fn a_slot_that_is_gone_or_was_moved_is_a_gap() {
    let world = world();
    let (identity, token) = world.establish().await;
    world.sql("INSERT INTO t VALUES (1, 'lost')");
    world.sql(&format!("SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())", world.options.slot));
    let resume = world.resume(&token, &token);
    let boundary = token.0.split([':', '@']).nth(1).unwrap();
    check(world.connector().connect(&identity, &resume).await, Code::SourceLogLost, Fault::Gap, &["advanced", boundary]);
    world.sql(&format!("SELECT pg_drop_replication_slot('{}')", world.options.slot));
    check(world.connector().connect(&identity, &resume).await, Code::SourceLogLost, Fault::Gap, &["no longer exists"]);
}

#[tokio::test]
async fn another_system_another_database_and_a_rewound_log_are_refused() {
    let world = world();
    let (identity, token) = world.establish().await;
    let resume = world.resume(&token, &token);
    for name in ["system_identifier", "database", "database_oid"] {
        let mut other = identity.clone();
        other.insert(name.to_owned(), "7".to_owned());
        check(world.connector().connect(&other, &resume).await, Code::SourceForeign, Fault::Gap, &[name]);
    }
    for (position, word) in [("1:FFFF/0", "ends at"), ("2:0/1", "timeline 2")] {
        let token = feedline::checkpoint::ResumeToken(position.into());
        check(world.connector().connect(&identity, &world.resume(&token, &token)).await, Code::SourceRewound, Fault::Gap, &[word]);
    }
}

#[tokio::test]
async fn a_busy_slot_names_its_holder_and_is_transient() {
    let world = world();
    let (identity, token) = world.establish().await;
    let resume = world.resume(&token, &token);
    let held = world.connect(&identity, &resume).await.unwrap();
    check(
        world.connector().connect(&identity, &resume).await,
        Code::SourceBusy,
        Fault::Transient,
        &["feedline/shop", "127.0.0.1", "process"],
    );
    drop(held);
    world.connect(&identity, &resume).await.unwrap();
}

#[tokio::test]
async fn unmanaged_slots_and_publications_are_verified_with_the_sql_to_run() {
    let mut world = world();
    world.options.manage = false;
    world.connector().unclaimed().await.unwrap();
    let Err(error @ Error::Publication { .. }) = world.connector().establish().await else { panic!("a publication is missing") };
    let Error::Publication { remedy, .. } = &error else { unreachable!() };
    assert_eq!(error.code(), Code::PostgresPublication);
    world.sql(remedy);
    let Err(error @ Error::SlotUnfit { .. }) = world.connector().establish().await else { panic!("a slot is missing") };
    let Error::SlotUnfit { remedy, .. } = &error else { unreachable!() };
    world.sql(remedy.strip_prefix("run: ").unwrap());
    world.connector().establish().await.unwrap();
    world.sql("CREATE TABLE u (id int PRIMARY KEY)");
    world.feeds.push(feed("u", &["id"]));
    check(world.connector().establish().await, Code::PostgresPublication, Fault::Fatal, &["ADD TABLE ONLY \"public\".\"u\""]);
    // Both stay, and the output says how to drop them.
    let remaining = world.connector().detach().await.unwrap();
    let [slot, publication] = remaining.as_slice() else { panic!("{remaining:?}") };
    assert!(slot.starts_with(&format!("replication slot {} stays", world.options.slot)), "{slot}");
    assert!(publication.starts_with(&format!("publication {} stays", world.options.publication)), "{publication}");
    for line in &remaining {
        world.sql(line.split_once("run: ").unwrap().1);
    }
    assert!(world.connector().detach().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_pooler_is_recognised_and_refused() {
    let mut world = world();
    let direct = world.options.port;
    // A pooler that ignores unknown parameters would drop our session settings, and use another session for each transaction.
    let ignored = "DateStyle, IntervalStyle, TimeZone, bytea_output, extra_float_digits, search_path, quote_all_identifiers, array_nulls, \
                   transform_null_equals, xmloption, client_min_messages, statement_timeout, idle_in_transaction_session_timeout, \
                   idle_session_timeout, lock_timeout, row_security, default_transaction_read_only, default_transaction_isolation, \
                   default_transaction_deferrable, synchronous_commit, options";
    for more in [
        String::new(),
        format!("ignore_startup_parameters = {ignored}"),
        format!("pool_mode = transaction\nignore_startup_parameters = {ignored}"),
    ] {
        let (_pooler, port) = crate::servers::postgres::pooler(world.server, &more);
        world.options.port = port;
        let words = ["PgBouncer", "set source.host and source.port"];
        check(world.connector().catalogue().await, Code::PostgresUnsuitable, Fault::Fatal, &words);
        // The remedy works.
        world.options.port = direct;
        world.connector().catalogue().await.unwrap();
    }
}

#[tokio::test]
async fn a_managed_publication_follows_the_feeds() {
    let mut world = world();
    let mut reader = world.begin().await;
    world.sql("CREATE TABLE u (id int PRIMARY KEY)");
    world.feeds.push(feed("u", &["id"]));
    let (identity, token) = (world.connector().identity().await.unwrap(), reader.log.token());
    reader.log.acknowledge(Some(&token)).await.unwrap();
    drop(reader);
    let log = world.connect(&identity, &world.resume(&token, &token)).await.unwrap();
    let mut reader = super::world::Reader::of(log, &token, 1 << 20);
    world.sql("INSERT INTO u VALUES (1)");
    assert_eq!(reader.take(1).await[0].event()["table"], "u");
}

#[tokio::test]
async fn a_terminated_walsender_is_a_transient_fault() {
    let world = world();
    let mut reader = world.begin().await;
    world.sql(&format!("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'", world.options.slot));
    let (sent, failed) = reader.failure().await;
    assert!(sent.is_empty(), "{sent:?}");
    check(Err::<(), _>(failed), Code::SourceUnreachable, Fault::Transient, &[]);
}

#[tokio::test]
async fn a_role_without_privileges_and_a_missing_database_are_named() {
    let mut world = world();
    let user = world.server.create_user("plain", "secret", "");
    world.options.user.clone_from(&user);
    world.options.password = Some(feedline::net::secret::Secret::new("secret".to_owned()));
    found(world.verify().await, Code::SourcePrivilege, &["REPLICATION", &user]);
    world.server.psql("postgres", &format!("ALTER ROLE {user} REPLICATION"));
    found(world.verify().await, Code::SourcePrivilege, &["own", &user]);
    world.options.database = "nowhere".to_owned();
    check(world.connector().catalogue().await, Code::PostgresDatabaseMissing, Fault::Fatal, &["nowhere"]);
}

#[tokio::test]
async fn a_member_of_rds_replication_may_replicate() {
    let mut world = world();
    world.options.user = world.server.create_user("rds", "secret", "");
    world.options.password = Some(feedline::net::secret::Secret::new("secret".to_owned()));
    world.sql(&format!(
        "CREATE ROLE rds_replication; ALTER TABLE t OWNER TO {0}; GRANT CREATE ON DATABASE {1} TO {0}",
        world.options.user, world.database
    ));
    found(world.verify().await, Code::SourcePrivilege, &["REPLICATION"]);
    world.sql(&format!("GRANT rds_replication TO {}", world.options.user));
    world.verify().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_transient_fault() {
    let mut world = world();
    world.options.port = crate::servers::port::free();
    world.options.trust.mode = TlsMode::Disable;
    let mut connector: Connector = world.connector();
    check(connector.catalogue().await, Code::SourceUnreachable, Fault::Transient, &["127.0.0.1"]);
    world.options.port = world.server.port();
}

#[tokio::test]
async fn a_table_that_is_renamed_or_loses_its_key_is_not_skipped() {
    for (change, words) in [
        ("ALTER TABLE t RENAME TO elsewhere; INSERT INTO elsewhere VALUES (2, 'b')", ["public.t", "public.elsewhere"]),
        ("ALTER TABLE t RENAME id TO number; INSERT INTO t VALUES (2, 'b')", ["public.t", "\"id\""]),
    ] {
        let world = world();
        let mut reader = world.begin().await;
        world.sql("INSERT INTO t VALUES (1, 'a')");
        reader.take(1).await;
        world.sql(change);
        let (sent, failed) = reader.failure().await;
        assert!(sent.is_empty(), "{sent:?}");
        check(Err::<(), _>(failed), Code::TableChanged, Fault::Fatal, &words);
    }
}

#[tokio::test]
async fn changes_under_another_name_are_published_once_the_table_is_renamed_back() {
    let world = world();
    let mut reader = world.begin().await;
    let token = reader.token.clone();
    world.sql("INSERT INTO t VALUES (1, 'a')");
    world.sql("ALTER TABLE t RENAME TO elsewhere; INSERT INTO elsewhere VALUES (2, 'b')");
    let (_, failed) = reader.failure().await;
    check(Err::<(), _>(failed), Code::TableChanged, Fault::Fatal, &["public.t", "rename it back"]);
    drop(reader);
    world.sql("ALTER TABLE elsewhere RENAME TO t");
    world.sql("INSERT INTO t VALUES (3, 'c')");
    let identity = world.connector().identity().await.unwrap();
    let log = world.connect(&identity, &world.resume(&token, &token)).await.unwrap();
    let sent = super::world::Reader::of(log, &token, 1 << 20).take(3).await;
    assert_eq!(super::world::shorts(&sent), [1, 2, 3].map(|id| format!(r#"insert {{"id":{id}}} 0!"#)));
    assert!(sent.iter().all(|sent| sent.event()["table"] == "t"));
}
