//! Values arrive as they were stored, and alike in live events and in the prefeed.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use super::{Database, table};
use crate::contract_source::{Taken, scan_all};
use feedline::event::FeedId;
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn every_storage_class_reads_alike_live_and_in_the_prefeed() {
    let mut database = Database::new(&[
        "CREATE TABLE t (id INTEGER PRIMARY KEY, i INTEGER, r REAL, t TEXT, n NUMERIC, b BLOB, x, g TEXT AS (typeof(x)) STORED, v AS (x) VIRTUAL)",
    ]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    let values = [
        "NULL",
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "9007199254740993",
        "0.1 + 0.2",
        "1.0",
        "-0.0",
        "1e300",
        "5e-324",
        "9e999",
        "-9e999",
        "1.7976931348623157e308",
        "''",
        "'é\"\\'",
        "'12'",
        "'1e3'",
        "CAST(x'FF00FE' AS TEXT)",
        "CAST(x'610062' AS TEXT)",
        "x''",
        "x'00FF'",
        "x'7B7D'",
        "'[[[[[[[['",
        "char(10, 9, 1, 127, 8232, 128512)",
    ];
    let mut seed = 11_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        values[usize::try_from(seed >> 33).unwrap() % values.len()]
    };
    for (index, value) in values.iter().enumerate() {
        let row = format!("INSERT INTO t VALUES ({index}, {value}, {value}, {value}, {value}, {value}, {value})");
        database.writer.run(&[&row]);
    }
    for index in 100..300 {
        let row: Vec<_> = (0..6).map(|_| next()).collect();
        database.writer.run(&[&format!("INSERT INTO t VALUES ({index}, {})", row.join(", "))]);
    }
    let live = captured.all(&mut connector).await;
    let rows = scan_all(&mut connector, FeedId(0), 8192, false).await;
    assert_eq!(live.len(), values.len() + 200);
    let part = |taken: &Taken| {
        let body = taken.body.clone().unwrap();
        body[body.find("\"key\"").unwrap()..body.find(",\"source\"").unwrap()].to_owned()
    };
    for (live, row) in live.iter().zip(&rows) {
        assert_eq!(part(live), part(row), "byte for byte");
    }
    let of = |index: usize| part(&live[index]);
    assert!(of(3).contains(r#""i":9223372036854775807,"#) && of(5).contains(r#""x":9007199254740993,"#), "{} {}", of(3), of(5));
    assert!(of(6).contains(r#""x":0.30000000000000004,"#), "{}", of(6));
    assert!(of(8).contains(r#""x":-0.0,"#) && of(11).contains(r#""x":"Infinity","#) && of(12).contains(r#""r":"-Infinity","#));
    assert!(of(18).contains(r#""t":{"base64":"/wD+"},"#) && of(18).contains(r#""x":{"base64":"/wD+"},"#), "{}", of(18));
    assert!(of(19).contains(r#""t":"a\u0000b","#), "{}", of(19));
    assert!(of(21).contains(r#""b":"AP8=","x":"AP8=","g":"blob""#) && of(21).contains(r#""t":{"base64":"AP8="}"#), "{}", of(21));
    assert!(!of(0).contains(r#""v":"#), "computed columns are left out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_row_passes() {
    let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    database.writer.run(&["INSERT INTO t VALUES (1, zeroblob(100000000)), (2, 'small')"]);
    let live = captured.all(&mut connector).await;
    assert_eq!(live.len(), 2);
    assert!(live[0].body.as_ref().unwrap().len() > 133_333_332);
    let rows = scan_all(&mut connector, FeedId(0), 8192, true).await;
    assert_eq!(rows.iter().map(|row| row.body.as_ref().unwrap().len()).max().unwrap() / 1000, 133_333);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_tables_and_the_command_line_are_followed() {
    let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a ANY, b BLOB, r REAL) STRICT"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    database.writer.run(&["INSERT INTO t VALUES (1, x'00', x'01', 2)"]);
    let sql = "INSERT INTO t VALUES (2, 'text', NULL, 0.5); REPLACE INTO t VALUES (1, 5, NULL, -1);";
    let status = Command::new("sqlite3").arg(&database.path).arg(sql).status().expect("sqlite3 is there");
    assert!(status.success());
    let live = captured.all(&mut connector).await;
    let found: Vec<_> = live.iter().map(|taken| format!("{} {}", taken.brief(), taken.field("after"))).collect();
    assert_eq!(
        found,
        [
            r#"insert {"id":1} {"a":"AA==","b":"AQ==","id":1,"r":2.0}"#,
            r#"insert {"id":2} {"a":"text","b":null,"id":2,"r":0.5}"#,
            r#"update {"id":1} {"a":5,"b":null,"id":1,"r":-1.0}"#,
        ]
    );
    let clock = live[0].field("source")["committed_at"].as_str().unwrap().to_owned();
    assert_eq!(clock.len(), "2026-11-23T07:25:28.123456Z".len(), "{clock}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_is_a_delete_and_an_insert_that_name_both_keys() {
    let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES (1, 'a')"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    database.writer.run(&["UPDATE t SET id = 2"]);
    let pair = captured.all(&mut connector).await;
    assert_eq!(pair.iter().map(Taken::brief).collect::<Vec<_>>(), [r#"delete {"id":1}"#, r#"insert {"id":2}"#]);
    assert_eq!(pair[0].related.as_deref(), Some(r#"{"id":2}"#));
    assert_eq!(pair[1].related.as_deref(), Some(r#"{"id":1}"#));
    assert!(pair[0].id.ends_with("-0000000000000001-1-0000000000000000"), "{}", pair[0].id);
    assert!(pair[1].id.ends_with("-0000000000000001-1-0000000000000001"), "{}", pair[1].id);
    let source = pair[0].field("source");
    assert!(source["transaction"].is_null() && source["index"].is_null() && source["last"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_never_look_alike() {
    let values = [
        "'YQ=='",
        "x'61'",
        "'a'",
        "1",
        "'1'",
        "'1.0'",
        "x'31'",
        "1.5",
        "'1.5'",
        "9e999",
        "-9e999",
        "'Infinity'",
        "'-Infinity'",
        "'Inf'",
        "CAST(x'FF' AS TEXT)",
        "x'FF'",
        "'/w=='",
        "'a' || char(0) || 'b'",
        "'a' || char(0) || 'c'",
        "'{\"base64\":\"/w==\"}'",
        "'{\"text\":\"a\"}'",
        "9007199254740993",
        "9007199254740992.0",
        "10000000000000000",
        "1e300",
        "-0.0",
        "'NaN'",
        "'null'",
        "x''",
        "''",
    ];
    for declared in ["", "BLOB", "TEXT", "INTEGER", "REAL", "NUMERIC", "ANY"] {
        let strict = if declared == "ANY" { " STRICT" } else { " WITHOUT ROWID" };
        // Not an INTEGER PRIMARY KEY, which holds integers only.
        let mut database = Database::new(&[&format!("CREATE TABLE t (k {declared} NOT NULL, n INTEGER, PRIMARY KEY (k, n)){strict}")]);
        let (mut connector, captured) = database.established(vec![table("t", &["k", "n"])]).await;
        for value in values {
            // A TEXT column stores a number as its digits: 1 and '1' are one row for SQLite too.
            database.writer.run(&[&format!("INSERT OR IGNORE INTO t VALUES ({value}, 0)")]);
        }
        let rows = database.writer.run(&["SELECT count(*) FROM t"])[0][0].as_u64().unwrap();
        let live = captured.all(&mut connector).await;
        let keys: std::collections::BTreeSet<_> = live.iter().map(|taken| taken.key.clone()).collect();
        assert_eq!(keys.len() as u64, rows, "{declared}: {keys:#?}");
        let read = scan_all(&mut connector, FeedId(0), 8192, false).await;
        assert_eq!(read.into_iter().map(|row| row.key).collect::<std::collections::BTreeSet<_>>(), keys, "{declared}");
        for taken in &live {
            serde_json::from_str::<serde_json::Value>(&taken.key).unwrap_or_else(|error| panic!("{error}: {}", taken.key));
            assert_eq!(taken.field("after")["k"], taken.field("key")["k"], "a value is written in one way");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_names_the_type_that_is_unusual_in_its_column() {
    for (declared, value, key) in [
        ("BLOB", "x'61'", r#""YQ==""#),
        ("BLOB", "'YQ=='", r#"{"text":"YQ=="}"#),
        ("", "'YQ=='", r#""YQ==""#),
        ("", "x'61'", r#"{"base64":"YQ=="}"#),
        ("TEXT", "x'FF'", r#"{"base64":"/w=="}"#),
        ("TEXT", "CAST(x'FF' AS TEXT)", r#"{"text_base64":"/w=="}"#),
        ("REAL", "9e999", r#"{"real":"Infinity"}"#),
        ("REAL", "'Infinity'", r#""Infinity""#),
    ] {
        let mut database = Database::new(&[&format!("CREATE TABLE t (k {declared} PRIMARY KEY NOT NULL)")]);
        let (mut connector, captured) = database.established(vec![table("t", &["k"])]).await;
        database.writer.run(&[&format!("INSERT INTO t VALUES ({value})")]);
        assert_eq!(captured.all(&mut connector).await[0].key, format!("{{\"k\":{key}}}"), "{declared} {value}");
    }
}
