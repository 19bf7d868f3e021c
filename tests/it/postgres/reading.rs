//! Existing rows have the same bytes in events as live rows, for all kinds of keys, and no row is missing.

use super::world::{World, feed};
use crate::contract_source::{Refusal, scan_all};
use feedline::event::FeedId;
use feedline::fault::{Classify, Code};
use feedline::feed::{Feed, PrefeedKind, feed_name};
use std::collections::BTreeMap;

/// The bytes of the `after` object of an event.
pub fn after(body: &str) -> &str {
    let begin = body.find(",\"after\":").expect("an event has `after`") + ",\"after\":".len();
    let end = body.rfind(",\"source\":").expect("an event has `source`");
    &body[begin..end]
}

/// Inserts rows while the log is read, then reads them as existing rows. Both must be the same.
pub async fn agree(tables: &str, feed: Feed, rows: &str, expected: usize) -> BTreeMap<String, String> {
    agree_in(World::new(tables, vec![feed]), rows, expected).await
}

async fn agree_in(world: World, rows: &str, expected: usize) -> BTreeMap<String, String> {
    let mut reader = world.begin().await;
    world.sql(rows);
    let live: BTreeMap<_, _> =
        reader.take(expected).await.into_iter().map(|sent| (sent.key.clone(), after(sent.body.as_deref().unwrap()).to_owned())).collect();
    drop(reader);
    // One row per batch, and a new snapshot for each: the scan continues after every row.
    let read = scan_all(&mut world.connector(), FeedId(0), 520, true).await;
    let existing: BTreeMap<_, _> = read.iter().map(|row| (row.key.clone(), after(row.body.as_deref().unwrap()).to_owned())).collect();
    assert_eq!(read.len(), existing.len(), "each row once");
    assert_eq!(existing, live);
    live
}

#[tokio::test]
async fn a_scan_continues_after_keys_of_any_type_and_collation() {
    let tables = [
        (
            "CREATE COLLATION nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
             CREATE TABLE t (a text COLLATE nd, b numeric(30,10), PRIMARY KEY (b, a))",
            &["a", "b"][..],
            "INSERT INTO t SELECT a, b FROM unnest(ARRAY['a', 'B', 'ß', '''q''', 'back\\slash', '😀', '', 'Ä']) a, unnest(ARRAY[1.10, -3]) b",
            16,
        ),
        (
            "CREATE TABLE t (u uuid, at timestamptz, d date, PRIMARY KEY (u, at, d))",
            &["u", "at", "d"],
            "INSERT INTO t SELECT md5(g::text)::uuid, '2026-01-01'::timestamptz + g * interval '1.000001 s', 'infinity' FROM generate_series(1, 8) g; \
             INSERT INTO t VALUES ('00000000-0000-0000-0000-000000000000', '-infinity', '0044-03-15 BC')",
            9,
        ),
        (
            "CREATE TYPE mood AS ENUM ('so \"so\"', 'bad', 'it''s'); CREATE DOMAIN small AS int CHECK (VALUE < 100); \
             CREATE TYPE pair AS (a int, b text); \
             CREATE TABLE t (raw bytea, m mood, c \"char\", s small, p pair, PRIMARY KEY (raw, m, c, s, p))",
            &["raw", "m", "c", "s", "p"],
            "INSERT INTO t SELECT decode(lpad(to_hex(g), 4, '0'), 'hex'), m, 'x', g, ROW(g::int, 'a,\"b\\')::pair FROM generate_series(1, 3) g, unnest(enum_range(NULL::mood)) m",
            9,
        ),
        (
            "CREATE TABLE t (f double precision, p char(5), v varchar(9), i interval, n inet, b bit(4), PRIMARY KEY (f, p, v, i, n, b))",
            &["f", "p", "v", "i", "n", "b"],
            "INSERT INTO t SELECT f, 'ab', 'cd ', i, '10.0.0.1/8', b'0101' \
             FROM unnest(ARRAY['NaN', '-0', 'Infinity', '-Infinity', 0.1, 1e300]::float8[]) f, unnest(ARRAY['1 mon -2 days'::interval, '-00:00:01']) i",
            12,
        ),
    ];
    for (table, key, rows, count) in tables {
        agree(table, feed("t", key), rows, count).await;
    }
}

#[tokio::test]
async fn a_partitioned_table_is_read_under_its_own_name() {
    let tables = "CREATE TABLE t (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region); \
                  CREATE TABLE t_eu PARTITION OF t FOR VALUES IN ('eu'); CREATE TABLE t_rest (region text, id int NOT NULL, PRIMARY KEY (id, region)); \
                  ALTER TABLE t_rest ALTER region SET NOT NULL; ALTER TABLE t ATTACH PARTITION t_rest DEFAULT";
    agree(
        tables,
        feed("t", &["id", "region"]),
        "INSERT INTO t SELECT g, CASE WHEN g % 2 = 0 THEN 'eu' ELSE 'us' END FROM generate_series(1, 8) g",
        8,
    )
    .await;
}

#[tokio::test]
async fn rows_of_inheriting_tables_are_not_read() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE child () INHERITS (t)";
    let rows = agree(tables, feed("t", &["id"]), "INSERT INTO t VALUES (1, 'own'); INSERT INTO child VALUES (2, 'a child''s')", 1).await;
    assert_eq!(rows.into_keys().collect::<Vec<_>>(), ["{\"id\":1}"]);
}

#[tokio::test]
async fn generated_columns_that_are_not_published_are_in_neither() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY, price int, twice int GENERATED ALWAYS AS (price * 2) STORED)";
    let rows = agree(tables, feed("t", &["id"]), "INSERT INTO t VALUES (1, 10), (2, NULL)", 2).await;
    assert_eq!(rows["{\"id\":1}"], "{\"id\":1,\"price\":10}");
}

#[tokio::test]
async fn generated_columns_that_are_published_are_in_both() {
    let tables = "CREATE TABLE t (id int PRIMARY KEY, price int, twice int GENERATED ALWAYS AS (price * 2) STORED)";
    let mut world = World::of_version("18", &[], tables, vec![feed("t", &["id"])]);
    world.sql(&format!("CREATE PUBLICATION {} FOR TABLE t WITH (publish_generated_columns = stored)", world.options.publication));
    world.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", world.options.slot));
    world.options.manage = false;
    let rows = agree_in(world, "INSERT INTO t VALUES (1, 10), (2, NULL)", 2).await;
    assert_eq!(rows["{\"id\":1}"], "{\"id\":1,\"price\":10,\"twice\":20}");
}

#[tokio::test]
async fn column_lists_and_row_filters_of_a_publication_apply() {
    let mut world =
        World::new("CREATE TABLE t (id int PRIMARY KEY, note text, secret text, shown bool NOT NULL)", vec![feed("t", &["id"])]);
    world.sql("ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t REPLICA IDENTITY DEFAULT");
    world.sql(&format!("CREATE PUBLICATION {} FOR TABLE t (id, note) WHERE (id < 3)", world.options.publication));
    world.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", world.options.slot));
    world.options.manage = false;
    let rows = agree_in(world, "INSERT INTO t SELECT g, 'n', 'hidden', true FROM generate_series(1, 4) g", 2).await;
    assert_eq!(rows.into_values().collect::<Vec<_>>(), ["{\"id\":1,\"note\":\"n\"}", "{\"id\":2,\"note\":\"n\"}"]);
}

#[tokio::test]
async fn names_of_any_kind_are_quoted() {
    let quoted =
        Feed { name: feed_name("Süd \"1\"", "order.s"), schema: "Süd \"1\"".into(), table: "order.s".into(), ..feed("t", &["Nr \"a\""]) };
    let tables =
        "CREATE SCHEMA \"Süd \"\"1\"\"\"; CREATE TABLE \"Süd \"\"1\"\"\".\"order.s\" (\"Nr \"\"a\"\"\" int PRIMARY KEY, \"select\" text)";
    let rows = agree(tables, quoted, "INSERT INTO \"Süd \"\"1\"\"\".\"order.s\" VALUES (1, 'x'), (2, NULL)", 2).await;
    assert_eq!(rows["{\"Nr \\\"a\\\"\":2}"], "{\"Nr \\\"a\\\"\":2,\"select\":null}");
}

#[tokio::test]
async fn timeouts_of_the_role_do_not_end_a_slice() {
    let mut world = World::new(
        "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t SELECT g, repeat('x', 300) FROM generate_series(1, 5000) g",
        vec![feed("t", &["id"])],
    );
    let user = world.server.create_user("hasty", "", "SUPERUSER");
    for setting in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"] {
        world.sql(&format!("ALTER ROLE {user} SET {setting} = '1ms'"));
    }
    world.sql(&format!("ALTER ROLE {user} SET default_transaction_isolation = 'serializable'; REVOKE scram FROM {user}"));
    world.options.user = user;
    world.establish().await;
    assert_eq!(scan_all(&mut world.connector(), FeedId(0), 1 << 20, false).await.len(), 5000);
}

pub fn with_snapshot(mut feed: Feed) -> Feed {
    feed.prefeed = PrefeedKind::Snapshot;
    feed
}

pub async fn refused(world: &World, code: Code, words: &[&str]) {
    let errors = world.verify().await.unwrap_err();
    let matches = |error: &Refusal| error.code() == code && words.iter().all(|word| error.to_string().contains(word));
    assert!(errors.iter().any(matches), "{code} {words:?} is not in {errors:#?}");
}

#[tokio::test]
async fn tables_whose_rows_would_be_missing_are_refused_before_anything_is_created() {
    let mut world =
        World::new("CREATE TABLE t (id int, note text); ALTER TABLE t REPLICA IDENTITY FULL", vec![with_snapshot(feed("t", &["id"]))]);
    refused(&world, Code::TableKeyless, &["may be null", "ALTER COLUMN \"id\" SET NOT NULL"]).await;
    refused(&world, Code::TableKeyless, &["no unique index", "ADD PRIMARY KEY (\"id\")"]).await;
    world.sql("ALTER TABLE t ALTER COLUMN id SET NOT NULL; ALTER TABLE t ADD PRIMARY KEY (id)");
    world.verify().await.unwrap();

    let user = world.server.create_user("policed", "", "REPLICATION");
    world.sql(&format!("REVOKE scram FROM {user}; GRANT CREATE ON DATABASE {} TO {user}", world.database));
    world.sql(&format!("ALTER TABLE t OWNER TO {user}; ALTER TABLE t ENABLE ROW LEVEL SECURITY"));
    world.options.user.clone_from(&user);
    world.verify().await.unwrap();
    world.sql("ALTER TABLE t FORCE ROW LEVEL SECURITY");
    refused(&world, Code::SourcePrivilege, &["row level security", "BYPASSRLS"]).await;
    world.sql(&format!("ALTER ROLE {user} BYPASSRLS"));
    world.verify().await.unwrap();
    world.options.manage = false;
    world.sql(&format!("ALTER TABLE t OWNER TO postgres; REVOKE ALL ON t FROM {user}"));
    refused(&world, Code::SourcePrivilege, &["may not read", "GRANT SELECT"]).await;
}

#[tokio::test]
async fn a_server_without_a_free_slot_for_snapshots_is_refused() {
    let world =
        World::alone(&[("max_replication_slots", "1")], "CREATE TABLE t (id int PRIMARY KEY)", vec![with_snapshot(feed("t", &["id"]))]);
    refused(&world, Code::PostgresSlotsExhausted, &["max_replication_slots"]).await;
    world.sql("ALTER SYSTEM SET max_wal_senders = 1");
    let without = World {
        feeds: vec![feed("t", &["id"])],
        options: world.options.clone(),
        metrics: world.metrics.clone(),
        database: world.database.clone(),
        server: world.server,
    };
    without.verify().await.unwrap();
}
