//! Existing rows have the same bytes in events as live rows, for all kinds of keys, and no row is missing.

use super::world::World;
use crate::contract_source::{Taken, scan_all};
use feedline::event::FeedId;
use std::collections::{BTreeMap, BTreeSet};

/// The bytes of the `after` object of an event.
pub fn after(taken: &Taken) -> &str {
    let body = taken.body.as_deref().unwrap();
    let begin = body.find(",\"after\":").expect("an event has `after`") + ",\"after\":".len();
    let end = body.rfind(",\"source\":").expect("an event has `source`");
    &body[begin..end]
}

/// Inserts rows while the log is read, then reads them as existing rows. Both must be the same.
pub async fn agree(world: &World, rows: &str, expected: usize) -> BTreeMap<String, String> {
    let (mut log, _) = world.begin().await;
    world.sql(rows);
    let live: BTreeMap<_, _> = log.take(expected).await.iter().map(|taken| (taken.key.clone(), after(taken).to_owned())).collect();
    drop(log);
    // One row per batch, and a new snapshot for each: the scan continues after every row.
    let read = scan_all(&mut world.established().await, FeedId(0), 520, true).await;
    let existing: BTreeMap<_, _> = read.iter().map(|taken| (taken.key.clone(), after(taken).to_owned())).collect();
    assert_eq!(read.len(), existing.len(), "each row once");
    assert_eq!(existing, live);
    live
}

#[tokio::test]
async fn a_scan_continues_after_keys_of_any_type_and_collation() {
    for (table, key, rows, count) in [
        (
            "CREATE TABLE t (a varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, b decimal(30,10), PRIMARY KEY (b, a))",
            &["a", "b"][..],
            "INSERT INTO t SELECT a, b FROM (SELECT 'a' a UNION SELECT 'B' UNION SELECT 'c' UNION SELECT '''q''' UNION SELECT 'back\\\\slash' \
             UNION SELECT '😀' UNION SELECT '' UNION SELECT 'b c') x, (SELECT 1.10 b UNION SELECT -3 UNION SELECT 0) y",
            24,
        ),
        (
            "CREATE TABLE t (a varchar(20) CHARACTER SET latin1 COLLATE latin1_german2_ci, b varchar(9) CHARACTER SET cp932, \
             c char(5) CHARACTER SET utf16, PRIMARY KEY (c, b, a))",
            &["a", "b", "c"],
            "INSERT INTO t SELECT a, b, c FROM (SELECT 'ä' a UNION SELECT 'b' UNION SELECT 'ß' UNION SELECT '€') x, \
             (SELECT '日本' b UNION SELECT 'x' UNION SELECT '～') y, (SELECT 'é' c UNION SELECT '😀' UNION SELECT '') z",
            36,
        ),
        (
            "CREATE TABLE t (e enum('z','a','m') NOT NULL, s set('x','y','z'), y year, bits bit(40), PRIMARY KEY (e, s, y, bits))",
            &["e", "s", "y", "bits"],
            "INSERT INTO t SELECT e, s, y, n FROM (SELECT 'z' e UNION SELECT 'a' UNION SELECT 'm') a, (SELECT '' s UNION SELECT 'x,z' UNION SELECT 'y') b, \
             (SELECT 0 y UNION SELECT 1901 UNION SELECT 2155 UNION SELECT 2000) c, (SELECT 0 n UNION SELECT 1099511627775) d",
            72,
        ),
        (
            "CREATE TABLE t (d date, t time(3), dt datetime(6), ts timestamp(2), PRIMARY KEY (d, t, dt, ts))",
            &["d", "t", "dt", "ts"],
            "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'; INSERT INTO t SELECT d, t, dt, ts FROM \
             (SELECT '0000-00-00' d UNION SELECT '2024-02-31' UNION SELECT '9999-12-31') a, (SELECT '-838:59:59' t UNION SELECT '00:00:00.5' UNION SELECT '838:59:59') b, \
             (SELECT '2024-01-00 00:00:00' dt UNION SELECT '2024-01-01 10:00:00.000001') c, (SELECT '2038-01-19 03:14:07.99' ts UNION SELECT '1970-01-01 00:00:01') e",
            36,
        ),
        (
            "CREATE TABLE t (f float, g double, i bigint unsigned, m mediumint, PRIMARY KEY (f, g, i, m))",
            &["f", "g", "i", "m"],
            "INSERT INTO t SELECT f, g, i, m FROM (SELECT 0.1 f UNION SELECT -3.4e38 UNION SELECT 1e-30) a, (SELECT 0.1e0 g UNION SELECT 1.7e308 UNION SELECT -5e-320) b, \
             (SELECT 18446744073709551615 i UNION SELECT 0) c, (SELECT -8388608 m UNION SELECT 8388607) d",
            36,
        ),
        (
            "CREATE TABLE t (b binary(4), v varbinary(9), PRIMARY KEY (v, b))",
            &["b", "v"],
            "INSERT INTO t SELECT b, v FROM (SELECT x'00000000' b UNION SELECT x'27275c00' UNION SELECT x'ff') a, (SELECT '' v UNION SELECT x'00' UNION SELECT x'0000' UNION SELECT x'ff27') c",
            12,
        ),
        (
            "CREATE TABLE t (a varchar(10) NOT NULL, n int, u int NOT NULL, note text, UNIQUE KEY of_a (a), UNIQUE KEY of_u (u))",
            &["a"],
            "INSERT INTO t SELECT CONCAT('k', seq), NULL, seq, 'x' FROM (WITH RECURSIVE s AS (SELECT 1 seq UNION ALL SELECT seq + 1 FROM s WHERE seq < 20) SELECT seq FROM s) x",
            20,
        ),
    ] {
        let world = World::new(table, &[("t", key)]);
        agree(&world, rows, count).await;
    }
}

#[tokio::test]
async fn keys_of_types_of_mariadb() {
    let world = World::new("", &[("t", &["u", "i6", "i4"])]);
    if !world.server.is_mariadb() {
        return;
    }
    world.sql("CREATE TABLE t (u uuid, i6 inet6, i4 inet4, PRIMARY KEY (u, i6, i4))");
    let rows = "INSERT INTO t SELECT u, i6, i4 FROM (SELECT '00000000-0000-0000-0000-000000000000' u UNION SELECT '123e4567-e89b-12d3-a456-426655440000' \
                UNION SELECT 'ffffffff-0000-1000-8000-000000000001' UNION SELECT '00000000-0000-4000-8000-000000000001') a, \
                (SELECT '::' i6 UNION SELECT '::ffff:1.2.3.4' UNION SELECT 'fe80::1') b, (SELECT '0.0.0.0' i4 UNION SELECT '255.0.0.1') c";
    agree(&world, rows, 24).await;
}

/// Rows of numbers from 1 on.
const NUMBERS: &str = "WITH RECURSIVE n AS (SELECT 1 g UNION ALL SELECT g + 1 FROM n WHERE g < 1000) SELECT g FROM n";

#[tokio::test]
async fn a_large_table_is_read_by_several_readers_in_many_slices() {
    let world = World::new("CREATE TABLE t (id int, part int, note varchar(500), PRIMARY KEY (id, part))", &[("t", &["id", "part"])]);
    world.sql(&format!(
        "INSERT INTO t SELECT a.g * 7 - 3500, b.g, REPEAT('x', 400) FROM ({NUMBERS}) a, ({NUMBERS}) b WHERE b.g <= 100; ANALYZE TABLE t"
    ));
    for (batch_bytes, reopen) in [(8 << 20, true), (1 << 20, false)] {
        let read = scan_all(&mut world.established().await, FeedId(0), batch_bytes, reopen).await;
        let keys: BTreeSet<_> = read.iter().map(|taken| &taken.key).collect();
        assert_eq!((read.len(), keys.len()), (100_000, 100_000));
    }
}

#[tokio::test]
async fn names_may_contain_anything() {
    let world = World::new(
        "CREATE TABLE `ta``b le'\"` (`i``d` int, `na me'` text, `ümlaut` int, PRIMARY KEY (`i``d`))",
        &[("ta`b le'\"", &["i`d"])],
    );
    let live = agree(&world, "INSERT INTO `ta``b le'\"` VALUES (1, 'a', 2), (2, NULL, 3)", 2).await;
    assert_eq!(live["{\"i`d\":1}"], "{\"i`d\":1,\"na me'\":\"a\",\"ümlaut\":2}");
}

#[tokio::test]
async fn a_large_row_is_read_whole_also_beyond_the_servers_limit_for_statements() {
    let world = World::new("CREATE TABLE t (id int PRIMARY KEY, a longtext, b longtext)", &[("t", &["id"])]);
    world.sql("INSERT INTO t VALUES (1, REPEAT('a', 20000000), REPEAT('b', 20000000)), (2, 'x', '')");
    let read = scan_all(&mut world.established().await, FeedId(0), 1 << 20, false).await;
    assert_eq!(read.iter().map(|taken| taken.body.as_ref().unwrap().len() / 1_000_000).collect::<Vec<_>>(), [40, 0]);

    let world =
        World::alone(&[("max_allowed_packet", "1M")], "CREATE TABLE t (id int PRIMARY KEY, a longtext, b longtext)", &[("t", &["id"])]);
    world.sql("INSERT INTO t VALUES (1, REPEAT('a', 700000), ''); UPDATE t SET b = REPEAT('b', 700000)");
    let read = scan_all(&mut world.established().await, FeedId(0), 1 << 20, false).await;
    assert_eq!(read.iter().map(|taken| taken.body.as_ref().unwrap().len() / 100_000).collect::<Vec<_>>(), [14]);
}
