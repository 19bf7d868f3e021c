//! Values of each type, in rows and in events; and documents that no client should have written.

use super::world::World;
use crate::contract_source::scan_all;
use feedline::event::FeedId;
use feedline::source::mongodb::Spelling;
use serde_json::{Value, json};

/// A document with a value of each type, and what it becomes.
fn all() -> (Value, Value) {
    let document = json!({
        "_id": {"$oid": "656800000000000000000001"}, "array": [1, "x", null], "bool": true,
        "code": {"$raw": [0x0D, "0400000066282900"]}, "date": {"$date": {"$numberLong": "1356351330501"}},
        "decimal": {"$raw": [0x13, "15000000000000000000000000003e30"]}, "double": {"$numberDouble": "1.0"}, "generic": {"$raw": [5, "020000000001ff"]},
        "int": 7, "long": {"$numberLong": "9007199254740993"}, "max": {"$raw": [0x7F, ""]}, "min": {"$raw": [0xFF, ""]}, "null": null,
        "oid": {"$oid": "656800000000000000000002"}, "regex": {"$raw": [0x0B, "612e62006900"]}, "text": "é\u{1F600}",
        "time": {"$raw": [0x11, "0300000007000000"]}, "uuid": {"$uuid": "000102030405060708090a0b0c0d0e0f"},
    });
    let expected = json!({
        "_id": {"$oid": "656800000000000000000001"}, "array": [1, "x", null], "bool": true, "code": {"$code": "f()"},
        "date": "2012-12-24T12:15:30.501Z", "decimal": "2.1", "double": 1.0, "generic": "Af8=", "int": 7, "long": 9_007_199_254_740_993_u64,
        "max": {"$maxKey": 1}, "min": {"$minKey": 1}, "null": null, "oid": "656800000000000000000002",
        "regex": {"$regularExpression": {"pattern": "a.b", "options": "i"}}, "text": "é\u{1F600}", "time": {"$timestamp": {"t": 7, "i": 3}},
        "uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f",
    });
    (document, expected)
}

#[tokio::test]
async fn a_value_looks_the_same_in_a_row_and_in_an_event() {
    let world = World::new(&["t"]);
    let mut following = world.follow().await;
    let (document, expected) = all();
    world.insert("t", &[document]);
    let event = following.stream().await.take(1).await.remove(0);
    assert_eq!(event.field("after"), expected);
    let row = scan_all(&mut following.connector, FeedId(0), 1 << 20, false).await.remove(0);
    assert_eq!((row.field("after"), &row.key), (expected, &event.key));
}

#[tokio::test]
async fn extended_json_names_the_types() {
    let mut world = World::new(&["t"]);
    world.options.spelling = Spelling::Canonical;
    let mut following = world.follow().await;
    world.insert("t", &[json!({"_id": 1, "a": {"$numberLong": "2"}, "b": [1.5]})]);
    let event = following.stream().await.take(1).await.remove(0);
    assert_eq!(event.key, r#"{"_id":{"$numberInt":"1"}}"#);
    assert_eq!(event.field("after"), json!({"_id": {"$numberInt": "1"}, "a": {"$numberLong": "2"}, "b": [{"$numberDouble": "1.5"}]}));
}

#[tokio::test]
async fn a_text_that_is_not_utf_8_is_published_as_its_bytes() {
    let world = World::new(&["t"]);
    let mut following = world.follow().await;
    let inserted =
        world.server.try_run(&world.database, &json!({"insert": "t", "documents": [{"_id": 1, "text": {"$raw": [2, "0300000061ff00"]}}]}));
    if inserted["ok"].as_f64() != Some(1.0) {
        eprintln!("this server refuses texts that are not UTF-8: {inserted}");
        return;
    }
    let event = following.stream().await.take(1).await.remove(0);
    assert_eq!(event.field("after")["text"], json!({"base64": "Yf8="}));
}

#[tokio::test]
async fn a_document_may_be_as_deep_as_a_server_takes_it() {
    let world = World::new(&["t"]);
    let mut following = world.follow().await;
    let deep = (0..95).fold(json!(1), |inner, _| json!([inner]));
    world.insert("t", &[json!({"_id": "deep", "deep": deep})]);
    let event = following.stream().await.take(1).await.remove(0);
    assert_eq!(event.field("after")["deep"], deep);
}

#[tokio::test]
async fn a_document_of_16_mb_is_published() {
    let world = World::new(&["t"]);
    let mut following = world.follow().await;
    let large = "x".repeat((16 << 20) - 100);
    world.insert("t", &[json!({"_id": 1, "a": large})]);
    let event = following.stream().await.take(1).await.remove(0);
    assert_eq!(event.field("after")["a"].as_str().map(str::len), Some((16 << 20) - 100));
    let rows = scan_all(&mut following.connector, FeedId(0), 1024, false).await;
    assert_eq!(rows.len(), 1);
}
