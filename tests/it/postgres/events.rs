//! The events that changes produce.

use super::world::{World, feed, shorts};
use feedline::checkpoint::FeedState;
use feedline::event::Operations;
use serde_json::json;

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric(8,2))";

#[tokio::test]
async fn a_transaction_names_its_events_and_ends_once() {
    let world = World::new(ORDERS, vec![feed("orders", &["id"])]);
    let mut reader = world.begin().await;
    world.sql("BEGIN; INSERT INTO orders VALUES (1, 'new', 10.5), (2, 'new', NULL); UPDATE orders SET status = 'paid' WHERE id = 1; DELETE FROM orders WHERE id = 2; COMMIT");
    let sent = reader.take(4).await;
    assert_eq!(shorts(&sent), [r#"insert {"id":1} 0"#, r#"insert {"id":2} 1"#, r#"update {"id":1} 2"#, r#"delete {"id":2} 3!"#]);
    let update = sent[2].event();
    assert_eq!(update["after"], json!({"id": 1, "status": "paid", "total": "10.50"}));
    assert_eq!(update["before"], json!(null));
    assert_eq!(sent[3].event()["after"], json!(null));
    let position = update["source"]["position"].as_str().unwrap();
    assert_eq!(sent[2].id, format!("shop/{position}"));
    assert_eq!((position.len(), &position[..9], &position[25..]), (44, "00000001-", "-1-0000000000000020"));
    assert!(sent.iter().map(|sent| &sent.id).is_sorted());
    let xid = world.sql("SELECT xmin FROM orders WHERE id = 1");
    assert_eq!(update["source"]["transaction"], json!(xid));
}

#[tokio::test]
async fn changes_that_are_rolled_back_are_not_published() {
    let world = World::alone(&[("max_prepared_transactions", "4")], ORDERS, vec![feed("orders", &["id"])]);
    let mut reader = world.begin().await;
    world.sql(
        "BEGIN; INSERT INTO orders VALUES (1, 'kept'); SAVEPOINT a; INSERT INTO orders VALUES (2, 'undone'); SAVEPOINT b; \
         UPDATE orders SET status = 'undone'; ROLLBACK TO a; INSERT INTO orders VALUES (3, 'kept'); RELEASE a; COMMIT",
    );
    world.sql("BEGIN; INSERT INTO orders VALUES (4, 'undone'); ROLLBACK");
    // Two-phase commit: events come once, at the position of COMMIT PREPARED.
    world.sql("BEGIN; INSERT INTO orders VALUES (5, 'two'); PREPARE TRANSACTION 'kept'");
    world.sql("BEGIN; INSERT INTO orders VALUES (6, 'undone'); PREPARE TRANSACTION 'undone'");
    world.sql("INSERT INTO orders VALUES (7, 'between')");
    world.sql("ROLLBACK PREPARED 'undone'");
    world.sql("COMMIT PREPARED 'kept'");
    world.sql("INSERT INTO orders VALUES (8, 'after')");
    let sent = reader.take(5).await;
    let expected =
        [r#"insert {"id":1} 0"#, r#"insert {"id":3} 1!"#, r#"insert {"id":7} 0!"#, r#"insert {"id":5} 0!"#, r#"insert {"id":8} 0!"#];
    assert_eq!(shorts(&sent), expected);
    assert!(sent.iter().map(|sent| &sent.id).is_sorted());
}

#[tokio::test]
async fn a_changed_key_is_a_delete_and_an_insert_under_the_mask_of_update() {
    let mut orders = feed("orders", &["id"]);
    orders.operations = Operations::from_bits(4).unwrap();
    let world = World::new(ORDERS, vec![orders]);
    let mut reader = world.begin().await;
    world.sql("INSERT INTO orders VALUES (1, 'a', 1)");
    world.sql("UPDATE orders SET id = 9");
    let sent = reader.take(2).await;
    assert_eq!(shorts(&sent), [r#"delete {"id":1} 0"#, r#"insert {"id":9} 1!"#]);
    assert_eq!(sent[0].related.as_deref(), Some(r#"{"id":9}"#));
    assert_eq!(sent[1].related.as_deref(), Some(r#"{"id":1}"#));
    assert!(sent[0].id.ends_with("0000000000000000") && sent[1].id.ends_with("0000000000000001"));
    assert_eq!(sent[1].event()["after"], json!({"id": 9, "status": "a", "total": "1.00"}));
}

#[tokio::test]
async fn a_value_that_is_missing_in_the_log_is_listed_as_unchanged_and_never_null() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, n int, note text); ALTER TABLE notes ALTER note SET STORAGE EXTERNAL;\
                  CREATE TABLE whole (id int PRIMARY KEY, n int, note text); ALTER TABLE whole ALTER note SET STORAGE EXTERNAL;\
                  ALTER TABLE whole REPLICA IDENTITY FULL;\
                  INSERT INTO notes SELECT 1, 1, repeat('x', 9000); INSERT INTO whole SELECT * FROM notes";
    let world = World::new(tables, vec![feed("notes", &["id"]), feed("whole", &["id"])]);
    let mut reader = world.begin().await;
    world.sql("UPDATE notes SET n = 2; UPDATE whole SET n = 2; UPDATE notes SET id = 5; UPDATE whole SET id = 5; DELETE FROM whole");
    let sent = reader.take(7).await;
    let event = sent[0].event();
    assert_eq!(event["after"], json!({"id": 1, "n": 2}));
    assert_eq!(event["unchanged"], json!(["note"]));
    let note = "x".repeat(9000);
    let event = sent[1].event();
    assert_eq!(event["after"], json!({"id": 1, "n": 2, "note": note}));
    assert_eq!(event["before"], json!({"id": 1, "n": 1, "note": note}));
    assert_eq!(event.get("unchanged"), None);
    // The insert of a changed key: without FULL, a reader takes the note from the row with the old key.
    assert_eq!(sent[3].event()["unchanged"], json!(["note"]));
    assert_eq!(sent[5].event()["after"]["note"], json!(note));
    let event = sent[6].event();
    assert_eq!((&event["op"], &event["before"]["note"]), (&json!("delete"), &json!(note)));
}

#[tokio::test]
async fn with_an_index_as_identity_old_rows_have_its_columns() {
    let tables = "CREATE TABLE seats (id int NOT NULL UNIQUE, hall int NOT NULL, taken bool);\
                  CREATE UNIQUE INDEX seats_place ON seats (hall, id); ALTER TABLE seats REPLICA IDENTITY USING INDEX seats_place";
    let world = World::new(tables, vec![feed("seats", &["id"])]);
    let mut reader = world.begin().await;
    world.sql("INSERT INTO seats VALUES (1, 7, false); UPDATE seats SET hall = 8; DELETE FROM seats");
    let sent = reader.take(3).await;
    assert_eq!(sent[1].event()["before"], json!({"id": 1, "hall": 7}));
    assert_eq!(sent[2].event()["before"], json!({"id": 1, "hall": 8}));
}

#[tokio::test]
async fn a_truncate_is_an_event_of_each_table_in_order() {
    let tables = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)";
    let world = World::new(tables, vec![feed("a", &["id"]), feed("b", &["id"])]);
    let mut reader = world.begin().await;
    world.sql("BEGIN; INSERT INTO a VALUES (1); TRUNCATE a, b; INSERT INTO b VALUES (1); COMMIT");
    let sent = reader.take(4).await;
    assert_eq!(shorts(&sent), [r#"insert {"id":1} 0"#, "truncate null 1", "truncate null 2", r#"insert {"id":1} 3!"#]);
    assert_eq!([1, 2].map(|index: usize| sent[index].event()["table"].clone()), ["a", "b"]);
    assert!(sent[3].id.ends_with("-1-0000000000000030"));
}

#[tokio::test]
async fn changed_table_definitions_are_followed() {
    let world = World::new("CREATE TABLE t (id int PRIMARY KEY, a text, b int)", vec![feed("t", &["id"])]);
    let mut reader = world.begin().await;
    world.sql("INSERT INTO t VALUES (1, 'x', 1)");
    world.sql("ALTER TABLE t ADD c date; UPDATE t SET c = '2026-11-23'");
    world.sql("ALTER TABLE t DROP a; ALTER TABLE t RENAME b TO beta; INSERT INTO t VALUES (2, 7, NULL)");
    world.sql("ALTER TABLE t ALTER beta TYPE text; INSERT INTO t VALUES (3, 'seven', NULL)");
    let sent = reader.take(4).await;
    let after: Vec<_> = sent.iter().map(|sent| serde_json::to_string(&sent.event()["after"]).unwrap()).collect();
    assert!(sent[1].body.as_deref().unwrap().contains(r#""after":{"id":1,"a":"x","b":1,"c":"2026-11-23"}"#), "{after:?}");
    assert!(sent[2].body.as_deref().unwrap().contains(r#""after":{"id":2,"beta":7,"c":null}"#), "{after:?}");
    assert!(sent[3].body.as_deref().unwrap().contains(r#""after":{"id":3,"beta":"seven","c":null}"#), "{after:?}");
    assert_eq!(world.metrics.source.schema_changes.get(), 3);
}

#[tokio::test]
async fn a_pending_feed_publishes_nothing_before_its_start() {
    let tables = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)";
    let world = World::new(tables, vec![feed("a", &["id"]), feed("b", &["id"])]);
    let (identity, token) = world.establish().await;
    let mut resume = world.resume(&token, &token);
    resume.feeds[1] = FeedState::Pending;
    let log = world.connect(&identity, &resume).await.unwrap();
    let mut reader = super::world::Reader::of(log, &token, 1 << 20);
    world.sql("BEGIN; INSERT INTO b VALUES (1); INSERT INTO a VALUES (1); COMMIT");
    let sent = reader.take(1).await;
    // The position counts rows on the wire, the index counts published events.
    assert_eq!(shorts(&sent), [r#"insert {"id":1} 0!"#]);
    assert!(sent[0].id.ends_with("-1-0000000000000010"));
    let here = reader.log.token();
    reader.log.start(feedline::event::FeedId(1), &here);
    world.sql("INSERT INTO b VALUES (2)");
    assert_eq!(shorts(&reader.take(1).await), [r#"insert {"id":2} 0!"#]);
}

#[tokio::test]
async fn changes_of_partitions_come_under_the_name_of_the_partitioned_table() {
    let tables = "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);\
                  CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (10) TO (20)";
    let world = World::new(tables, vec![feed("p", &["id"])]);
    let catalogue = feedline::source::SourceConnector::catalogue(&mut world.connector()).await.unwrap();
    assert_eq!(catalogue.tables.iter().map(|table| &*table.name).collect::<Vec<_>>(), ["p"]);
    assert_eq!(catalogue.tables[0].primary_key, ["id".into()]);
    let mut reader = world.begin().await;
    world.sql("INSERT INTO p VALUES (1), (11)");
    let sent = reader.take(2).await;
    assert!(sent.iter().all(|sent| sent.event()["table"] == "p"));
}
