//! Existing documents: every type of key, resumed scans, queries, and large collections.

use super::world::World;
use crate::contract_source::scan_all;
use feedline::event::FeedId;
use feedline::feed::PrefeedKind;
use feedline::source::{Prefeed as _, SourceConnector as _};
use serde_json::{Value, json};

#[tokio::test]
async fn keys_of_every_type_are_read_once_and_in_one_order() {
    let world = World::new(&["t"]);
    let keys = [
        json!(null),
        json!(-5),
        json!(1.5),
        json!({"$numberLong": "9007199254740993"}),
        json!(""),
        json!("a"),
        json!("Z"),
        json!({"a": 1}),
        json!({"a": 1, "b": 2}),
        json!({"$uuid": "00112233445566778899aabbccddeeff"}),
        json!({"$oid": "656800000000000000000001"}),
        json!(false),
        json!(true),
        json!({"$date": {"$numberLong": "1356351330501"}}),
        json!({"$raw": [0x11, "0100000002000000"]}),
        json!({"$raw": [0xFF, ""]}),
        json!({"$raw": [0x7F, ""]}),
    ];
    let documents: Vec<Value> = keys.iter().map(|key| json!({"_id": key, "padding": "x".repeat(200)})).collect();
    world.insert("t", &documents);
    let mut following = world.follow().await;
    let whole = scan_all(&mut following.connector, FeedId(0), 1 << 20, false).await;
    let resumed = scan_all(&mut following.connector, FeedId(0), 600, true).await;
    let keys_of = |rows: &[crate::contract_source::Taken]| rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>();
    assert_eq!(keys_of(&whole).len(), keys.len(), "{:?}", keys_of(&whole));
    assert_eq!(keys_of(&whole), keys_of(&resumed));
    let mut distinct = keys_of(&whole);
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), keys.len(), "no two keys look alike");
}

#[tokio::test]
async fn a_query_reads_what_its_filter_admits() {
    let mut world = World::new(&["t"]);
    let documents: Vec<Value> = (0..50).map(|id| json!({"_id": id, "status": if id % 2 == 0 { "open" } else { "closed" }})).collect();
    world.insert("t", &documents);
    world.feeds[0].prefeed = PrefeedKind::Query("{\"status\": \"open\", \"_id\": {\"$gte\": 10}}".into());
    let mut following = world.follow().await;
    let rows = scan_all(&mut following.connector, FeedId(0), 1024, true).await;
    let expected: Vec<_> = (10..50).step_by(2).map(|id| format!("{{\"_id\":{id}}}")).collect();
    assert_eq!(rows.into_iter().map(|row| row.key).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_large_collection_is_read_in_ranges_and_each_document_once() {
    let world = World::new(&["t"]);
    let padding = "x".repeat(9000);
    for first in (0..2000).step_by(500) {
        let documents: Vec<Value> = (first..first + 500).map(|id| json!({"_id": id, "padding": padding})).collect();
        world.insert("t", &documents);
    }
    let mut following = world.follow().await;
    for reopen in [false, true] {
        let mut keys: Vec<_> =
            scan_all(&mut following.connector, FeedId(0), 256 * 1024, reopen).await.into_iter().map(|row| row.key).collect();
        keys.sort_by_key(|key| serde_json::from_str::<Value>(key).unwrap()["_id"].as_u64());
        assert_eq!(keys, (0..2000).map(|id| format!("{{\"_id\":{id}}}")).collect::<Vec<_>>(), "{reopen}");
    }
    let mut prefeed = following.connector.prefeed().await.unwrap();
    assert_eq!(prefeed.expected_rows(FeedId(0)).await.unwrap(), Some(2000));
}

#[tokio::test]
async fn a_collection_that_does_not_exist_has_no_documents() {
    let mut world = World::new(&["t"]);
    world.feeds[0].table = "missing".into();
    let mut following = world.follow().await;
    assert!(scan_all(&mut following.connector, FeedId(0), 1024, false).await.is_empty());
}
