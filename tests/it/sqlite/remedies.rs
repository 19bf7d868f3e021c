//! The remedies that errors of the SQLite source name: each is applied where the error occurs, and a start then succeeds.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use super::{Database, table};
use crate::contract_source::verify;
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::Feed;
use feedline::source::SourceConnector;
use std::fmt::Write as _;

/// Checks that verification fails with this code and these words, and a start with the same code.
async fn refused(database: &Database, list: &[Feed], code: Code, words: &[&str]) {
    let mut connector = database.connector_of("shop");
    connector.select(crate::contract_source::feeds(list.to_vec()));
    let errors = verify(&mut connector).await.unwrap_err();
    let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(errors.iter().map(Classify::code).collect::<Vec<_>>(), [code], "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} is not in {text}");
    let error = connector.establish().await.unwrap_err();
    assert_eq!(error.code(), code, "a start fails in the same way: {error}");
    // What the failed start made stays, and does not hinder the next one.
}

/// Checks that a start succeeds, and that a change is published then.
async fn starts(database: &mut Database, list: Vec<Feed>, statement: &str) {
    let (mut connector, captured) = database.established(list).await;
    database.writer.run(&[statement]);
    assert_eq!(captured.all(&mut connector).await.len(), 1, "{statement}");
}

/// This many columns, each with this text behind its name.
fn columns(count: usize, behind: &str) -> String {
    (0..count).fold(String::new(), |mut list, index| {
        write!(list, "{}c{index}{behind}", if index == 0 { "" } else { ", " }).unwrap();
        list
    })
}

fn other() -> Feed {
    table("other", &["id"])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_named_statement_changes_the_journal_mode() {
    let mut database = Database::new(&["CREATE TABLE other (id INTEGER PRIMARY KEY)"]);
    database.writer.run(&["PRAGMA journal_mode = DELETE"]);
    let said = verify(&mut database.connector_of("shop")).await.unwrap_err().remove(0);
    assert_eq!(said.code(), Code::SqliteJournalMode);
    let text = said.to_string();
    let statement = text.split('`').find(|part| part.starts_with("PRAGMA")).unwrap();
    database.writer.run(&[statement]);
    starts(&mut database, vec![other()], "INSERT INTO other VALUES (1)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_database_is_checked_and_the_path_is_corrected() {
    let mut database = Database::new(&["CREATE TABLE other (id INTEGER PRIMARY KEY)"]);
    let right = database.path.clone();
    database.path = right.with_file_name("text.db");
    std::fs::write(&database.path, "no database, and long enough to be one".repeat(40)).unwrap();
    let said = verify(&mut database.connector_of("shop")).await.unwrap_err().remove(0);
    assert_eq!(said.code(), Code::SqliteFile);
    assert!(said.to_string().contains("check source.path") && said.to_string().contains("`PRAGMA integrity_check`"), "{said}");
    let shell = |path: &std::path::Path| std::process::Command::new("sqlite3").arg(path).arg("PRAGMA integrity_check").output().unwrap();
    assert!(!shell(&database.path).status.success());
    assert_eq!(shell(&right).stdout, b"ok\n");
    database.path = right;
    starts(&mut database, vec![other()], "INSERT INTO other VALUES (1)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_names_the_process_that_writes_and_begins_once_it_is_done() {
    let mut database = Database::new(&["CREATE TABLE other (id INTEGER PRIMARY KEY)"]);
    let mut connector = database.connector_of("shop");
    connector.select(crate::contract_source::feeds(vec![other()]));
    database.writer.run(&["BEGIN IMMEDIATE", "INSERT INTO other VALUES (7)"]);
    let error = connector.establish().await.unwrap_err();
    let writer = format!("process {} (\"python3\")", database.writer.child.id());
    assert_eq!((error.code(), error.fault()), (Code::SqliteLocked, Fault::Transient), "{error}");
    assert!(error.to_string().contains(&writer), "{writer} is not in {error}");
    database.writer.run(&["COMMIT"]);
    starts(&mut database, vec![other()], "INSERT INTO other VALUES (1)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_too_wide_is_split_or_left_out() {
    let wide = format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {})", columns(1996, ""));
    let mut database = Database::new(&[&wide, "CREATE TABLE other (id INTEGER PRIMARY KEY)"]);
    let list = [other(), table("t", &["id"])];
    refused(&database, &list, Code::SqliteTooWide, &["table `t` has 1998 columns", "leave the table out of the feeds, or split it"]).await;
    starts(&mut database, vec![other()], "INSERT INTO other VALUES (1)").await;
    let narrow = format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {})", columns(900, ""));
    database.writer.run(&["DROP TABLE t", &narrow]);
    starts(&mut database, vec![table("t", &["id"])], "INSERT INTO t (id) VALUES (1)").await;
}

/// `check` finds what only making the triggers shows, and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn triggers_that_sqlite_refuses_are_found_before_they_are_made() {
    // Its triggers compare all columns of the unique set in one expression.
    let deep = format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {}, UNIQUE ({}))", columns(1100, ""), columns(1100, ""));
    let mut database = Database::new(&[&deep, "CREATE TABLE other (id INTEGER PRIMARY KEY)", "CREATE VIEW v AS SELECT * FROM t"]);
    let list = [other(), table("t", &["id"])];
    let mut connector = database.connector_of("shop");
    connector.select(crate::contract_source::feeds(list.to_vec()));
    // An application writes meanwhile, and does not wait.
    database.writer.run(&["BEGIN IMMEDIATE", "INSERT INTO other VALUES (7)"]);
    let said = verify(&mut connector).await.unwrap_err();
    database.writer.run(&["COMMIT"]);
    assert_eq!(said.iter().map(Classify::code).collect::<Vec<_>>(), [Code::SqliteRefused], "{said:?}");
    let made = database.writer.run(&["SELECT count(*) FROM sqlite_schema WHERE name LIKE '%feedline%'"]);
    assert_eq!(made, serde_json::json!([[0]]));
    refused(&database, &list, Code::SqliteRefused, &["make triggers", "leave the table out of the feeds"]).await;
    starts(&mut database, vec![other()], "INSERT INTO other VALUES (1)").await;
    let few = format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {}, UNIQUE ({}))", columns(1100, ""), columns(100, ""));
    database.writer.run(&["DROP VIEW v", "DROP TABLE t", &few]);
    starts(&mut database, vec![table("t", &["id"])], "INSERT INTO t (id) VALUES (1)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_skips_others_is_rewritten() {
    for repaired in [
        "CREATE TRIGGER quiet AFTER INSERT ON t WHEN NEW.a IS NULL BEGIN SELECT RAISE(ABORT, 'no'); END",
        "CREATE TRIGGER quiet BEFORE INSERT ON t WHEN NEW.a IS NULL BEGIN SELECT RAISE(IGNORE); END",
    ] {
        let mut database = Database::new(&[
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a)",
            "CREATE TRIGGER quiet AFTER INSERT ON t WHEN NEW.a IS NULL BEGIN SELECT RAISE(IGNORE); END",
        ]);
        let mut connector = database.connector_of("shop");
        connector.select(crate::contract_source::feeds(vec![table("t", &["id"])]));
        let warnings = connector.preflight().await.unwrap().warnings;
        assert!(warnings[0].message.contains("use RAISE(ABORT), or a BEFORE trigger"), "{warnings:?}");
        database.writer.run(&["DROP TRIGGER quiet", repaired]);
        assert!(connector.preflight().await.unwrap().warnings.is_empty());
        starts(&mut database, vec![table("t", &["id"])], "INSERT INTO t VALUES (1, 'x')").await;
        // The trigger keeps the row out of the table, so no event is missing.
        let _kept_out = database.writer.try_run(&["INSERT INTO t VALUES (2, NULL)"]);
        assert_eq!(database.writer.run(&["SELECT count(*) FROM t"]), serde_json::json!([[1]]));
    }
}
