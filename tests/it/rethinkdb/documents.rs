//! Documents that are unusual: what is published of them, or why they are not.

use super::*;

/// A first start, its table without documents, and where its log begins.
async fn started(world: &World) -> (Side, ResumeToken) {
    let mut side = Side::first(world, "t").await;
    world.server.settle("t");
    let at = head(&mut side.connector).await;
    (side, at)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_cannot_be_published_is_named() {
    let world = World::new(&["t"]);
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let at = head(&mut side.connector).await;
    let deep = (0..250).fold(json!(1), |inner, _| json!([inner]));
    world.server.put("t", &json!({"id": "good"}));
    world.server.put("t", &json!({"id": "too deep", "deep": deep}));
    let (taken, failed) = side.connect(&at).await.failure().await;
    assert_eq!(taken.len(), 1);
    assert_eq!((failed.code(), failed.fault()), (Code::RowUnreadable, Fault::Fatal), "{failed}");
    assert!(failed.to_string().contains("\"too deep\" of table test.t"), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_respelled_is_another_key_for_readers() {
    let world = World::new(&["t"]);
    let key = |zone: &str| json!({"$reql_type$": "TIME", "epoch_time": 1.5, "timezone": zone});
    let mut side = Side::first(&world, "t").await;
    world.server.settle("t");
    let at = head(&mut side.connector).await;
    world.server.replace("t", None, &json!({"id": key("+00:00"), "v": 1}));
    world.server.replace("t", Some(&json!({"id": key("+00:00"), "v": 1})), &json!({"id": key("+02:00"), "v": 2}));
    let taken = side.connect(&at).await.take(3).await;
    let briefs: Vec<_> =
        taken.iter().map(|taken| (taken.operation.name(), serde_json::from_str::<Value>(&taken.key).unwrap()["id"].clone())).collect();
    assert_eq!(briefs, [("insert", key("+00:00")), ("delete", key("+00:00")), ("insert", key("+02:00"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_16_mb_come_whole() {
    let world = World::new(&["t"]);
    let (mut side, at) = started(&world).await;
    let (old, new) = ("a".repeat(16 << 20), "é".repeat(8 << 20));
    world.server.put("t", &json!({"id": 1, "text": old}));
    world.server.put("t", &json!({"id": 1, "text": new}));
    world.server.put("t", &json!({"id": 2}));
    let taken = side.connect(&at).await.take(3).await;
    assert_eq!(taken.iter().map(Taken::brief).collect::<Vec<_>>(), ["insert {\"id\":1}", "update {\"id\":1}", "insert {\"id\":2}"]);
    assert!(taken[1].field("before")["text"] == old && taken[1].field("after")["text"] == new);
    let read = rows(&mut side).await;
    assert_eq!(read, expected(&world, "t"));
}

/// What no server of RethinkDB says of a document. Each ends the session with its own reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_document_can_be_is_refused() {
    let cases: [(&[u8], Code, &str); 4] = [
        (br#"{"new_val":{"id":1,"a":1,"a":2},"old_val":null,"type":"add"}"#, Code::RowUnreadable, "a field twice"),
        (br#"{"new_val":{"id":1,"a":1e999},"old_val":null,"type":"add"}"#, Code::RowUnreadable, "beyond what a double holds"),
        (b"{\"new_val\":{\"id\":1,\"a\":\"\xFF\"},\"old_val\":null,\"type\":\"add\"}", Code::SourceProtocol, "a response"),
        (br#"{"new_val":{"a":1},"old_val":null,"type":"moved"}"#, Code::SourceProtocol, "an element of a changefeed"),
    ];
    for (element, code, says) in cases {
        let world = World::new(&["t"]);
        let (mut side, at) = started(&world).await;
        let mut stream = side.connect(&at).await;
        world.server.say("t", element);
        let (taken, failed) = stream.failure().await;
        assert_eq!((failed.code(), failed.fault(), taken.len()), (code, Fault::Fatal, 0), "{failed}");
        assert!(failed.to_string().contains(says), "{failed}");
    }
}

/// Names of tables and of fields are compared letter by letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_differ_by_case_are_different_names() {
    let world = World::new(&["orders", "Orders"]);
    world.server.put("orders", &json!({"id": 1, "note": "small", "Note": "large"}));
    world.server.put("Orders", &json!({"id": 1, "note": "other"}));
    let feeds = feeds(vec![feed("test", "Orders", &["id"], Operations::ALL), feed("test", "orders", &["id"], Operations::ALL)]);
    let mut connector = world.connector();
    connector.select(feeds);
    verify(&mut connector).await.unwrap();
    connector.establish().await.unwrap();
    for (feed, document) in [(0, json!({"id": 1, "note": "other"})), (1, json!({"id": 1, "note": "small", "Note": "large"}))] {
        world.server.settle(if feed == 0 { "Orders" } else { "orders" });
        let rows = scan_all(&mut connector, FeedId(feed), 1024, false).await;
        assert_eq!(rows.iter().map(|row| row.field("after")).collect::<Vec<_>>(), [document]);
    }
}
