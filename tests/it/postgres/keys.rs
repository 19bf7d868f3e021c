//! Requirements of tables: rows must have a key, and the application's statements must still succeed. Each printed remedy is run.

use super::world::{World, feed};
use feedline::fault::{Classify, Code};
use feedline::feed::{Feed, PrefeedKind};
use feedline::source::SourceConnector;

/// The problems of the tables that a preflight finds.
async fn problems(world: &World) -> Vec<String> {
    let Err(errors) = world.verify().await else { return Vec::new() };
    assert!(errors.iter().all(|error| error.code() == Code::TableKeyless), "{errors:#?}");
    errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_found(problems: &[String], words: &[&str]) {
    assert!(problems.iter().any(|text| words.iter().all(|word| text.contains(word))), "{words:?} is not in {problems:#?}");
}

/// Runs the statements of the errors until no problem is found.
async fn repair(world: &World) {
    for _ in 0..3 {
        let Err(errors) = world.verify().await else { return };
        for error in errors {
            let text = error.to_string();
            let (_, sql) = text.split_once("run: ").unwrap_or_else(|| panic!("{error}"));
            world.sql(sql);
        }
    }
    world.verify().await.unwrap();
}

/// A table for which a statement of the application would fail, and the expected words of the error.
struct Case {
    tables: &'static str,
    words: &'static [&'static str],
}

const LEAVES: &str =
    "CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (10); CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (10) TO (20)";
const ON_LEAVES: &str = "INSERT INTO t VALUES (1, 'a'), (11, 'b'); UPDATE t SET note = 'c'; UPDATE t SET id = id + 1; DELETE FROM t";

async fn assert_repaired(world: &World, words: &[&str], statements: &str) {
    world.sql(statements);
    assert_found(&problems(world).await, words);
    repair(world).await;
    world.establish().await;
    world.sql(statements);
}

#[tokio::test]
async fn no_statement_of_the_application_fails_once_its_table_is_published() {
    for Case { tables, words } in [
        Case {
            tables: "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, note text)",
            words: &["public.t", "no replica identity", "REPLICA IDENTITY FULL"],
        },
        Case {
            tables: "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, note text); ALTER TABLE t REPLICA IDENTITY FULL",
            words: &["DEFERRABLE", "DROP CONSTRAINT \"t_pkey\", ADD PRIMARY KEY (\"id\")"],
        },
        Case {
            tables: "CREATE TABLE t (id int, note text) PARTITION BY RANGE (id); {leaves}; ALTER TABLE t REPLICA IDENTITY FULL",
            words: &[
                "partitions \"public\".\"t_high\", \"public\".\"t_low\" have no replica identity",
                "ALTER TABLE \"public\".\"t_high\" REPLICA IDENTITY FULL; ALTER TABLE \"public\".\"t_low\" REPLICA IDENTITY FULL",
            ],
        },
        Case {
            tables: "CREATE TABLE t (id int PRIMARY KEY, note text) PARTITION BY RANGE (id); {leaves}; ALTER TABLE t_low REPLICA IDENTITY NOTHING",
            words: &[
                "partition \"public\".\"t_low\" has REPLICA IDENTITY NOTHING",
                "ALTER TABLE \"public\".\"t_low\" REPLICA IDENTITY DEFAULT",
            ],
        },
        Case {
            tables: "CREATE TABLE t (id int NOT NULL, note text) PARTITION BY RANGE (id); {leaves}; ALTER TABLE ONLY t ADD PRIMARY KEY (id)",
            words: &["its primary key is not valid"],
        },
        Case {
            tables: "CREATE TABLE t (id int PRIMARY KEY, note text) PARTITION BY RANGE (id); CREATE TABLE t_all PARTITION OF t FOR VALUES FROM (0) TO (20) \
                     PARTITION BY RANGE (id); CREATE TABLE t_low PARTITION OF t_all FOR VALUES FROM (0) TO (10); \
                     CREATE TABLE t_high PARTITION OF t_all FOR VALUES FROM (10) TO (20); ALTER TABLE t_high REPLICA IDENTITY NOTHING",
            words: &["partition \"public\".\"t_high\" has REPLICA IDENTITY NOTHING"],
        },
        Case {
            tables: "CREATE TABLE t (id int PRIMARY KEY, note text NOT NULL); CREATE UNIQUE INDEX i ON t (note); \
                     ALTER TABLE t REPLICA IDENTITY USING INDEX i; DROP INDEX i",
            words: &["no replica identity", "REPLICA IDENTITY DEFAULT"],
        },
    ] {
        let world = World::new(&tables.replace("{leaves}", LEAVES), vec![Feed { prefeed: PrefeedKind::Snapshot, ..feed("t", &["id"]) }]);
        assert_repaired(&world, words, ON_LEAVES).await;
    }
}

#[tokio::test]
async fn column_lists_and_filters_do_not_break_the_applications_updates() {
    for (publication, words, statements) in [
        (
            "FOR TABLE t WHERE (note <> 'x')",
            &["\"note\" in the publication's filter", "REPLICA IDENTITY FULL"][..],
            "INSERT INTO t VALUES (1, 'a', 1)",
        ),
        (
            "FOR TABLE t (id, note)",
            &["\"total\" in the replica identity but not in the publication's column list", "REPLICA IDENTITY DEFAULT"],
            "INSERT INTO t VALUES (1, 'a', 1)",
        ),
    ] {
        let mut world = World::new("CREATE TABLE t (id int PRIMARY KEY, note text, total int)", vec![feed("t", &["id"])]);
        world.options.manage = false;
        if words[0].contains("total") {
            world.sql("ALTER TABLE t REPLICA IDENTITY FULL");
        }
        world.sql(&format!("CREATE PUBLICATION {} {publication}", world.options.publication));
        world.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", world.options.slot));
        world.sql(statements);
        assert!(world.server.try_psql(&world.database, "UPDATE t SET note = 'b'").is_err(), "the server refuses it");
        assert_found(&problems(&world).await, words);
        repair(&world).await;
        world.sql("UPDATE t SET note = 'b'; UPDATE t SET id = 2; DELETE FROM t");
    }
}

#[tokio::test]
async fn generated_columns_do_not_break_the_applications_updates_on_version_18() {
    for kind in ["STORED", "VIRTUAL"] {
        let tables = format!(
            "CREATE TABLE t (id int PRIMARY KEY, note text, twice int GENERATED ALWAYS AS (id * 2) {kind}); ALTER TABLE t REPLICA IDENTITY FULL"
        );
        let world = World::of_version("18", &[], &tables, vec![feed("t", &["id"])]);
        let words = ["the generated column \"twice\" in the replica identity", "REPLICA IDENTITY DEFAULT"];
        assert_repaired(&world, &words, "INSERT INTO t VALUES (1, 'a'); UPDATE t SET note = 'b'; UPDATE t SET id = 2; DELETE FROM t").await;
    }
}

#[tokio::test]
async fn included_columns_are_not_part_of_the_key_which_is_in_table_order() {
    let world = World::new(
        "CREATE TABLE t (a int, b int, c int, PRIMARY KEY (b, a) INCLUDE (c)); \
         CREATE TABLE p (a int, b int, c int, PRIMARY KEY (b, a) INCLUDE (c)) PARTITION BY RANGE (a); CREATE TABLE q PARTITION OF p DEFAULT",
        vec![feed("t", &["a", "b"]), feed("p", &["a", "b"])],
    );
    let catalogue = world.connector().catalogue().await.unwrap();
    for table in &catalogue.tables {
        assert_eq!(table.primary_key, ["a".into(), "b".into()], "{}", table.name);
    }
    let mut reader = world.begin().await;
    world.sql("INSERT INTO t VALUES (1, 2, 3); UPDATE t SET c = 4; DELETE FROM t; INSERT INTO p VALUES (1, 2, 3); UPDATE p SET c = 4; DELETE FROM p");
    let sent = reader.take(6).await;
    for sent in &sent {
        assert_eq!(sent.key, r#"{"a":1,"b":2}"#);
    }
}

#[tokio::test]
async fn a_key_that_is_not_unique_is_refused() {
    let unique = "CREATE TABLE t (id int NOT NULL, other int NOT NULL, note text); ALTER TABLE t REPLICA IDENTITY FULL";
    for (tables, key, reason) in [
        (unique.to_owned(), &["id"][..], "its key (\"id\") has no unique index"),
        (format!("{unique}; CREATE INDEX ON t (id)"), &["id"], "no unique index"),
        (format!("{unique}; CREATE UNIQUE INDEX ON t (id) WHERE other > 0"), &["id"], "no unique index"),
        (format!("{unique}; CREATE UNIQUE INDEX ON t ((id + 1))"), &["id"], "no unique index"),
        (format!("{unique}; CREATE UNIQUE INDEX ON t (id, other)"), &["id"], "no unique index"),
        (format!("{unique}; CREATE UNIQUE INDEX ON t (other) INCLUDE (id)"), &["id"], "no unique index"),
        (format!("{unique}; ALTER TABLE t ADD UNIQUE (id) DEFERRABLE"), &["id"], "no unique index"),
        (format!("{unique}; ALTER TABLE t ADD EXCLUDE USING btree (id WITH =)"), &["id"], "no unique index"),
        (format!("{unique}; ALTER TABLE t ADD PRIMARY KEY (id, other)"), &["id"], "its primary key is (\"id\", \"other\")"),
        (format!("{unique}; CREATE UNIQUE INDEX ON t (note)"), &["note"], "may be null"),
        (
            "CREATE TABLE t (id int NOT NULL, other int NOT NULL) PARTITION BY RANGE (other); CREATE TABLE t1 PARTITION OF t DEFAULT; \
             CREATE UNIQUE INDEX ON t1 (id); ALTER TABLE t1 REPLICA IDENTITY FULL"
                .to_owned(),
            &["id"],
            "ADD PRIMARY KEY (\"id\", \"other\")",
        ),
        (
            "CREATE TABLE t (id int, twice int GENERATED ALWAYS AS (id * 2) STORED PRIMARY KEY)".to_owned(),
            &["twice"],
            "its key column \"twice\" is generated",
        ),
    ] {
        let world = World::new(&tables, vec![feed("t", key)]);
        let problems = problems(&world).await;
        assert!(problems.iter().any(|text| text.contains(reason)), "{tables}: {problems:#?}");
    }
}

#[tokio::test]
async fn a_key_with_a_unique_part_is_accepted() {
    let table = "CREATE TABLE t (id int NOT NULL, other int NOT NULL)";
    for (tables, key) in [
        (format!("{table}; ALTER TABLE t REPLICA IDENTITY FULL; CREATE UNIQUE INDEX ON t (id)"), &["id", "other"][..]),
        (format!("{table}; CREATE UNIQUE INDEX i ON t (id, other); ALTER TABLE t REPLICA IDENTITY USING INDEX i"), &["id", "other"]),
        (
            format!(
                "{table} PARTITION BY LIST (other); CREATE TABLE t1 PARTITION OF t DEFAULT; CREATE UNIQUE INDEX i ON t1 (id); \
                 ALTER TABLE t1 REPLICA IDENTITY FULL"
            ),
            &["id", "other"],
        ),
    ] {
        let world = World::new(&tables, vec![feed("t", key)]);
        assert_eq!(problems(&world).await, [""; 0], "{tables}");
    }
}

#[tokio::test]
async fn a_not_null_constraint_that_is_not_valid_leaves_a_key_nullable() {
    let world = World::of_version(
        "18",
        &[],
        "CREATE TABLE t (id int UNIQUE, note text); INSERT INTO t VALUES (NULL, 'a'), (NULL, 'b'); ALTER TABLE t ADD NOT NULL id NOT VALID; \
         ALTER TABLE t REPLICA IDENTITY FULL",
        vec![feed("t", &["id"])],
    );
    assert_found(&problems(&world).await, &["its key column \"id\" may be null"]);
    world.sql("DELETE FROM t");
    repair(&world).await;
}

#[tokio::test]
async fn later_partitions_are_warned_of_and_named_once_they_exist() {
    let tables = "CREATE TABLE t (id int NOT NULL, note text) PARTITION BY RANGE (id); CREATE UNIQUE INDEX ON t (id); \
                  CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (10); ALTER TABLE t_low REPLICA IDENTITY FULL";
    let world = World::new(tables, vec![feed("t", &["id"])]);
    assert_eq!(problems(&world).await, [""; 0]);
    let is_warned = async || {
        let warnings = world.connector().preflight().await.unwrap().warnings;
        warnings.iter().any(|warning| warning.code == Code::TableKeyless && warning.message.contains("later partitions"))
    };
    assert!(is_warned().await);
    world.sql("CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (10) TO (20)");
    assert_found(&problems(&world).await, &["partition \"public\".\"t_high\" has no replica identity"]);
    repair(&world).await;
    world.sql("ALTER TABLE t ADD PRIMARY KEY (id)");
    assert!(!is_warned().await);
}

#[tokio::test]
async fn the_documented_trigger_gives_later_partitions_an_identity() {
    let document = include_str!("../../../docs/postgres.md");
    let trigger = document.split("```sql\n").find(|block| block.contains("event_trigger")).unwrap().split("```").next().unwrap();
    let tables = "CREATE TABLE t (id int NOT NULL, note text) PARTITION BY RANGE (id); CREATE UNIQUE INDEX ON t (id)";
    let world = World::new(tables, vec![feed("t", &["id"])]);
    world.sql(trigger);
    world.begin().await;
    world.sql(LEAVES);
    world.sql("CREATE TABLE t_more (id int NOT NULL, note text); ALTER TABLE t ATTACH PARTITION t_more FOR VALUES FROM (20) TO (30)");
    world.sql(ON_LEAVES);
    world.sql("INSERT INTO t VALUES (21, 'a'); UPDATE t SET note = 'b'");
    assert_eq!(problems(&world).await, [""; 0]);
}

#[tokio::test]
async fn a_primary_key_without_overlaps_needs_another_unique_index() {
    let world = World::of_version(
        "18",
        &[],
        "CREATE EXTENSION IF NOT EXISTS btree_gist; CREATE TABLE t (id int, during daterange, note text, PRIMARY KEY (id, during WITHOUT OVERLAPS))",
        vec![feed("t", &["id", "during"])],
    );
    assert_found(&problems(&world).await, &["allows equal values", "CREATE UNIQUE INDEX"]);
    repair(&world).await;
    let mut reader = world.begin().await;
    world.sql("INSERT INTO t VALUES (1, '[2026-01-01,2026-02-01)', 'a'); UPDATE t SET note = 'b'; DELETE FROM t");
    for sent in reader.take(3).await {
        assert_eq!(sent.key, r#"{"id":1,"during":"[2026-01-01,2026-02-01)"}"#);
    }
}
