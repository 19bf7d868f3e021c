//! Each statement that an error prints is run as printed, and then a start succeeds.

use super::growing::Pipeline;
use super::world::{Reader, TIMEOUT, World, feed};
use crate::servers::port::wait_for;
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::{Feed, PrefeedKind};
use feedline::net::secret::Secret;
use feedline::source::SourceConnector;

/// The SQL statements in a message.
pub fn statements(message: &str) -> Vec<String> {
    let sql = message.split_once("run: ").map(|(_, sql)| sql).unwrap_or_default();
    let end = [", or ", " -- ", ", then ", " and restart "].iter().filter_map(|after| sql.find(after)).min().unwrap_or(sql.len());
    sql[..end].split("; ").filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
}

/// Runs the printed statements until a start finds no problem; returns the codes of the errors.
async fn follow(world: &World, case: &str) -> Vec<Code> {
    let mut codes = Vec::new();
    for _ in 0..3 {
        let Err(errors) = world.verify().await else { break };
        codes.extend(errors.iter().map(Classify::code));
        for error in &errors {
            let statements = self::statements(&error.to_string());
            assert!(!statements.is_empty(), "{case}: {error} prints no statement");
            for statement in statements {
                world
                    .server
                    .try_psql(&world.database, &statement)
                    .unwrap_or_else(|refusal| panic!("{case}: {error}: {statement}: {refusal}"));
            }
        }
    }
    codes
}

/// Asserts that a start succeeds, and that a later row arrives.
async fn assert_starts(world: &World, case: &str, insert: &str) {
    if let Err(errors) = world.verify().await {
        panic!("{case}: {errors:#?}");
    }
    let mut reader = world.begin().await;
    world.sql(insert);
    assert_eq!(reader.take(1).await[0].event()["op"], "insert", "{case}");
}

fn reading(table: &str) -> Feed {
    Feed { prefeed: PrefeedKind::Snapshot, ..feed(table, &["id"]) }
}

#[tokio::test]
async fn statements_that_are_printed_before_a_start_let_it_succeed() {
    const T: &str = "CREATE TABLE t (id int PRIMARY KEY, note text)";
    let partitioned = |leaf: &str| {
        format!("CREATE TABLE t (id int PRIMARY KEY, note text) PARTITION BY RANGE (id); {leaf} PARTITION OF t FOR VALUES FROM (0) TO (10)")
    };
    let (leaf, unlogged) = (partitioned("CREATE TABLE t_low"), partitioned("CREATE UNLOGGED TABLE t_low"));
    // Name, tables, publication, `source.manage`, and the codes of the errors.
    let cases: [(&str, &str, &str, bool, &[Code]); 7] = [
        ("nothing exists", T, "", false, &[Code::PostgresPublication, Code::PostgresSlotUnfit]),
        ("a table is missing", T, "CREATE PUBLICATION {}", true, &[Code::PostgresPublication]),
        ("operations are missing", T, "CREATE PUBLICATION {} FOR TABLE t WITH (publish = 'insert')", true, &[Code::PostgresPublication]),
        (
            "all is missing",
            T,
            "CREATE PUBLICATION {} WITH (publish = 'insert')",
            true,
            &[Code::PostgresPublication, Code::PostgresPublication],
        ),
        ("partitions are published under their own names", &leaf, "CREATE PUBLICATION {} FOR TABLE t", true, &[Code::PostgresPublication]),
        ("a partition is unlogged", &unlogged, "", true, &[Code::PostgresPublication]),
        (
            "a key that may be null",
            "CREATE TABLE t (id int UNIQUE, note text); ALTER TABLE t REPLICA IDENTITY FULL",
            "",
            true,
            &[Code::TableKeyless],
        ),
    ];
    for (case, tables, publication, manage, expected) in cases {
        let mut world = World::new(tables, vec![reading("t")]);
        world.options.manage = manage;
        if !publication.is_empty() {
            world.sql(&publication.replace("{}", &world.options.publication));
        }
        assert_eq!(follow(&world, case).await, expected, "{case}");
        assert_starts(&world, case, "INSERT INTO t VALUES (1, 'x')").await;
    }
}

#[tokio::test]
async fn statements_for_missing_privileges_let_a_start_succeed() {
    let mut world = World::new(
        "CREATE SCHEMA shut; CREATE TABLE shut.orders (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY); \
         CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE hidden FORCE ROW LEVEL SECURITY",
        vec![reading("t"), reading("hidden")],
    );
    world.feeds.push(Feed { schema: "shut".into(), name: "shut.orders".into(), ..reading("orders") });
    let user = world.server.create_user("following", "secret", "");
    (world.options.user, world.options.password) = (user, Some(Secret::new("secret".to_owned())));
    let codes = follow(&world, "a role without privileges").await;
    assert!(codes.iter().all(|code| *code == Code::SourcePrivilege), "{codes:?}");
    assert_starts(&world, "a role without privileges", "INSERT INTO shut.orders VALUES (1)").await;
}

#[tokio::test]
async fn statements_for_a_publication_of_another_owner_let_a_start_succeed() {
    let mut world = World::new("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)", vec![feed("t", &["id"])]);
    let (identity, token) = world.establish().await;
    let user = world.server.create_user("later", "secret", "REPLICATION");
    world.sql(&format!(
        "ALTER TABLE t OWNER TO {user}; ALTER TABLE u OWNER TO {user}; GRANT CREATE ON DATABASE {} TO {user}",
        world.database
    ));
    (world.options.user, world.options.password) = (user, Some(Secret::new("secret".to_owned())));
    world.feeds.push(feed("u", &["id"]));
    assert_eq!(follow(&world, "another role").await, [Code::SourcePrivilege]);
    world.connect(&identity, &world.resume(&token, &token)).await.unwrap();
}

#[tokio::test]
async fn the_statements_of_warnings_end_them() {
    let world = World::alone(&[], "CREATE TABLE t (id int PRIMARY KEY)", vec![feed("t", &["id"])]);
    let warnings = world.connector().preflight().await.unwrap().warnings;
    assert_eq!(warnings.iter().map(|warning| warning.code).collect::<Vec<_>>(), [Code::PostgresLogUnbounded]);
    for statement in statements(&warnings[0].message) {
        world.sql(&statement);
    }
    wait_for("the server's settings", TIMEOUT, || (world.sql("SHOW max_slot_wal_keep_size") == "50GB").then_some(()));
    assert!(world.connector().preflight().await.unwrap().warnings.is_empty());
}

/// A slot that others created before the publication, with rows written between the two.
fn publication_after_slot() -> World {
    let mut world = World::new("CREATE TABLE t (id int PRIMARY KEY)", vec![feed("t", &["id"])]);
    world.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", world.options.slot));
    world.sql(&format!("INSERT INTO t VALUES (1); CREATE PUBLICATION {} FOR TABLE t", world.options.publication));
    world.options.manage = false;
    world
}

#[tokio::test]
async fn a_publication_that_is_newer_than_its_slot_is_found_before_a_first_start() {
    let world = publication_after_slot();
    world.verify().await.unwrap();
    let error = world.connector().unclaimed().await.unwrap_err();
    assert_eq!(error.code(), Code::PostgresPublication, "{error}");
    let statements = statements(&error.to_string());
    assert_eq!(statements.len(), 2, "{error}");
    for statement in statements {
        world.sql(&statement);
    }
    assert_starts(&world, "a slot that is newer than the publication", "INSERT INTO t VALUES (2)").await;
}

#[tokio::test]
async fn statements_for_a_publication_that_is_newer_than_its_slot_let_the_log_continue() {
    let world = publication_after_slot();
    let identity = world.connector().identity().await.unwrap();
    let token = world.connector().establish().await.unwrap();
    let resume = world.resume(&token, &token);
    let mut reader = Reader::of(world.connect(&identity, &resume).await.unwrap(), &token, 1 << 20);
    let (sent, error) = reader.failure().await;
    assert!(sent.is_empty(), "{sent:?}");
    drop(reader);
    assert_eq!((error.code(), error.fault()), (Code::PostgresPublication, Fault::Fatal), "{error}");
    let statements = statements(&error.to_string());
    assert_eq!(statements.len(), 2, "{error}");
    wait_for("the slot is free", TIMEOUT, || world.server.try_psql(&world.database, &statements[0]).ok());
    // The second statement was not run: the next start prints it.
    assert_eq!(follow(&world, "a publication that is newer than the slot").await, [Code::PostgresSlotUnfit]);
    assert_eq!(world.connect(&identity, &resume).await.err().unwrap().code(), Code::SourceLogLost);
    let renewed = world.connector().renew(&identity, &resume).await.unwrap();
    assert_eq!(renewed.feeds.len(), 1);
    let resume = world.resume(&renewed.token, &renewed.token);
    let mut reader = Reader::of(world.connect(&identity, &resume).await.unwrap(), &renewed.token, 1 << 20);
    world.sql("INSERT INTO t VALUES (2)");
    assert_eq!(reader.take(1).await[0].key, "{\"id\":2}");
}

#[test]
fn with_on_gap_prefeed_a_publication_that_was_created_again_is_used() {
    let pipeline = Pipeline::new("belated", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let feeds = "on_gap = \"prefeed\"\n[[feeds]]\ntables = [\"t\"]";
    pipeline.feedline_with("", feeds).stop();
    let sql = |statements: &str| pipeline.postgres.psql(&pipeline.database, statements);
    sql("DROP PUBLICATION feedline_belated");
    sql("DELETE FROM t; INSERT INTO t VALUES (2)");
    sql("CREATE PUBLICATION feedline_belated FOR TABLE t");
    let mut feedline = pipeline.feedline_with("", feeds);
    wait_for("the existing rows", TIMEOUT * 2, || (pipeline.briefly() == ["read t 1", "reset t null", "read t 2"]).then_some(()));
    feedline.stop();
}
