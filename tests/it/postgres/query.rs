//! Prefeeds from a query.

use super::world::{World, feed};
use crate::contract_source::scan_all;
use feedline::event::FeedId;
use feedline::fault::{Classify, Code};
use feedline::feed::{Feed, PrefeedKind};
use feedline::source::{Prefeed, SourceConnector};

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, note text, customer int); CREATE TABLE c (id int PRIMARY KEY, name text); \
    INSERT INTO c VALUES (1, 'Ann'), (2, 'Bo'); INSERT INTO t SELECT g, 'n' || g, 1 + g % 2 FROM generate_series(1, 6) g; \
    CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO public.c VALUES (9, ''x'') RETURNING id'";

fn query_feed(query: &str) -> Feed {
    Feed { prefeed: PrefeedKind::Query(query.into()), ..feed("t", &["id"]) }
}

fn world(query: &str) -> World {
    World::new(TABLES, vec![query_feed(query)])
}

#[tokio::test]
async fn a_querys_rows_are_read_in_key_order_and_continued_after_any_row() {
    let world = world(
        "SELECT t.id, upper(note) AS note, name FROM public.t JOIN public.c ON c.id = customer WHERE t.id > 2 -- old ones are not wanted",
    );
    world.establish().await;
    for (batch_bytes, reopen) in [(1 << 20, false), (520, true)] {
        let rows = scan_all(&mut world.connector(), FeedId(0), batch_bytes, reopen).await;
        let after: Vec<_> = rows.iter().map(|row| super::reading::after(row.body.as_deref().unwrap())).collect();
        let expected = [
            r#"{"id":3,"note":"N3","name":"Bo"}"#,
            r#"{"id":4,"note":"N4","name":"Ann"}"#,
            r#"{"id":5,"note":"N5","name":"Bo"}"#,
            r#"{"id":6,"note":"N6","name":"Ann"}"#,
        ];
        assert_eq!(after, expected);
        assert_eq!(rows[0].key, r#"{"id":3}"#);
    }
}

#[tokio::test]
async fn keys_of_a_query_that_are_equal_but_not_identical_are_all_read() {
    let tables = "CREATE EXTENSION citext; CREATE COLLATION nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
                  CREATE TABLE t (id int PRIMARY KEY, a text COLLATE nd)";
    for (query, keys) in [
        ("SELECT unnest(ARRAY['a', 'A', 'b', 'B'])::public.citext AS id", ["\"A\"", "\"a\"", "\"B\"", "\"b\""]),
        ("SELECT unnest(ARRAY[1.00, 1, 1.0, 0.9]) AS id", ["\"0.9\"", "\"1\"", "\"1.0\"", "\"1.00\""]),
        ("SELECT unnest(ARRAY['0', '-0', '1', '-1']::float8[]) AS id", ["-1", "-0", "0", "1"]),
        ("SELECT unnest(ARRAY['1 day', '24:00', '2 days', '48:00']::interval[]) AS id", ["\"P1D\"", "\"PT24H\"", "\"P2D\"", "\"PT48H\""]),
        (
            "SELECT unnest(ARRAY['10.0.0.1/8', '10.0.0.1', '::1', '10.0.0.1/9']::inet[]) AS id",
            ["\"10.0.0.1/8\"", "\"10.0.0.1/9\"", "\"10.0.0.1\"", "\"::1\""],
        ),
        ("SELECT x COLLATE public.nd AS id FROM unnest(ARRAY['A', 'B', 'a', 'b']) x", ["\"A\"", "\"B\"", "\"a\"", "\"b\""]),
    ] {
        let world = World::new(tables, vec![query_feed(query)]);
        world.establish().await;
        let rows = scan_all(&mut world.connector(), FeedId(0), 520, true).await;
        let read: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        assert_eq!(read, keys.map(|key| format!("{{\"id\":{key}}}")), "{query}");
    }
}

#[tokio::test]
async fn the_tables_of_a_query_are_locked_and_released() {
    let world = world("SELECT t.id, name FROM public.t JOIN public.c ON c.id = customer");
    world.establish().await;
    let mut rows = world.connector().prefeed().await.unwrap();
    crate::contract_source::open(&mut rows, &[feedline::source::ToRead { feed: FeedId(0), after: None }]).await;
    let locked = "SELECT count(DISTINCT relation) FROM pg_locks WHERE mode = 'AccessShareLock' AND relation IN ('t'::regclass, 'c'::regclass) AND pid <> pg_backend_pid()";
    assert_eq!(world.sql(locked), "2");
    rows.close().await.unwrap();
    assert_eq!(world.sql(locked), "0");
}

#[tokio::test]
async fn an_unsuitable_query_is_refused() {
    for (query, reason) in [
        ("SELECT note FROM public.t", "it yields no column \"id\""),
        ("SELEC id FROM public.t", "syntax error"),
        ("SELECT id FROM missing", "does not exist"),
        ("WITH gone AS (DELETE FROM public.t RETURNING id) SELECT id FROM gone", "data-modifying"),
        ("SELECT 1 AS id) q; DROP TABLE t; --", "syntax error"),
        ("SELECT 1 AS id) q; COMMIT; DELETE FROM t; SELECT * FROM (SELECT 1 AS id", "multiple commands"),
        ("SELECT $1::int AS id", "no parameter"),
    ] {
        let world = world(query);
        let error = world.verify().await.unwrap_err().remove(0);
        assert!(
            error.code() == Code::PrefeedQuery && error.to_string().contains(reason) && error.to_string().contains("public.t"),
            "{error}"
        );
        assert_eq!(world.sql("SELECT count(*) FROM t"), "6");
    }
    for (query, reason) in [
        ("SELECT customer AS id, note FROM public.t", "it yields the key (1) more than once"),
        ("SELECT x AS id FROM unnest(ARRAY[1.0, 2, 1.0]) x", "it yields the key (1.0) more than once"),
        ("SELECT public.writes() AS id", "read-only transaction"),
        ("SELECT NULLIF(id, 6) AS id FROM public.t", "not null"),
    ] {
        let world = world(query);
        world.establish().await;
        let mut rows = world.connector().prefeed().await.unwrap();
        crate::contract_source::open(&mut rows, &[feedline::source::ToRead { feed: FeedId(0), after: None }]).await;
        let mut slice = feedline::source::Slice { number: 1, next_row: 0 };
        let mut out = feedline::batch::Budget::new(1 << 22, 1 << 20).writer().await;
        let error = crate::session::scan(&mut rows, "0", FeedId(0), None, &mut slice, &mut out).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.fault(), feedline::fault::Fault::Fatal, "{error}");
        assert_eq!(world.sql("SELECT count(*) FROM c"), "2");
    }
}
