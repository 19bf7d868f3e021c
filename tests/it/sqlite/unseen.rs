//! Changes that the triggers cannot log: definitions that change how stored rows read, triggers that somebody changed, rows that are
//! deleted because of a new index.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use super::{Captured, Database, assert_refusal, refused, table};
use crate::contract_source::{Stream, TIMEOUT, head};
use feedline::checkpoint::{FeedState, Layout};
use feedline::fault::{Code, Fault};
use feedline::source::sqlite::{Connector, Log};
use feedline::source::{Reread, Resume, SourceConnector};
use std::time::Instant;

/// Connects where the log begins, with a remembered layout. Returns the layout to remember next, and why to read the table again.
async fn connect(connector: &mut Connector, captured: &Captured, known: Option<Layout>) -> (Stream<Log>, Layout, Option<Reread>) {
    let feeds = vec![FeedState::Live { start: captured.begin.clone() }];
    let resume = Resume { token: captured.begin.clone(), feeds, layouts: vec![known.clone()] };
    let mut stream = Stream::new(connector.connect(&captured.known, &resume).await.unwrap(), &captured.feeds, &resume, 4096);
    let table_change = stream.source.table_changes().pop();
    let (layout, reread) = table_change.map_or((known, None), |table_change| (Some(table_change.layout), table_change.reread));
    (stream, layout.unwrap(), reread)
}

/// Waits until a running source asks to read the table again.
async fn noticed(stream: &mut Stream<Log>) -> Reread {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        assert!(Instant::now() < deadline, "it is noticed");
        let _quiet = tokio::time::timeout(std::time::Duration::from_millis(100), stream.batch(None)).await;
        if let Some(reread) = stream.source.table_changes().pop().and_then(|table_change| table_change.reread) {
            return reread;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_changes_how_stored_rows_read_has_them_read_again() {
    for (change, again) in [
        ("ALTER TABLE t ADD COLUMN c", None),
        ("ALTER TABLE t ADD COLUMN c DEFAULT NULL", None),
        ("ALTER TABLE t ADD COLUMN c INTEGER NOT NULL DEFAULT 5", Some("`c` was added with a default")),
        ("ALTER TABLE t RENAME COLUMN a TO c", Some("its columns were changed")),
        (
            "ALTER TABLE t RENAME COLUMN a TO x; ALTER TABLE t RENAME COLUMN b TO a; ALTER TABLE t RENAME COLUMN x TO b",
            Some("columns were changed"),
        ),
        ("CREATE INDEX plain ON t (a)", None),
        ("CREATE UNIQUE INDEX only ON t (a)", None),
        (
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'b TEXT', 'b REAL') WHERE name = 't'; PRAGMA writable_schema = RESET",
            Some("columns were changed"),
        ),
    ] {
        let mut database =
            Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT)", "INSERT INTO t VALUES (1, 'a', 'b')"]);
        let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
        let (stream, known, first) = connect(&mut connector, &captured, None).await;
        assert_eq!(first, None, "a table that is seen for the first time has not changed");
        drop(stream);
        let (stream, known, second) = connect(&mut connector, &captured, Some(known)).await;
        assert_eq!(second, None);
        drop(stream);
        database.writer.run(&change.split("; ").collect::<Vec<_>>());
        let (stream, known, reread) = connect(&mut connector, &captured, Some(known)).await;
        assert_eq!(reread.is_some(), again.is_some(), "{change}: {reread:?}");
        if let (Some(reread), Some(again)) = (reread, again) {
            assert!(!reread.reset && reread.reason.contains(again), "{change}: {reread:?}");
        }
        drop(stream);
        let (_, _, once) = connect(&mut connector, &captured, Some(known)).await;
        assert_eq!(once, None, "{change}: it is read again once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_added_while_running_is_noticed_without_another_write() {
    let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES (1, 'a')"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    let (mut stream, ..) = connect(&mut connector, &captured, None).await;
    database.writer.run(&["BEGIN", "ALTER TABLE t ADD COLUMN b DEFAULT 7", "INSERT INTO t VALUES (2, 'x', 8)", "COMMIT"]);
    // Nobody writes any more.
    let taken = stream.take(2).await;
    let found: Vec<_> = taken.iter().map(|taken| format!("{} {}", taken.brief(), taken.field("after"))).collect();
    assert_eq!(found, [r#"insert {"id":2} {"a":"x","id":2}"#, r#"update {"id":2} {"a":"x","b":8,"id":2}"#]);
    let reread = noticed(&mut stream).await;
    assert!(!reread.reset && reread.reason.contains("`b`"), "{reread:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_added_while_the_application_holds_the_lock_is_noticed_afterwards() {
    let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    let (mut stream, ..) = connect(&mut connector, &captured, None).await;
    let mut other = super::Writer::new(&database.path, "5");
    database.writer.run(&["ALTER TABLE t ADD COLUMN b", "INSERT INTO t VALUES (1, 'x', 8)"]);
    other.run(&["BEGIN IMMEDIATE"]);
    // Long enough for the reader to meet the lock, which nothing shows. Whether or not it does, it compares again without another commit.
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    other.run(&["ROLLBACK"]);
    let taken = stream.take(2).await;
    assert_eq!(taken[1].field("after")["b"], 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unique_index_made_meanwhile_leaves_no_ghosts() {
    for is_running in [false, true] {
        let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')"]);
        let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
        let (mut stream, known, _) = connect(&mut connector, &captured, None).await;
        let change = ["BEGIN", "CREATE UNIQUE INDEX only ON t (a)", "INSERT OR REPLACE INTO t VALUES (3, 'a')", "COMMIT"];
        let reread = if is_running {
            database.writer.run(&change);
            noticed(&mut stream).await
        } else {
            drop(stream);
            database.writer.run(&change);
            connect(&mut connector, &captured, Some(known)).await.2.unwrap()
        };
        assert!(reread.reset && reread.reason.contains("unique index"), "row 1 is gone, and no trigger logged it: {reread:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_that_somebody_removed_or_changed_are_a_gap() {
    for change in [
        "DROP TRIGGER _feedline_shop_1_d",
        "DROP TRIGGER _feedline_shop_1_u; CREATE TRIGGER _feedline_shop_1_u AFTER UPDATE ON t WHEN 0 BEGIN SELECT 1; END",
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = '_feedline_shop_1_i'; PRAGMA writable_schema = RESET",
    ] {
        let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)", "CREATE TABLE u (id INTEGER PRIMARY KEY)"]);
        let (mut connector, captured) = database.established(vec![table("t", &["id"]), table("u", &["id"])]).await;
        let stream = captured.connect(&mut connector).await.unwrap();
        database.writer.run(
            &change
                .split("; ")
                .flat_map(|part| if part == "END" || part.starts_with("CREATE TRIGGER") { vec![] } else { vec![part] })
                .collect::<Vec<_>>(),
        );
        if change.contains("CREATE TRIGGER") {
            database.writer.run(&["CREATE TRIGGER _feedline_shop_1_u AFTER UPDATE ON t WHEN 0 BEGIN SELECT 1; END"]);
        }
        database.writer.run(&["INSERT INTO t VALUES (1, 'unseen')"]);
        drop(stream);
        let token = captured.begin.clone();
        let resume = crate::contract_source::live(&token, &captured.begin, 2);
        let found = connector.resumable(&captured.known, &resume).await.unwrap_err();
        assert_refusal(&found, Code::SourceLogLost, Fault::Gap, "`t`");
        assert_refusal(&refused(captured.connect(&mut connector).await).await, Code::SourceLogLost, Fault::Gap, "`t`");
        // Nothing is missing of the other table.
        let renewed = connector.renew(&captured.known, &resume).await.unwrap();
        assert_eq!((renewed.feeds.len(), renewed.token), (1, token), "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_columns_are_no_gap_with_any_index() {
    let mut database = Database::new(&[
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT NOT NULL DEFAULT 'x', g AS (a || 'g'))",
        "CREATE UNIQUE INDEX one ON t (lower(a), b) WHERE a IS NOT NULL",
        "CREATE UNIQUE INDEX two ON t (g)",
    ]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    let stream = captured.connect(&mut connector).await.unwrap();
    drop(stream);
    database.writer.run(&["ALTER TABLE t RENAME COLUMN a TO c", "INSERT INTO t (id, c) VALUES (1, 'v')"]);
    let end = head(&mut connector).await;
    let mut stream = captured.connect(&mut connector).await.unwrap();
    stream.batches(&end).await;
    database.writer.run(&["INSERT INTO t (id, c) VALUES (2, 'w')"]);
}
