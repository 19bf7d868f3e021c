//! Feeds whose prefeed is a query.

use super::reading::after;
use super::world::World;
use crate::contract_source::{Taken, scan_all};
use crate::session::scan;
use feedline::batch::Budget;
use feedline::event::FeedId;
use feedline::fault::{Classify as _, Code, Fault};
use feedline::feed::{Feed, PrefeedKind};
use feedline::source::mysql::Error;
use feedline::source::{Prefeed as _, Slice, SourceConnector as _, ToRead};
use std::time::Duration;

fn of(tables: &str, query: &str, key: &[&str]) -> World {
    let mut world = World::new(tables, &[("t", key)]);
    let query = query.replace("{db}", &world.database);
    world.feeds = world.feeds.into_iter().map(|feed| Feed { prefeed: PrefeedKind::Query(query.as_str().into()), ..feed }).collect();
    world
}

async fn rows(world: &World) -> Vec<Taken> {
    scan_all(&mut world.established().await, FeedId(0), 520, true).await
}

async fn refusal(world: &World) -> Error {
    let mut prefeed = world.established().await.prefeed().await.unwrap();
    if let Err(error) = prefeed.open(&[ToRead { feed: FeedId(0), after: None }], Duration::from_secs(10)).await {
        return error;
    }
    let (mut slice, budget) = (Slice { number: 1, next_row: 0 }, Budget::new(8 << 20, 1 << 20));
    let mut out = budget.writer().await;
    let refused = scan(&mut prefeed, "1", FeedId(0), None, &mut slice, &mut out).await;
    prefeed.close().await.unwrap();
    refused.unwrap_err()
}

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, name varchar(20), e enum('z','a'), total decimal(10,2), at timestamp(3) NULL); \
                      SET time_zone = '+00:00'; INSERT INTO t VALUES (1, 'a', 'z', 1.50, '2024-02-29 10:00:00.5'), (2, 'A', 'a', NULL, NULL), (3, 'b', 'a', -1, NULL)";

#[tokio::test]
async fn its_rows_are_read_in_the_order_of_their_keys_bytes() {
    let world = of(TABLES, "SELECT name, id + 1 AS id, e, total, at, 'x' AS `new` FROM {db}.t -- all of them", &["name"]);
    let read = rows(&world).await;
    let shown: Vec<_> = read.iter().map(|taken| (taken.key.as_str(), after(taken))).collect();
    assert_eq!(
        shown,
        [
            ("{\"name\":\"A\"}", "{\"name\":\"A\",\"id\":3,\"e\":\"a\",\"total\":null,\"at\":null,\"new\":\"x\"}"),
            (
                "{\"name\":\"a\"}",
                "{\"name\":\"a\",\"id\":2,\"e\":\"z\",\"total\":\"1.50\",\"at\":\"2024-02-29T10:00:00.500Z\",\"new\":\"x\"}"
            ),
            ("{\"name\":\"b\"}", "{\"name\":\"b\",\"id\":4,\"e\":\"a\",\"total\":\"-1.00\",\"at\":null,\"new\":\"x\"}"),
        ]
    );
    let world = of(TABLES, "SELECT e, count(*) AS n FROM {db}.t GROUP BY e", &["e"]);
    let read = rows(&world).await;
    assert_eq!(read.iter().map(after).collect::<Vec<_>>(), ["{\"e\":\"a\",\"n\":2}", "{\"e\":\"z\",\"n\":1}"]);
}

#[tokio::test]
async fn a_query_that_cannot_be_used_is_refused_by_its_feed() {
    for (query, key, words) in [
        ("SELECT id, e FROM {db}.t", &["e"][..], "more than once"),
        ("SELECT id FROM {db}.t", &["name"], "yields no column \"name\""),
        ("SELECT id FROM {db}.t WHERE id > ?", &["id"], "?"),
        ("SELECT id FROM {db}.nothing", &["id"], "doesn't exist"),
        ("DELETE FROM {db}.t", &["id"], "syntax"),
    ] {
        let refused = refusal(&of(TABLES, query, key)).await;
        assert_eq!((refused.code(), refused.fault()), (Code::PrefeedQuery, Fault::Fatal), "{query}: {refused}");
        assert!(refused.to_string().contains(words), "{query}: {refused}");
    }
}
