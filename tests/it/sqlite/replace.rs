//! Events of INSERT OR REPLACE, UPSERT and the like, whatever the writer has set.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use super::{Database, table};
use crate::contract_source::scan_all;
use feedline::event::FeedId;

/// Runs statements on a table and compares their events, with `recursive_triggers` off and on.
async fn check(make: &[&str], key: &[&str], statements: &[&str], expected: &[&str]) {
    for recursive in ["OFF", "ON"] {
        let mut database = Database::new(make);
        let (mut connector, captured) = database.established(vec![table("t", key)]).await;
        database.writer.run(&[&format!("PRAGMA recursive_triggers = {recursive}")]);
        database.writer.run(statements);
        let taken = captured.all(&mut connector).await;
        let found: Vec<_> = taken.iter().map(|taken| format!("{} {}", taken.brief(), taken.field("after"))).collect();
        assert_eq!(found, expected, "{statements:?} with recursive_triggers = {recursive}");
        // The events end in the table's state.
        let rows = scan_all(&mut connector, FeedId(0), 4096, false).await;
        let mut state = std::collections::BTreeMap::new();
        for taken in taken {
            let after = taken.field("after");
            if after.is_null() {
                state.remove(&taken.key)
            } else {
                state.insert(taken.key, after)
            };
        }
        let rows = rows.into_iter().map(|row| (row.key.clone(), row.field("after"))).collect();
        assert_eq!(state, rows, "{statements:?} with recursive_triggers = {recursive}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_over_the_same_key_is_an_update() {
    check(
        &["CREATE TABLE t (id INTEGER PRIMARY KEY, a)"],
        &["id"],
        &["INSERT INTO t VALUES (1, 'a')", "INSERT OR REPLACE INTO t VALUES (1, 'b'), (2, 'c')", "REPLACE INTO t VALUES (1, 'd')"],
        &[
            r#"insert {"id":1} {"a":"a","id":1}"#,
            r#"update {"id":1} {"a":"b","id":1}"#,
            r#"insert {"id":2} {"a":"c","id":2}"#,
            r#"update {"id":1} {"a":"d","id":1}"#,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_other_keys_that_replace_deletes_are_deleted_first() {
    check(
        &["CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, b, c, UNIQUE (b, c))"],
        &["id"],
        &[
            "INSERT INTO t VALUES (1, 'a', 1, 1), (2, 'b', 2, 2), (3, 'c', NULL, 3)",
            "INSERT OR REPLACE INTO t VALUES (4, 'a', 2, 2)",
            "INSERT OR REPLACE INTO t VALUES (3, 'a', NULL, 3)",
            "UPDATE OR REPLACE t SET a = 'z' WHERE id = 3",
            "INSERT INTO t VALUES (5, 'y', 5, 5)",
            "UPDATE OR REPLACE t SET a = 'z' WHERE id = 5",
            "INSERT INTO t VALUES (6, 'x', 6, 6)",
            "UPDATE OR REPLACE t SET id = 6 WHERE id = 5",
        ],
        &[
            r#"insert {"id":1} {"a":"a","b":1,"c":1,"id":1}"#,
            r#"insert {"id":2} {"a":"b","b":2,"c":2,"id":2}"#,
            r#"insert {"id":3} {"a":"c","b":null,"c":3,"id":3}"#,
            r#"delete {"id":2} null"#,
            r#"delete {"id":1} null"#,
            r#"insert {"id":4} {"a":"a","b":2,"c":2,"id":4}"#,
            r#"delete {"id":4} null"#,
            r#"update {"id":3} {"a":"a","b":null,"c":3,"id":3}"#,
            r#"update {"id":3} {"a":"z","b":null,"c":3,"id":3}"#,
            r#"insert {"id":5} {"a":"y","b":5,"c":5,"id":5}"#,
            r#"delete {"id":3} null"#,
            r#"update {"id":5} {"a":"z","b":5,"c":5,"id":5}"#,
            r#"insert {"id":6} {"a":"x","b":6,"c":6,"id":6}"#,
            r#"delete {"id":6} null"#,
            r#"delete {"id":5} null"#,
            r#"insert {"id":6} {"a":"z","b":5,"c":5,"id":6}"#,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_and_upserted_rows_delete_nothing() {
    check(
        &["CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE)"],
        &["id"],
        &[
            "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
            "INSERT OR IGNORE INTO t VALUES (1, 'x'), (3, 'a')",
            "INSERT INTO t VALUES (4, 'b') ON CONFLICT DO NOTHING",
            "INSERT INTO t VALUES (2, 'u') ON CONFLICT (id) DO UPDATE SET a = excluded.a",
            "DELETE FROM t WHERE id = 1",
            "INSERT INTO t VALUES (1, 'a')",
            "UPDATE t SET id = 9 WHERE id = 2",
            "INSERT INTO t VALUES (2, 'b')",
        ],
        &[
            r#"insert {"id":1} {"a":"a","id":1}"#,
            r#"insert {"id":2} {"a":"b","id":2}"#,
            r#"update {"id":2} {"a":"u","id":2}"#,
            r#"delete {"id":1} null"#,
            r#"insert {"id":1} {"a":"a","id":1}"#,
            r#"delete {"id":2} null"#,
            r#"insert {"id":9} {"a":"u","id":9}"#,
            r#"insert {"id":2} {"a":"b","id":2}"#,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_deletes_rows_by_partial_and_computed_indexes_too() {
    check(
        &[
            "CREATE TABLE t (id INTEGER PRIMARY KEY, \"the mail\" TEXT, active, g AS (id * 2))",
            "CREATE UNIQUE INDEX mail ON t (lower(\"the mail\") DESC, g / g)",
            "CREATE UNIQUE INDEX one ON t (active) WHERE active = 1",
        ],
        &["id"],
        &[
            "INSERT INTO t VALUES (1, 'A@b', 0), (2, 'c@d', 1), (3, 'e@f', 0)",
            "INSERT OR REPLACE INTO t VALUES (4, 'a@B', 0)",
            "INSERT OR REPLACE INTO t VALUES (5, 'g@h', 1)",
            "UPDATE OR REPLACE t SET active = 1 WHERE id = 3",
        ],
        &[
            r#"insert {"id":1} {"active":0,"id":1,"the mail":"A@b"}"#,
            r#"insert {"id":2} {"active":1,"id":2,"the mail":"c@d"}"#,
            r#"insert {"id":3} {"active":0,"id":3,"the mail":"e@f"}"#,
            r#"delete {"id":1} null"#,
            r#"insert {"id":4} {"active":0,"id":4,"the mail":"a@B"}"#,
            r#"delete {"id":2} null"#,
            r#"insert {"id":5} {"active":1,"id":5,"the mail":"g@h"}"#,
            r#"delete {"id":5} null"#,
            r#"update {"id":3} {"active":1,"id":3,"the mail":"e@f"}"#,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_collation_calls_equal_are_two_keys() {
    check(
        &["CREATE TABLE t (k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, a)"],
        &["k"],
        &["INSERT INTO t VALUES ('x', 1), ('y', 1)", "REPLACE INTO t VALUES ('X', 2)", "UPDATE t SET k = 'Y' WHERE k = 'y'"],
        &[
            r#"insert {"k":"x"} {"a":1,"k":"x"}"#,
            r#"insert {"k":"y"} {"a":1,"k":"y"}"#,
            r#"delete {"k":"x"} null"#,
            r#"insert {"k":"X"} {"a":2,"k":"X"}"#,
            r#"delete {"k":"y"} null"#,
            r#"insert {"k":"Y"} {"a":1,"k":"Y"}"#,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn composite_keys_and_odd_names_are_followed() {
    check(
        &[
            "PRAGMA foreign_keys = ON",
            "CREATE TABLE \"pa\"\"rent\" (id INTEGER PRIMARY KEY)",
            "CREATE TABLE t (\"b\"\"x\" INT, \"é.ö\" TEXT, a REFERENCES \"pa\"\"rent\" ON DELETE CASCADE, PRIMARY KEY (\"é.ö\", \"b\"\"x\")) WITHOUT ROWID",
        ],
        &["b\"x", "é.ö"],
        &[
            "INSERT INTO \"pa\"\"rent\" VALUES (1), (2)",
            "INSERT INTO t VALUES (1, 'p', 1), (2, 'p', 2)",
            "REPLACE INTO t VALUES (1, 'p', 2)",
            "UPDATE t SET \"é.ö\" = 'q' WHERE \"b\"\"x\" = 2",
            "DELETE FROM \"pa\"\"rent\" WHERE id = 2",
        ],
        &[
            r#"insert {"b\"x":1,"é.ö":"p"} {"a":1,"b\"x":1,"é.ö":"p"}"#,
            r#"insert {"b\"x":2,"é.ö":"p"} {"a":2,"b\"x":2,"é.ö":"p"}"#,
            r#"update {"b\"x":1,"é.ö":"p"} {"a":2,"b\"x":1,"é.ö":"p"}"#,
            r#"delete {"b\"x":2,"é.ö":"p"} null"#,
            r#"insert {"b\"x":2,"é.ö":"q"} {"a":2,"b\"x":2,"é.ö":"q"}"#,
            r#"delete {"b\"x":1,"é.ö":"p"} null"#,
            r#"delete {"b\"x":2,"é.ö":"q"} null"#,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_that_write_the_same_table_hide_nothing() {
    check(
        &[
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, up REFERENCES t ON DELETE SET NULL)",
            "CREATE TRIGGER nested BEFORE INSERT ON t WHEN NEW.id = 10 BEGIN INSERT OR IGNORE INTO t VALUES (11, 'n', NULL); END",
        ],
        &["id"],
        &["INSERT INTO t VALUES (1, 'a', NULL), (2, 'b', 1)", "PRAGMA foreign_keys = ON", "REPLACE INTO t VALUES (10, 'a', NULL)"],
        &[
            r#"insert {"id":1} {"a":"a","id":1,"up":null}"#,
            r#"insert {"id":2} {"a":"b","id":2,"up":1}"#,
            r#"insert {"id":11} {"a":"n","id":11,"up":null}"#,
            r#"update {"id":2} {"a":"b","id":2,"up":null}"#,
            r#"delete {"id":1} null"#,
            r#"insert {"id":10} {"a":"a","id":10,"up":null}"#,
        ],
    )
    .await;
}
