//! Old rows in events: which columns they have depends on the replica identity that the row's own partition had at that time.

use super::growing::Pipeline;
use super::world::{Reader, TIMEOUT, World, feed};
use crate::servers::port::wait_for;
use feedline::fault::{Classify, Code, Fault};
use feedline::source::postgres::Error;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ROOT: &str = "CREATE TABLE p (id int PRIMARY KEY, hall int NOT NULL, note text, big text) PARTITION BY RANGE (id); \
                    ALTER TABLE p ALTER big SET STORAGE EXTERNAL; CREATE UNIQUE INDEX p_hall ON p (id, hall)";

/// A partition whose columns are in another order than its root's.
fn leaf(name: &str, from: u32) -> String {
    format!(
        "CREATE TABLE {name} (big text, note text, gone int, hall int NOT NULL, id int PRIMARY KEY); ALTER TABLE {name} DROP gone; \
         ALTER TABLE {name} ALTER big SET STORAGE EXTERNAL; ALTER TABLE p ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({})",
        from + 10
    )
}

/// The statement that gives a table this replica identity.
fn identify(table: &str, identity: &str) -> String {
    let index = if table == "p" { "p_hall".to_owned() } else { format!("{table}_id_hall_idx") };
    let setting = if identity == "INDEX" { format!("USING INDEX {index}") } else { identity.to_owned() };
    format!("ALTER TABLE {table} REPLICA IDENTITY {setting}")
}

fn big() -> String {
    "0123456789".repeat(400)
}

/// Statements for the row `id`, and the expected events if its partition has this replica identity.
fn life(id: u32, identity: &str) -> (String, Vec<Value>) {
    let next = id + 1;
    let sql = format!(
        "INSERT INTO p VALUES ({id}, 1, NULL, '{0}'); UPDATE p SET note = 'x' WHERE id = {id}; UPDATE p SET hall = 2, note = NULL WHERE id = {id}; \
         UPDATE p SET id = {next} WHERE id = {id}; DELETE FROM p WHERE id = {next}",
        big()
    );
    let row = |id: u32, hall: u32, note: Value| json!({"id": id, "hall": hall, "note": note, "big": big()});
    // Big values are stored out of line.
    let slim = |id: u32, hall: u32, note: Value| json!({"id": id, "hall": hall, "note": note});
    let before = |whole: Value, id: u32, hall: Option<u32>| match identity {
        "FULL" => whole,
        "INDEX" => hall.map_or(Value::Null, |hall| json!({"id": id, "hall": hall})),
        _ => Value::Null,
    };
    let after = |id, hall, note: Value| if identity == "FULL" { row(id, hall, note) } else { slim(id, hall, note) };
    let unchanged = if identity == "FULL" { Value::Null } else { json!(["big"]) };
    let event = |op: &str, key: u32, before: Value, after: Value, unchanged: &Value| json!([op, {"id": key}, before, after, unchanged]);
    let null = Value::Null;
    let x = || json!("x");
    let events = vec![
        event("insert", id, null.clone(), row(id, 1, null.clone()), &null),
        event("update", id, before(row(id, 1, null.clone()), id, None), after(id, 1, x()), &unchanged),
        event("update", id, before(row(id, 1, x()), id, Some(1)), after(id, 2, null.clone()), &unchanged),
        event("delete", id, before(row(id, 2, null.clone()), id, Some(2)), null.clone(), &null),
        event("insert", next, null.clone(), after(next, 2, null.clone()), &unchanged),
        event("delete", next, before(row(next, 2, null.clone()), next, Some(2)), null.clone(), &null),
    ];
    (sql, events)
}

async fn assert_life(reader: &mut Reader, world: &World, id: u32, identity: &str, case: &str) {
    let (sql, expected) = life(id, identity);
    // Each statement in a transaction of its own.
    for statement in sql.split("; ") {
        world.sql(statement);
    }
    let sent: Vec<_> = reader.take(expected.len()).await.iter().map(super::world::Sent::event).collect();
    let seen: Vec<_> = sent.iter().map(|e| json!([e["op"], e["key"], e["before"], e["after"], e["unchanged"]])).collect();
    for (seen, expected) in seen.iter().zip(&expected) {
        assert_eq!(seen, expected, "{case}");
    }
}

#[tokio::test]
async fn the_identity_of_a_partition_decides_not_that_of_its_root() {
    let world = World::new(&format!("{ROOT}; {}", leaf("p_low", 0)), vec![feed("p", &["id"])]);
    let mut reader = world.begin().await;
    for root in ["DEFAULT", "FULL", "INDEX", "NOTHING"] {
        for of_leaf in ["DEFAULT", "FULL", "INDEX"] {
            world.sql(&identify("p", root));
            world.sql(&identify("p_low", of_leaf));
            assert_life(&mut reader, &world, 1, of_leaf, &format!("root {root}, partition {of_leaf}")).await;
        }
    }
}

#[tokio::test]
async fn with_different_identities_of_partitions_no_unknown_value_is_published() {
    let world = World::new(&format!("{ROOT}; {}; {}", leaf("p_low", 0), leaf("p_high", 10)), vec![feed("p", &["id"])]);
    world.sql(&format!("{}; {}", identify("p", "FULL"), identify("p_high", "FULL")));
    let mut reader = world.begin().await;
    assert_life(&mut reader, &world, 11, "FULL", "the partition with FULL alone").await;
    assert_life(&mut reader, &world, 1, "DEFAULT", "the other one").await;
    assert_life(&mut reader, &world, 11, "FULL", "the partition with FULL after the other one").await;
    world.sql("INSERT INTO p VALUES (12, 1, NULL, NULL)");
    world.sql("UPDATE p SET note = 'y' WHERE id = 12");
    let sent = reader.take(2).await;
    assert_eq!(sent[1].event()["before"], json!({"id": 12, "hall": 1, "note": null, "big": null}));
    // The log shows a changed identity of a partition before its rows.
    world.sql(&identify("p_low", "FULL"));
    assert_life(&mut reader, &world, 1, "FULL", "the other one, changed").await;
    // A partition that is created later has the primary key.
    world.sql("CREATE TABLE p_more PARTITION OF p FOR VALUES FROM (20) TO (30)");
    assert_life(&mut reader, &world, 21, "DEFAULT", "the new one").await;
    assert_life(&mut reader, &world, 1, "FULL", "another one after it").await;
}

#[tokio::test]
async fn a_plain_tables_identity_may_change_between_two_rows() {
    let table = ROOT.replace(" PARTITION BY RANGE (id)", "").replace("p_hall", "p_id_hall_idx");
    let world = World::new(&table, vec![feed("p", &["id"])]);
    let mut reader = world.begin().await;
    for identity in ["FULL", "DEFAULT", "INDEX", "FULL", "INDEX", "DEFAULT"] {
        world.sql(&identify("p", identity).replace("p_hall", "p_id_hall_idx"));
        assert_life(&mut reader, &world, 1, identity, identity).await;
    }
    // Also within one transaction.
    world.sql(
        "BEGIN; INSERT INTO p VALUES (5, 1); UPDATE p SET note = 'a'; ALTER TABLE p REPLICA IDENTITY FULL; UPDATE p SET note = 'b'; \
         ALTER TABLE p REPLICA IDENTITY DEFAULT; UPDATE p SET note = 'c'; COMMIT",
    );
    let before: Vec<_> = reader.take(4).await.iter().map(|sent| sent.event()["before"].clone()).collect();
    assert_eq!(before, [json!(null), json!(null), json!({"id": 5, "hall": 1, "note": "a", "big": null}), json!(null)]);
}

#[tokio::test]
async fn a_row_whose_key_is_not_in_the_log_is_a_gap_of_that_table_only() {
    let plain = "CREATE TABLE p (id int PRIMARY KEY, hall int NOT NULL UNIQUE, note text)";
    let partitioned = "CREATE TABLE p (id int PRIMARY KEY, hall int NOT NULL, note text) PARTITION BY RANGE (id); \
                       CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE UNIQUE INDEX p_hall_key ON p_low (hall)";
    for (tables, leaf) in [(plain, "p"), (partitioned, "p_low")] {
        for change in ["UPDATE p SET id = 2 WHERE id = 1", "UPDATE p SET hall = 2 WHERE id = 1", "DELETE FROM p"] {
            let world = World::new(tables, vec![feed("p", &["id"])]);
            world.sql("INSERT INTO p VALUES (1, 1)");
            let mut reader = world.begin().await;
            world.sql(&format!("ALTER TABLE {leaf} REPLICA IDENTITY USING INDEX p_hall_key"));
            world.sql("INSERT INTO p VALUES (3, 3)");
            assert_eq!(reader.take(1).await[0].key, r#"{"id":3}"#, "an insert has its key");
            world.sql(change);
            let error = reader.failure().await.1;
            assert_eq!((error.code(), error.fault()), (Code::SourceLogLost, Fault::Gap), "{error}");
            let Error::KeyUnknown { remedy, .. } = &error else { panic!("{error}") };
            assert_eq!(remedy, &format!("ALTER TABLE \"public\".\"{leaf}\" REPLICA IDENTITY FULL"));
            world.verify().await.unwrap_err();
            world.sql(remedy);
            world.verify().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_key_that_is_no_longer_unique_ends_the_run_when_the_log_shows_it() {
    let world = World::new("CREATE TABLE t (id int PRIMARY KEY, other int NOT NULL)", vec![feed("t", &["id"])]);
    let mut reader = world.begin().await;
    world.sql("INSERT INTO t VALUES (1, 1)");
    reader.take(1).await;
    let token = reader.log.token();
    reader.log.acknowledge(Some(&token)).await.unwrap();
    world.sql("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, other)");
    world.sql("INSERT INTO t VALUES (1, 2)");
    reader.take(1).await;
    let error = reader.log.acknowledge(Some(&token)).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::TableKeyless, Fault::Fatal), "{error}");
    assert!(error.to_string().contains("its primary key is (\"id\", \"other\")"), "{error}");
}

const FEEDS: &str = "[[feeds]]\ntables = [\"kept\", \"p\"]";
const TABLES: &str = "CREATE TABLE kept (id int PRIMARY KEY, hall int); CREATE TABLE p (id int PRIMARY KEY, hall int NOT NULL) PARTITION BY RANGE (id); \
                      CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (1000); CREATE UNIQUE INDEX p_low_hall ON p_low (hall); \
                      INSERT INTO kept VALUES (1, 1); INSERT INTO p SELECT i, i FROM generate_series(1, 20) AS i";

/// The rows of a table that a reader which obeys resets has, by key.
fn folded(pipeline: &Pipeline, table: &str) -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    for event in pipeline.events().iter().filter(|event| event["table"] == table) {
        match event["op"].as_str().unwrap() {
            "reset" => rows.clear(),
            "delete" => drop(rows.remove(&event["key"].to_string())),
            _ => drop(rows.insert(event["key"].to_string(), event["after"].clone())),
        }
    }
    rows
}

/// The rows of the table, by these key columns.
fn actual(pipeline: &Pipeline, table: &str, key: &[&str]) -> BTreeMap<String, Value> {
    let text = pipeline.postgres.psql(&pipeline.database, &format!("SELECT row_to_json(t) FROM {table} AS t"));
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| {
        let key: serde_json::Map<_, _> = key.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect();
        (Value::Object(key).to_string(), row)
    })
    .collect()
}

#[track_caller]
fn agree(pipeline: &Pipeline, table: &str, key: &[&str]) {
    wait_for("the reader's rows are the table's", TIMEOUT * 2, || (folded(pipeline, table) == actual(pipeline, table, key)).then_some(()));
}

fn resets(pipeline: &Pipeline) -> Vec<String> {
    pipeline.briefly().into_iter().filter(|brief| brief.starts_with("reset")).collect()
}

#[test]
fn only_the_table_whose_keys_are_not_known_is_read_again() {
    let pipeline = Pipeline::new("unkeyed", TABLES);
    let sql = |statements: &str| drop(pipeline.postgres.psql(&pipeline.database, statements));
    let mut feedline = pipeline.feedline_with("", FEEDS);
    sql("ALTER TABLE p_low REPLICA IDENTITY USING INDEX p_low_hall");
    sql("UPDATE p SET id = id + 100 WHERE id <= 10; INSERT INTO kept VALUES (2, 2); DELETE FROM p WHERE id = 20");
    let (status, output) = feedline.wait_for_end();
    assert_eq!(status, Some(70), "{output}");
    assert!(output.contains("FL2008") && output.contains("ALTER TABLE \\\"public\\\".\\\"p_low\\\" REPLICA IDENTITY FULL"), "{output}");
    // A start before the remedy is refused: the table would have to be read again and again.
    let (status, output) = pipeline.ended("on_gap = \"prefeed\"", FEEDS);
    assert_eq!(status, Some(71), "{output}");
    assert!(output.contains("FL2009"), "{output}");
    sql("ALTER TABLE p_low REPLICA IDENTITY FULL");
    let mut feedline = pipeline.feedline_with("on_gap = \"prefeed\"", FEEDS);
    sql("UPDATE p SET id = id + 200 WHERE id < 15; INSERT INTO kept VALUES (3, 3)");
    agree(&pipeline, "p", &["id"]);
    agree(&pipeline, "kept", &["id"]);
    assert_eq!(resets(&pipeline), ["reset p null"]);
    feedline.stop();
}

#[test]
fn a_table_with_a_new_primary_key_is_read_again_once_that_is_accepted() {
    let pipeline = Pipeline::new("rekeyed", "CREATE TABLE t (id int PRIMARY KEY, other int NOT NULL); INSERT INTO t VALUES (1, 1), (2, 2)");
    let feeds = "[[feeds]]\ntables = [\"t\"]";
    let sql = |statements: &str| drop(pipeline.postgres.psql(&pipeline.database, statements));
    pipeline.feedline_with("", feeds).stop();
    sql(
        "UPDATE t SET id = 3 WHERE id = 2; ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, other); INSERT INTO t VALUES (1, 2); DELETE FROM t WHERE id = 3",
    );
    let (status, output) = pipeline.ended("", feeds);
    assert_eq!(status, Some(2), "{output}");
    assert!(output.contains("FL4101") && output.contains("--accept-config-change"), "{output}");
    let mut feedline = pipeline.feedline_accepting(feeds);
    sql("INSERT INTO t VALUES (1, 3); DELETE FROM t WHERE other = 1");
    agree(&pipeline, "t", &["id", "other"]);
    assert_eq!(resets(&pipeline), ["reset t null"]);
    feedline.stop();
}

#[test]
fn a_renamed_key_column_is_followed_once_that_is_accepted() {
    let pipeline = Pipeline::new("renamed", "CREATE TABLE t (id int PRIMARY KEY, other int NOT NULL); INSERT INTO t VALUES (1, 1), (2, 2)");
    let feeds = "[[feeds]]\ntables = [\"t\"]";
    let sql = |statements: &str| drop(pipeline.postgres.psql(&pipeline.database, statements));
    let mut feedline = pipeline.feedline_with("", feeds);
    sql("ALTER TABLE t RENAME id TO number");
    sql("INSERT INTO t VALUES (3, 3); DELETE FROM t WHERE number = 1");
    let (status, output) = feedline.wait_for_end();
    assert_eq!(status, Some(71), "{output}");
    assert!(output.contains("FL2012") || output.contains("FL2009"), "{output}");
    let mut feedline = pipeline.feedline_accepting(feeds);
    sql("INSERT INTO t VALUES (4, 4)");
    agree(&pipeline, "t", &["number"]);
    feedline.stop();
}
