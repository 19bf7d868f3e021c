//! Schemas that need functions or collations of the application, and unusual names.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use super::{Database, table};
use crate::contract_source::{Taken, scan_all};
use feedline::event::FeedId;
use feedline::fault::Code;
use feedline::source::SourceConnector;
use std::path::Path;
use std::process::Command;

/// Runs Python on the database, with a collation and functions of its own.
fn python(path: &Path, statements: &[&str]) {
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)\n\
                  c.create_collation('german', lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower()))\n\
                  c.create_function('fold', 1, lambda a: a and a.lower(), deterministic=True)\n\
                  for s in sys.argv[2:]: c.execute(s)\n";
    let output = Command::new("python3").args(["-c", script]).arg(path).args(statements).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn collations_and_functions_of_the_application_do_no_harm() {
    for (schema, keys) in [
        (&["CREATE TABLE t (k TEXT COLLATE german PRIMARY KEY NOT NULL, v)"][..], ["é", "A", "b"]),
        (&["CREATE TABLE t (k TEXT COLLATE german PRIMARY KEY NOT NULL, v) WITHOUT ROWID"], ["é", "A", "b"]),
        (&["CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v)", "CREATE UNIQUE INDEX own ON t (v COLLATE german)"], ["é", "A", "b"]),
        (&["CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v)", "CREATE UNIQUE INDEX own ON t (fold(v))"], ["é", "A", "b"]),
        (
            &["CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v, g AS (fold(v)) STORED UNIQUE, h AS (fold(k)), CHECK (fold(v) <> 'x'))"],
            ["é", "A", "b"],
        ),
        (
            &[
                "CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v)",
                "CREATE TABLE other (v COLLATE german)",
                "CREATE TRIGGER own AFTER INSERT ON t BEGIN INSERT INTO other VALUES (fold(NEW.v)); END",
                "CREATE VIEW seen AS SELECT fold(v) AS f FROM t ORDER BY v COLLATE german",
            ],
            ["é", "A", "b"],
        ),
    ] {
        let database = Database::new(&[]);
        python(&database.path, schema);
        python(&database.path, &["INSERT INTO t (k, v) VALUES ('é', 'One'), ('A', 'Two')"]);
        let (mut connector, captured) = database.established(vec![table("t", &["k"])]).await;
        python(&database.path, &["INSERT INTO t (k, v) VALUES ('b', 'Three')", "UPDATE t SET v = 'Four' WHERE k = 'A'"]);
        let briefs: Vec<_> = captured.all(&mut connector).await.iter().map(Taken::brief).collect();
        assert_eq!(briefs, [r#"insert {"k":"b"}"#, r#"update {"k":"A"}"#], "{schema:?}");
        for bytes in [4096, 8192] {
            let rows = scan_all(&mut connector, FeedId(0), bytes, true).await;
            let found: std::collections::BTreeSet<_> = rows.iter().map(|row| row.key.clone()).collect();
            let expected = keys.iter().map(|key| format!("{{\"k\":\"{key}\"}}")).collect();
            assert_eq!((found, rows.len()), (expected, 3), "{schema:?}");
        }
        // A row is replaced because of an expression that only the writer can compute.
        if schema.iter().any(|sql| sql.contains("UNIQUE")) {
            python(&database.path, &["INSERT OR REPLACE INTO t (k, v) VALUES ('new', 'THREE')"]);
            let last: Vec<_> = captured.all(&mut connector).await.iter().skip(2).map(Taken::brief).collect();
            assert_eq!(last, [r#"delete {"k":"b"}"#, r#"insert {"k":"new"}"#], "{schema:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_any_kind_are_followed_or_left_out() {
    let odd = "o\"d'd\n[`é` 😀";
    let quoted = odd.replace('"', "\"\"");
    let mut database = Database::new(&[
        &format!("CREATE TABLE \"{quoted}\" (\"select\" INTEGER PRIMARY KEY, \"{quoted}\" UNIQUE, \"new\", \"r\", \"n\")"),
        "CREATE VIRTUAL TABLE words USING fts4 (body)",
        "CREATE VIEW v AS SELECT 1 AS id",
    ]);
    let torn = Command::new("sqlite3").arg(&database.path).arg(torn_name()).status().unwrap();
    assert!(torn.success());
    let (mut connector, captured) = database.established(vec![table(odd, &["select"])]).await;
    let names: Vec<_> = connector.catalogue().await.unwrap().tables.into_iter().map(|table| table.name).collect();
    assert!(names.iter().any(|name| **name == *odd) && !names.iter().any(|name| name.contains("words") || **name == *"v"), "{names:?}");
    database.writer.run(&[
        &format!("INSERT INTO \"{quoted}\" VALUES (1, 'a', 2, 3, 4)"),
        &format!("INSERT OR REPLACE INTO \"{quoted}\" VALUES (2, 'a', 2, 3, 4)"),
    ]);
    let briefs: Vec<_> = captured.all(&mut connector).await.iter().map(Taken::brief).collect();
    assert_eq!(briefs, [r#"insert {"select":1}"#, r#"delete {"select":1}"#, r#"insert {"select":2}"#]);
}

/// SQL that makes a table whose name is not UTF-8: the shell takes bytes as they are.
fn torn_name() -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt as _;
    let mut sql = b"CREATE TABLE \"to".to_vec();
    sql.push(0xFF);
    sql.extend_from_slice(b"\" (id INTEGER PRIMARY KEY)");
    std::ffi::OsString::from_vec(sql)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_skips_others_is_warned_of() {
    let database = Database::new(&[
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a)",
        "CREATE TRIGGER quiet AFTER INSERT ON t WHEN NEW.a IS NULL BEGIN SELECT RAISE(IGNORE); END",
    ]);
    let (mut connector, _) = database.established(vec![table("t", &["id"])]).await;
    let warnings = connector.preflight().await.unwrap().warnings;
    assert_eq!(warnings.iter().map(|warning| warning.code).collect::<Vec<_>>(), [Code::SqliteUnseen]);
    assert!(warnings[0].message.contains("`quiet`"), "{warnings:?}");
}
