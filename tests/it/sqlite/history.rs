//! A log that goes back: restored copies, counters that are set back, files that are removed while they are open.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use super::{Captured, Database, assert_refusal, refused, table};
use crate::contract_source::{Stream, TIMEOUT, head, live};
use feedline::checkpoint::{FeedState, ResumeToken};
use feedline::fault::{Classify, Code, Fault};
use feedline::source::sqlite::{Connector, Log};
use feedline::source::{Prefeed, Probe, Resume, SourceConnector};
use std::process::Command;
use std::time::{Duration, Instant};

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, a)";

/// A stream that has read everything, and its token.
async fn drained(database: &Database, connector: &mut Connector, captured: &Captured) -> (Stream<Log>, ResumeToken) {
    let end = head(connector).await;
    let mut stream = captured.connect(connector).await.unwrap();
    stream.batches(&end).await;
    let token = stream.source.token();
    assert!(database.path.exists());
    (stream, token)
}

/// Waits until the log holds this many rows.
async fn wait_for_rows(database: &mut Database, rows: i64) {
    let deadline = Instant::now() + 2 * TIMEOUT;
    loop {
        let left = database.writer.run(&["SELECT count(*) FROM _feedline_shop_log"])[0][0].as_i64().unwrap();
        if left == rows {
            return;
        }
        assert!(Instant::now() < deadline, "{left} rows are left in the log");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Copies the database to another file.
fn copy(database: &mut Database) -> std::path::PathBuf {
    let copy = database.path.with_extension("copy");
    let backup = format!("VACUUM INTO '{}'", copy.display());
    database.writer.run(&[&backup]);
    copy
}

/// Restores a copy with `.restore`: through SQLite, while others have the file open.
fn restore(database: &Database, copy: &std::path::Path) {
    let status = Command::new("sqlite3").arg(&database.path).arg(format!(".restore {}", copy.display())).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_is_set_back_hides_nothing() {
    let mut database = Database::new(&[TABLE, "INSERT INTO t VALUES (0, 'before')"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    for id in 1..=9 {
        database.writer.run(&[&format!("INSERT INTO t VALUES ({id}, 'x')")]);
    }
    let (mut stream, token) = drained(&database, &mut connector, &captured).await;
    stream.source.acknowledge(Some(&token)).await.unwrap();
    wait_for_rows(&mut database, 1).await;
    // While the reader runs, the next row is read.
    database.writer.run(&["DELETE FROM sqlite_sequence", "INSERT INTO t VALUES (10, 'after')"]);
    let seen = stream.take(1).await;
    assert_eq!(seen[0].brief(), r#"insert {"id":10}"#);
    let token = stream.source.token();
    drop(stream);
    // While it is stopped too.
    database.writer.run(&["DELETE FROM sqlite_sequence", "INSERT INTO t VALUES (11, 'after')"]);
    let mut stream = captured.connect_at(&mut connector, &token).await.unwrap();
    let next = stream.take(1).await;
    assert_eq!(next[0].brief(), r#"insert {"id":11}"#);
    assert!(seen[0].id < next[0].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_restored_in_place_is_noticed_however_much_is_written_to_it() {
    for writes in [0, 1, 4, 5, 50] {
        let mut database = Database::new(&[TABLE]);
        let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
        database.writer.run(&["INSERT INTO t VALUES (1, 'a')"]);
        let older = copy(&mut database);
        for id in 2..=5 {
            database.writer.run(&[&format!("INSERT INTO t VALUES ({id}, 'lost')")]);
        }
        let (stream, token) = drained(&database, &mut connector, &captured).await;
        drop(stream);
        restore(&database, &older);
        for id in 2..2 + writes {
            database.writer.run(&[&format!("INSERT INTO t VALUES ({id}, 'other')")]);
        }
        let resume = live(&token, &captured.begin, 1);
        let found = connector.resumable(&captured.known, &resume).await.unwrap_err();
        assert_refusal(&found, Code::SourceRewound, Fault::Gap, "was rewound");
        let error = refused(captured.connect_at(&mut connector, &token).await).await;
        assert_refusal(&error, Code::SourceRewound, Fault::Gap, "on_gap");
        // The remedy: every table is read again, and what follows sorts behind what was published.
        let renewed = connector.renew(&captured.known, &resume).await.unwrap();
        assert_eq!(renewed.feeds.len(), 1);
        // A start with the old checkpoint finds the gap again.
        assert_eq!(refused(captured.connect_at(&mut connector, &token).await).await.code(), Code::SourceRewound);
        let again = Resume { token: renewed.token, feeds: vec![FeedState::Again { start: None, reset: true }], layouts: Vec::new() };
        let mut stream = Stream::new(connector.connect(&captured.known, &again).await.unwrap(), &captured.feeds, &again, 4096);
        let cut = head(&mut connector).await;
        stream.source.start(feedline::event::FeedId(0), &cut);
        stream.batches(&cut).await;
        database.writer.run(&["INSERT INTO t VALUES (1000, 'new')"]);
        let new = stream.take(1).await;
        assert_eq!(new[0].brief(), r#"insert {"id":1000}"#);
        assert!(new[0].id.as_str() > "shop/FFFFFFFF" || new[0].id.contains("-00000002"), "{}", new[0].id);
        // The new log is recognized again.
        let token = stream.source.token();
        drop(stream);
        captured.connect_at(&mut connector, &token).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_restored_under_a_running_reader_is_neither_published_nor_trimmed() {
    let mut database = Database::new(&[TABLE]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    database.writer.run(&["INSERT INTO t VALUES (1, 'a')"]);
    let older = copy(&mut database);
    database.writer.run(&["INSERT INTO t VALUES (2, 'lost'), (3, 'lost')"]);
    let (mut stream, token) = drained(&database, &mut connector, &captured).await;
    stream.source.acknowledge(Some(&token)).await.unwrap();
    let mut probe = connector.probe().await.unwrap();
    assert!(probe.head(&token).await.unwrap().caught_up);
    let mut prefeed = connector.prefeed().await.unwrap();
    restore(&database, &older);
    // More rows than were lost, so that the numbers go beyond the old ones.
    database.writer.run(&["INSERT INTO t VALUES (2, 'b'), (3, 'b'), (4, 'b'), (5, 'b')"]);
    let (read, error) = stream.failure().await;
    assert!(read.is_empty(), "{read:?}");
    assert_refusal(&error, Code::SourceRewound, Fault::Gap, "was rewound");
    assert_eq!(probe.head(&token).await.unwrap_err().code(), Code::SourceRewound, "lag is unknown, and not 0");
    let opened = prefeed.open(&[], Duration::from_secs(1)).await;
    assert_eq!(opened.unwrap_err().code(), Code::SourceRewound, "rows of another state are not read as existing ones");
    let kept = database.writer.run(&["SELECT count(*) FROM _feedline_shop_log"]);
    assert_eq!(kept[0][0], 5, "nothing was removed that was not confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_removed_is_opened_again() {
    let mut database = Database::new(&[TABLE]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    database.writer.run(&["INSERT INTO t VALUES (1, 'a')"]);
    let (mut stream, _) = drained(&database, &mut connector, &captured).await;
    // A script that restores a backup removes them. Without this error all further commits would be missed.
    let beside = |suffix: &str| format!("{}{suffix}", database.path.display());
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(beside(suffix)).unwrap();
    }
    let (_, error) = stream.failure().await;
    assert_refusal(&error, Code::SourceUnreachable, Fault::Transient, "was replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_removes_from_the_log_are_noticed() {
    let mut database = Database::new(&[TABLE]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    database.writer.run(&["INSERT INTO t VALUES (1, 'a'), (2, 'b')"]);
    let (stream, token) = drained(&database, &mut connector, &captured).await;
    drop(stream);
    database.writer.run(&["DELETE FROM _feedline_shop_log", "DELETE FROM sqlite_sequence", "INSERT INTO t VALUES (3, 'c')"]);
    assert_refusal(&refused(captured.connect_at(&mut connector, &token).await).await, Code::SourceRewound, Fault::Gap, "ends before");
}
