//! Problems and warnings of a server, found all at once before anything is created.

use super::world::{TIMEOUT, World, feed};
use crate::contract_source::assert_found;
use crate::servers::port::wait_for;
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::{Feed, PrefeedKind};
use feedline::net::secret::Secret;
use feedline::preflight::Findings;
use feedline::source::SourceConnector;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text)";

fn reading(table: &str) -> Feed {
    Feed { prefeed: PrefeedKind::Snapshot, ..feed(table, &["id"]) }
}

async fn preflight(world: &World) -> Findings {
    world.connector().preflight().await.unwrap()
}

#[track_caller]
fn assert_warned(findings: &Findings, code: Code, words: &[&str]) {
    let matches = |message: &str| words.iter().all(|word| message.contains(word));
    let found = findings.warnings.iter().any(|warning| warning.code == code && matches(&warning.message));
    assert!(found, "{code} {words:?} is not in {findings:#?}");
}

#[tokio::test]
async fn everything_that_a_role_and_its_tables_lack_is_found_at_once() {
    let mut world = World::new(
        "CREATE SCHEMA shut; CREATE TABLE shut.orders (id int PRIMARY KEY); CREATE TABLE a (id int); CREATE TABLE b (id int NOT NULL); \
         CREATE TABLE c (id int PRIMARY KEY)",
        ["a", "b", "c"].map(reading).into(),
    );
    world.feeds.push(Feed { schema: "shut".into(), name: "shut.orders".into(), ..reading("orders") });
    let user = world.server.create_user("poor", "secret", "");
    (world.options.user, world.options.password) = (user.clone(), Some(Secret::new("secret".to_owned())));
    let errors = world.verify().await.unwrap_err();
    let own = |table: &'static str| (Code::SourcePrivilege, [table, "does not own", "OWNER TO"]);
    let read = |table: &'static str| (Code::SourcePrivilege, [table, "may not read", "GRANT SELECT"]);
    let (owned, readable) = (["\"a\"", "\"b\"", "\"c\"", "\"orders\""].map(own), ["\"a\"", "\"b\"", "\"c\"", "\"orders\""].map(read));
    let mut expected: Vec<(Code, &[&str])> = vec![
        (Code::SourcePrivilege, &["may not replicate", "REPLICATION"]),
        (Code::SourcePrivilege, &["publication in database", "GRANT CREATE ON DATABASE"]),
        (Code::SourcePrivilege, &["\"shut\"", "GRANT USAGE ON SCHEMA"]),
        (Code::TableKeyless, &["public.a", "no replica identity"]),
        (Code::TableKeyless, &["public.a", "may be null"]),
        (Code::TableKeyless, &["public.a", "no unique index"]),
        (Code::TableKeyless, &["public.b", "no replica identity"]),
        (Code::TableKeyless, &["public.b", "no unique index"]),
    ];
    expected.extend(owned.iter().chain(&readable).map(|(code, words)| (*code, &words[..])));
    assert_found(&errors, &expected);
    // The printed remedies work.
    world.sql(&format!("ALTER ROLE {user} REPLICATION; GRANT CREATE ON DATABASE {} TO {user}", world.database));
    world.sql("ALTER TABLE a ADD PRIMARY KEY (id); ALTER TABLE b ADD PRIMARY KEY (id)");
    for table in ["a", "b", "c", "shut.orders"] {
        world.sql(&format!("ALTER TABLE {table} OWNER TO {user}"));
    }
    let errors = world.verify().await.unwrap_err();
    assert_found(&errors, &[(Code::SourcePrivilege, &["GRANT USAGE ON SCHEMA \"shut\""])]);
    world.sql(&format!("GRANT USAGE ON SCHEMA shut TO {user}"));
    world.establish().await;
}

#[tokio::test]
async fn a_publication_of_somebody_else_is_not_changed() {
    let mut world = World::new(&format!("{TABLE}; CREATE TABLE u (id int PRIMARY KEY)"), vec![feed("t", &["id"]), feed("u", &["id"])]);
    let user = world.server.create_user("owner", "secret", "REPLICATION");
    world.sql(&format!(
        "CREATE PUBLICATION {} FOR TABLE t; ALTER TABLE t OWNER TO {user}; ALTER TABLE u OWNER TO {user}",
        world.options.publication
    ));
    (world.options.user, world.options.password) = (user, Some(Secret::new("secret".to_owned())));
    let errors = world.verify().await.unwrap_err();
    assert_found(&errors, &[(Code::PostgresPublication, &["feedline did not create it", "ALTER PUBLICATION"])]);
}

#[tokio::test]
async fn a_wrong_wal_level_is_found_together_with_problems_of_tables() {
    let world = World::alone(&[("wal_level", "replica"), ("max_wal_senders", "1")], "CREATE TABLE t (id int NOT NULL)", vec![reading("t")]);
    assert_eq!(world.connector().catalogue().await.unwrap().tables.len(), 1);
    let errors = world.verify().await.unwrap_err();
    assert_found(
        &errors,
        &[
            (Code::PostgresUnsuitable, &["wal_level is \"replica\"", "ALTER SYSTEM SET wal_level = 'logical'"]),
            (Code::PostgresSlotsExhausted, &["max_wal_senders"]),
            (Code::TableKeyless, &["public.t", "REPLICA IDENTITY FULL"]),
            (Code::TableKeyless, &["public.t", "no unique index"]),
        ],
    );
}

#[tokio::test]
async fn a_slot_of_somebody_else_is_unfit() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    world.sql(&format!("SELECT pg_create_physical_replication_slot('{}')", world.options.slot));
    assert_found(&world.verify().await.unwrap_err(), &[(Code::PostgresSlotUnfit, &["pgoutput", "set source.slot"])]);
    world.sql(&format!("SELECT pg_drop_replication_slot('{}')", world.options.slot));
    let elsewhere = world.server.create_database("elsewhere");
    world.server.psql(&elsewhere, &format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", world.options.slot));
    assert_found(&world.verify().await.unwrap_err(), &[(Code::PostgresSlotUnfit, &[&elsewhere, "set source.slot"])]);
    world.server.psql(&elsewhere, &format!("SELECT pg_drop_replication_slot('{}')", world.options.slot));
}

#[tokio::test]
async fn objects_that_others_must_create_are_found_with_the_sql_to_run() {
    let mut world = World::new(TABLE, vec![feed("t", &["id"])]);
    world.options.manage = false;
    assert_found(
        &world.verify().await.unwrap_err(),
        &[(Code::PostgresPublication, &["CREATE PUBLICATION"]), (Code::PostgresSlotUnfit, &["pg_create_logical_replication_slot"])],
    );
    assert!(preflight(&world).await.actions.is_empty());
}

#[tokio::test]
async fn a_warning_names_the_reader_of_a_busy_slot() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let (identity, token) = world.establish().await;
    let resume = world.resume(&token, &token);
    let held = world.connect(&identity, &resume).await.unwrap();
    let pid = world.sql(&format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}'", world.options.slot));
    assert_warned(&preflight(&world).await, Code::SourceBusy, &[&format!("process {pid}"), "waits for it"]);
    // The token can be checked while the other connection reads.
    world.connector().resumable(&identity, &resume).await.unwrap();
    drop(held);
}

#[tokio::test]
async fn the_end_of_a_checkpoint_is_checked_as_at_a_start() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let (identity, token) = world.establish().await;
    let resume = world.resume(&token, &token);
    let refused = async |known: &feedline::checkpoint::Identity| world.connector().resumable(known, &resume).await.unwrap_err().code();
    let mut other = identity.clone();
    other.insert("system_identifier".to_owned(), "7".to_owned());
    assert_eq!(refused(&other).await, Code::SourceForeign);
    world.sql("INSERT INTO t VALUES (1, 'lost')");
    world.sql(&format!("SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())", world.options.slot));
    assert_eq!(refused(&identity).await, Code::SourceLogLost);
    world.sql(&format!("SELECT pg_drop_replication_slot('{}')", world.options.slot));
    assert_eq!(refused(&identity).await, Code::SourceLogLost);
}

#[tokio::test]
async fn a_slot_that_is_about_to_lose_its_log_is_warned_of_and_a_lost_one_is_refused() {
    let mut world = World::alone(&[("max_slot_wal_keep_size", "16MB"), ("max_wal_size", "1GB")], TABLE, vec![feed("t", &["id"])]);
    world.establish().await;
    let status =
        |world: &World| world.sql(&format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{}'", world.options.slot));
    let findings = preflight(&world).await;
    assert!(findings.warnings.is_empty() && findings.actions.iter().any(|action| action.contains("up to 16MB")), "{findings:#?}");
    for _ in 0..4 {
        world.sql("INSERT INTO t SELECT coalesce(max(id), 0) + 1, 'x' FROM t; SELECT pg_switch_wal()");
    }
    assert_eq!(status(&world), "unreserved");
    assert_warned(&preflight(&world).await, Code::PostgresSlotPerishable, &["16MB", "start feedline now"]);
    wait_for("the slot is lost", TIMEOUT, || {
        world.sql("CHECKPOINT");
        (status(&world) == "lost").then_some(())
    });
    world.options.manage = false;
    let error = world.connector().unclaimed().await.unwrap_err();
    assert_eq!(error.code(), Code::PostgresSlotUnfit);
    world.sql(error.to_string().split_once("run: ").unwrap().1);
    world.connector().unclaimed().await.unwrap();
}

#[tokio::test]
async fn a_server_that_invalidates_idle_slots_is_warned_of() {
    let world = World::of_version("18", &[("idle_replication_slot_timeout", "1h")], TABLE, vec![feed("t", &["id"])]);
    let findings = preflight(&world).await;
    assert_warned(&findings, Code::PostgresSlotPerishable, &["idle_replication_slot_timeout is 1h", "= 0"]);
    assert_warned(&findings, Code::PostgresLogUnbounded, &["max_slot_wal_keep_size"]);
}

#[tokio::test]
async fn an_event_trigger_that_refuses_the_publication_is_named_and_stops_the_start() {
    let world = World::new(TABLE, vec![reading("t")]);
    world.sql(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ask the owner'; END $$; \
         CREATE EVENT TRIGGER guard ON ddl_command_start EXECUTE FUNCTION refuse()",
    );
    let findings = preflight(&world).await;
    assert_warned(&findings, Code::PostgresRefused, &["\"guard\"", "may refuse", "source.publication"]);
    let error = world.connector().establish().await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::PostgresRefused, Fault::Fatal), "{error}");
    assert!(error.to_string().contains("ask the owner"), "{error}");
    // A trigger for other statements is not a problem.
    world.sql("ALTER EVENT TRIGGER guard DISABLE; DROP EVENT TRIGGER guard; CREATE EVENT TRIGGER guard ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION refuse()");
    assert!(preflight(&world).await.warnings.iter().all(|warning| warning.code != Code::PostgresRefused));
    world.connector().establish().await.unwrap();
}
