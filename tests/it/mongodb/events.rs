//! What the events of a change stream become.

use super::world::World;
use crate::contract_source::{Taken, head};
use feedline::source::mongodb::Image;
use serde_json::{Value, json};

fn briefs(taken: &[Taken]) -> Vec<String> {
    taken.iter().map(Taken::brief).collect()
}

#[tokio::test]
async fn each_change_is_an_event_with_its_document() {
    let world = World::new(&["t"]);
    let mut following = world.follow().await;
    let mut stream = following.stream().await;
    // Each is read before the next is written: SecantusDB stores no images, it looks the document up.
    world.insert("t", &[json!({"_id": 1, "a": 1, "b": {"c": [1, 2]}})]);
    let mut taken = stream.take(1).await;
    world.update("t", &json!(1), &json!({"$set": {"b.c.1": 7}, "$unset": {"a": ""}}));
    taken.extend(stream.take(1).await);
    world.update("t", &json!(1), &json!({"x": null}));
    world.delete("t", &json!(1));
    taken.extend(stream.take(2).await);
    assert_eq!(briefs(&taken), ["insert {\"_id\":1}", "update {\"_id\":1}", "update {\"_id\":1}", "delete {\"_id\":1}"]);
    assert_eq!(taken[0].field("after"), json!({"_id": 1, "a": 1, "b": {"c": [1, 2]}}));
    assert_eq!(taken[1].field("after"), json!({"_id": 1, "b": {"c": [1, 7]}}), "the document as the change left it");
    assert_eq!(taken[1].field("unchanged"), Value::Null);
    assert_eq!(taken[2].field("after"), json!({"_id": 1, "x": null}));
    assert_eq!((taken[3].field("after"), taken[3].field("before")), (Value::Null, Value::Null));
    assert!(taken.iter().all(|taken| taken.field("source")["transaction"].is_null() && taken.field("source")["committed_at"].is_string()));
}

#[tokio::test]
async fn an_update_without_its_document_says_what_it_does_not_know() {
    let mut world = World::new(&["t"]);
    world.options.full_document = Image::Off;
    let mut following = world.follow().await;
    world.insert("t", &[json!({"_id": 1, "a": 1, "b": {"c": 1}, "d": 4})]);
    world.update("t", &json!(1), &json!({"$set": {"a": 2, "b.c": 3}, "$unset": {"d": ""}}));
    let taken = following.stream().await.take(2).await;
    let after = taken[1].field("after");
    assert_eq!((&after["_id"], &after["a"], &after["b"]), (&json!(1), &json!(2), &Value::Null));
    assert_eq!(after["$update"]["updatedFields"]["b.c"], json!(3));
    assert_eq!(after["$update"]["removedFields"], json!(["d"]));
    assert_eq!(taken[1].field("unchanged"), json!(["*"]));
}

#[tokio::test]
async fn pre_images_tell_what_was_there_before() {
    let mut world = World::new(&["t"]);
    world.options.pre_images = Image::WhenAvailable;
    let mut following = world.follow().await;
    world.insert("t", &[json!({"_id": 1, "a": 1})]);
    world.update("t", &json!(1), &json!({"$set": {"a": 2}}));
    world.delete("t", &json!(1));
    let taken = following.stream().await.take(3).await;
    assert_eq!(taken[1].field("before"), json!({"_id": 1, "a": 1}));
    assert_eq!(taken[2].field("before"), json!({"_id": 1, "a": 2}));
}

#[tokio::test]
async fn the_events_of_a_transaction_name_it() {
    let world = World::new(&["t", "u"]);
    let mut following = world.follow().await;
    let insert = |collection: &str, id: u32| json!({"insert": collection, "documents": [{"_id": id}]});
    world.server.transaction(&world.database, &[insert("t", 1), insert("u", 2), insert("t", 3)]);
    world.insert("t", &[json!({"_id": 4})]);
    let taken = following.stream().await.take(4).await;
    let source = |taken: &Taken| taken.field("source");
    let indexes: Vec<_> = taken.iter().map(|taken| (source(taken)["index"].clone(), source(taken)["last"].clone())).collect();
    let expected = [(json!(0), json!(false)), (json!(1), json!(false)), (json!(2), json!(true)), (Value::Null, Value::Null)];
    assert_eq!(indexes, expected);
    let names: Vec<_> = taken[..3].iter().map(|taken| source(taken)["transaction"].clone()).collect();
    assert!(names[0].is_string() && names.iter().all(|name| *name == names[0]), "{names:?}");
    assert!(taken.windows(2).all(|pair| pair[0].id < pair[1].id));
}

#[tokio::test]
async fn the_last_event_of_a_transaction_does_not_wait_for_the_next_change() {
    let world = World::new(&["t"]);
    let mut following = world.follow().await;
    let mut stream = following.stream().await;
    let insert = |id: u32| json!({"insert": "t", "documents": [{"_id": id}]});
    world.server.transaction(&world.database, &[insert(1), insert(2)]);
    let taken = stream.take(2).await;
    assert_eq!(taken[1].field("source")["last"], json!(true));
}

#[tokio::test]
async fn a_collection_that_is_dropped_or_renamed_is_empty_for_readers() {
    let world = World::new(&["t", "u"]);
    let mut following = world.follow().await;
    world.insert("t", &[json!({"_id": 1})]);
    world.run(&json!({"drop": "t"}));
    world.insert("t", &[json!({"_id": 2})]);
    let name = |collection: &str| format!("{}.{collection}", world.database);
    world.server.run("admin", &json!({"renameCollection": name("u"), "to": name("v")}));
    let mut stream = following.stream().await;
    let taken = stream.take(4).await;
    let operations: Vec<_> = taken.iter().map(|taken| (taken.operation.name(), taken.feed.index())).collect();
    assert_eq!(operations, [("insert", 0), ("truncate", 0), ("insert", 0), ("truncate", 1)]);
}

#[tokio::test]
async fn a_collection_that_another_one_was_renamed_to_is_read_again() {
    let world = World::new(&["t"]);
    let mut following = world.follow().await;
    world.insert("other", &[json!({"_id": 1})]);
    let name = |collection: &str| format!("{}.{collection}", world.database);
    world.server.run("admin", &json!({"renameCollection": name("other"), "to": name("t"), "dropTarget": true}));
    let end = head(&mut following.connector).await;
    let mut stream = following.stream().await;
    drop(stream.batches(&end).await);
    let changes = stream.source.table_changes();
    assert!(changes.iter().any(|change| change.reread.as_ref().is_some_and(|reread| reread.reset)), "{changes:?}");
}

#[tokio::test]
async fn the_stream_goes_on_behind_a_database_that_was_dropped() {
    let world = World::new(&["t"]);
    let mut following = world.follow().await;
    world.insert("t", &[json!({"_id": 1})]);
    world.run(&json!({"dropDatabase": 1}));
    let mut stream = following.stream().await;
    let (taken, error) = stream.failure().await;
    assert_eq!(taken.iter().map(|taken| taken.operation.name()).collect::<Vec<_>>(), ["insert", "truncate"]);
    assert!(error.to_string().contains("is opened again"), "{error}");
    world.insert("t", &[json!({"_id": 2})]);
    let reached = stream.source.token();
    drop(stream);
    assert_eq!(briefs(&following.at(&reached).await.unwrap().take(1).await), ["insert {\"_id\":2}"]);
}

#[tokio::test]
async fn a_large_event_comes_in_parts_and_is_one() {
    let mut world = World::new(&["t"]);
    world.options.pre_images = Image::WhenAvailable;
    let mut following = world.follow().await;
    let large = "x".repeat(9 << 20);
    world.insert("t", &[json!({"_id": 1, "a": large, "n": 1})]);
    world.update("t", &json!(1), &json!({"$set": {"n": 2}}));
    world.insert("t", &[json!({"_id": 2})]);
    let end = head(&mut following.connector).await;
    let taken: Vec<_> = following.stream().await.batches(&end).await.into_iter().flat_map(|batch| batch.records).collect();
    assert_eq!((taken[1].field("before")["n"].clone(), taken[1].field("after")["n"].clone()), (json!(1), json!(2)));
    assert_eq!(taken[1].field("after")["a"].as_str().map(str::len), Some(9 << 20));
    assert_eq!(briefs(&taken[2..]), ["insert {\"_id\":2}"]);
}

#[tokio::test]
async fn changes_of_other_collections_move_the_position_alone() {
    let world = World::new(&["t"]);
    let mut following = world.follow().await;
    let mut stream = following.stream().await;
    world.insert("other", &[json!({"_id": 1})]);
    let before = stream.source.token();
    let end = head(&mut following.connector).await;
    assert!(stream.batches(&end).await.iter().all(|batch| batch.records.is_empty()));
    assert_ne!(stream.source.token(), before);
}
