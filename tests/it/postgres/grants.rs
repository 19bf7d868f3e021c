//! A role that may read only the columns in the publication's list. The other columns never leave the server.

use super::reading::after;
use super::remedies::statements;
use super::waiting::{application, eventually, opened, succeed, waited_for};
use super::world::{World, feed};
use crate::contract_source::scan_all;
use feedline::event::FeedId;
use feedline::feed::{Feed, PrefeedKind};
use feedline::net::secret::Secret;
use feedline::source::{Prefeed as _, SourceConnector as _};

/// A world whose role gets the grant that a preflight asks for: the columns of the list and of the filter.
async fn granted(tables: &str, list: &str, expected: &str) -> World {
    let mut world = World::new(tables, vec![Feed { prefeed: PrefeedKind::Snapshot, ..feed("t", &["id"]) }]);
    world.sql(&format!("CREATE PUBLICATION {} FOR TABLE t {list} WITH (publish_via_partition_root = true)", world.options.publication));
    let user = world.server.create_user("sparing", "secret", "REPLICATION");
    (world.options.user, world.options.password) = (user, Some(Secret::new("secret".to_owned())));
    let errors = world.verify().await.unwrap_err();
    let [refusal] = errors.as_slice() else { panic!("{errors:?}") };
    let text = refusal.to_string();
    let (_, remedy) = text.split_once("; run: ").unwrap();
    assert_eq!(remedy, format!("GRANT SELECT {expected} ON \"public\".\"t\" TO \"{}\"", world.options.user));
    for statement in statements(&format!("run: {remedy}")) {
        world.sql(&statement);
    }
    world.verify().await.unwrap();
    world
}

#[tokio::test]
async fn a_grant_on_the_published_columns_is_enough() {
    const T: &str = "CREATE TABLE t (id int PRIMARY KEY, note text, secret text); INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', 'y')";
    let partitioned = "CREATE TABLE t (id int PRIMARY KEY, note text, secret text) PARTITION BY RANGE (id); \
                       CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (2); CREATE TABLE t_high PARTITION OF t DEFAULT; \
                       INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', 'y')";
    let cases = [
        (T, "(id, note)", "(\"id\", \"note\")", vec!["{\"id\":1,\"note\":\"a\"}", "{\"id\":2,\"note\":\"b\"}"]),
        (T, "(id, note) WHERE (id > 1)", "(\"id\", \"note\")", vec!["{\"id\":2,\"note\":\"b\"}"]),
        (partitioned, "(id, note)", "(\"id\", \"note\")", vec!["{\"id\":1,\"note\":\"a\"}", "{\"id\":2,\"note\":\"b\"}"]),
    ];
    for (tables, list, expected, rows) in cases {
        let world = granted(tables, list, expected).await;
        let mut reader = world.begin().await;
        let read = scan_all(&mut world.connector(), FeedId(0), 520, true).await;
        assert_eq!(read.iter().map(|row| after(row.body.as_deref().unwrap())).collect::<Vec<_>>(), rows, "{list}");
        world.sql("INSERT INTO t VALUES (3, 'c', 'z')");
        assert_eq!(reader.take(1).await[0].event()["after"], serde_json::json!({"id": 3, "note": "c"}));
    }
}

#[tokio::test]
async fn an_application_that_alters_such_a_table_ends_the_slice() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY, note text, secret text); INSERT INTO t SELECT g FROM generate_series(1, 100) g";
    let world = granted(tables, "(id, note)", "(\"id\", \"note\")").await;
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    opened(&mut rows).await;
    // A TRUNCATE would make the table look empty under the snapshot. It waits for our lock, and we release it.
    let altering = application(&world, "TRUNCATE t");
    let waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'billing' AND wait_event_type = 'Lock' AND datname = current_database()";
    eventually(&world, waits).await;
    waited_for(&mut rows).await;
    rows.close().await.unwrap();
    succeed(altering);
}
