//! Tables that change, and databases that cannot be a source.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use super::{Database, Directory, Writer, assert_refusal, refused, table};
use crate::contract_source::{Stream, TIMEOUT, Workload, feeds, head, verify};
use feedline::checkpoint::FeedState;
use feedline::event::FeedId;
use feedline::fault::{Code, Fault};
use feedline::source::sqlite::{Connector, Options};
use feedline::source::{Resume, SourceConnector};
use feedline::status::metrics::Metrics;
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn an_added_column_is_followed_and_rows_written_meanwhile_come_again() {
    let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    // While feedline is down the old triggers log rows without the new column.
    database.writer.run(&[
        "INSERT INTO t VALUES (1, 'old')",
        "ALTER TABLE t ADD COLUMN b DEFAULT 'd'",
        "INSERT INTO t VALUES (2, 'x', 'between')",
    ]);
    let mut stream = captured.connect(&mut connector).await.unwrap();
    let mut taken = stream.take(4).await;
    // And while it runs.
    database.writer.run(&["INSERT INTO t VALUES (3, 'y', 'after')"]);
    taken.extend(stream.take(1).await);
    database.writer.run(&["ALTER TABLE t RENAME COLUMN a TO c"]);
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let layouts = database.writer.run(&["SELECT count(*) FROM _feedline_shop_tables"]);
        if layouts[0][0].as_i64() == Some(3) {
            break;
        }
        assert!(Instant::now() < deadline, "the triggers are rebuilt");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    database.writer.run(&["INSERT INTO t VALUES (4, 'z', 'last')"]);
    let last = stream.take(1).await;
    let found: Vec<_> = taken.iter().chain(&last).map(|taken| format!("{} {}", taken.brief(), taken.field("after"))).collect();
    assert_eq!(
        found,
        [
            r#"insert {"id":1} {"a":"old","id":1}"#,
            r#"insert {"id":2} {"a":"x","id":2}"#,
            r#"update {"id":1} {"a":"old","b":"d","id":1}"#,
            r#"update {"id":2} {"a":"x","b":"between","id":2}"#,
            r#"insert {"id":3} {"a":"y","b":"after","id":3}"#,
            r#"insert {"id":4} {"b":"last","c":"z","id":4}"#,
        ]
    );
    // Read from the beginning again, it is the same byte for byte.
    drop(stream);
    let whole: Vec<_> = taken.into_iter().chain(last).collect();
    assert_eq!(captured.all(&mut connector).await, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone_or_made_again_is_named() {
    let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    let mut stream = captured.connect(&mut connector).await.unwrap();
    database.writer.run(&["BEGIN", "INSERT INTO t VALUES (1, 'a')", "ALTER TABLE t RENAME TO u", "COMMIT"]);
    // What was written before is handed over first.
    assert_eq!(stream.take(1).await[0].brief(), r#"insert {"id":1}"#);
    assert_refusal(&refused(Ok(stream)).await, Code::TableChanged, Fault::Fatal, "`t` is gone");
    assert_refusal(&refused(captured.connect(&mut connector).await).await, Code::TableChanged, Fault::Fatal, "`t` is gone");
    // After it is renamed back nothing is missing.
    database.writer.run(&["INSERT INTO u VALUES (2, 'b')", "ALTER TABLE u RENAME TO t", "INSERT INTO t VALUES (3, 'c')"]);
    let mut stream = captured.connect(&mut connector).await.unwrap();
    assert_eq!(stream.take(3).await.len(), 3);
    // Made again as SQLite's manual recommends: the triggers are dropped with the old table.
    database.writer.run(&[
        "BEGIN",
        "CREATE TABLE n (id INTEGER PRIMARY KEY, b)",
        "INSERT INTO n SELECT * FROM t",
        "DROP TABLE t",
        "ALTER TABLE n RENAME TO t",
        "COMMIT",
    ]);
    assert_refusal(&refused(Ok(stream)).await, Code::SourceLogLost, Fault::Gap, "`t`");
    assert_refusal(&refused(captured.connect(&mut connector).await).await, Code::SourceLogLost, Fault::Gap, "`t`");
    // Where the table's rows are still to be read, it is followed from here on.
    let resume = Resume { token: captured.begin.clone(), feeds: vec![FeedState::Pending], layouts: Vec::new() };
    let mut stream = Stream::new(connector.connect(&captured.known, &resume).await.unwrap(), &captured.feeds, &resume, 4096);
    let cut = head(&mut connector).await;
    stream.source.start(FeedId(0), &cut);
    stream.batches(&cut).await;
    database.writer.run(&["INSERT INTO t VALUES (9, 'new')"]);
    assert_eq!(stream.take(1).await[0].brief(), r#"insert {"id":9}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_or_an_older_copy_is_refused() {
    let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    let copy = database.path.with_extension("copy");
    let backup = format!("VACUUM INTO '{}'", copy.display());
    database.writer.run(&["INSERT INTO t VALUES (1, 'a')", &backup, "INSERT INTO t VALUES (2, 'b')"]);
    let end = head(&mut connector).await;
    let mut stream = captured.connect_at(&mut connector, &end).await.unwrap();
    // The file is replaced while a reader runs.
    let wal = Command::new("sqlite3").arg(&copy).arg("PRAGMA journal_mode = WAL").output().unwrap();
    assert!(wal.status.success());
    std::fs::rename(&copy, &database.path).unwrap();
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", database.path.display())).unwrap();
    }
    let begun = Instant::now();
    let (_, error) = stream.failure().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_refusal(&error, Code::SourceUnreachable, Fault::Transient, "was replaced");
    drop(stream);
    let rewound = refused(captured.connect_at(&mut connector, &end).await).await;
    assert_refusal(&rewound, Code::SourceRewound, Fault::Gap, "was rewound");
    // A database without our log, and one with another log.
    let other = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)"]);
    let mut foreign = other.connector_of("shop");
    foreign.select(Arc::clone(&captured.feeds));
    assert_refusal(&refused(captured.connect(&mut foreign).await).await, Code::SourceForeign, Fault::Gap, "no change log");
    let (mut foreign, theirs) = other.established(vec![table("t", &["id"])]).await;
    assert_ne!(theirs.known, captured.known);
    assert_refusal(
        &refused(captured.connect_at(&mut foreign, &theirs.begin).await).await,
        Code::SourceForeign,
        Fault::Gap,
        "not the database",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_tables_that_cannot_be_a_source_are_named() {
    let directory = Directory::new();
    let path = directory.0.join("x.db");
    let open = |path: &Path| {
        let options = Options { path: path.to_owned(), pipeline: "shop".into() };
        Connector::new(options, Metrics::new("shop").source)
    };
    assert_refusal(&open(&path).catalogue().await.unwrap_err(), Code::SourceUnreachable, Fault::Transient, "x.db");
    assert!(!path.exists(), "nothing is made");
    std::fs::write(&path, "this is a text file, and a rather long one, so that it has a header of its own").unwrap();
    assert_refusal(&open(&path).catalogue().await.unwrap_err(), Code::SqliteFile, Fault::Fatal, "not a SQLite database");
    std::fs::remove_file(&path).unwrap();
    let mut writer = Writer::new(&path, "5");
    writer.run(&["CREATE TABLE t (id INTEGER PRIMARY KEY)"]);
    assert_refusal(&verify(&mut open(&path)).await.unwrap_err()[0], Code::SqliteJournalMode, Fault::Fatal, "PRAGMA journal_mode = WAL");

    let mut database =
        Database::new(&["CREATE TABLE keyless (a)", "CREATE TABLE nullable (a, b, UNIQUE (a))", "CREATE TABLE loose (k TEXT PRIMARY KEY)"]);
    for (name, key, says) in [
        ("keyless", &[][..], "no primary key"),
        ("keyless", &["a"][..], "unique index on exactly (a)"),
        ("nullable", &["a"][..], "may be NULL"),
        ("nullable", &["x"][..], "`x` does not exist"),
    ] {
        let mut connector = database.connector();
        connector.select(feeds(vec![table(name, key)]));
        assert_refusal(&verify(&mut connector).await.unwrap_err()[0], Code::TableKeyless, Fault::Fatal, says);
    }
    let mut connector = database.connector();
    connector.select(feeds(vec![table("absent", &["id"])]));
    assert_refusal(&verify(&mut connector).await.unwrap_err()[0], Code::TableChanged, Fault::Fatal, "`absent` is gone");
    // SQLite allows NULL in such a primary key. A row with NULL is refused.
    let (mut connector, captured) = database.established(vec![table("loose", &["k"])]).await;
    database.writer.run(&["INSERT INTO loose VALUES (NULL)"]);
    assert_refusal(&refused(captured.connect(&mut connector).await).await, Code::TableKeyless, Fault::Fatal, "`loose`");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pipelines_keep_a_log_each_and_detach_leaves_nothing() {
    let mut database = Database::new(&["CREATE TABLE t (id INTEGER PRIMARY KEY, a)"]);
    let (mut connector, captured) = database.established(vec![table("t", &["id"])]).await;
    let mut other = database.connector_of("shop_1");
    other.select(Arc::clone(&captured.feeds));
    other.establish().await.unwrap();
    database.writer.run(&["INSERT INTO t VALUES (1, 'a')"]);
    let removed = connector.detach().await.unwrap();
    assert_eq!(removed.len(), 5 + 4, "{removed:?}");
    assert!(removed.contains(&"removed table _feedline_shop_log".to_owned()));
    database.writer.run(&["INSERT INTO t VALUES (2, 'b')"]);
    assert_eq!(database.writer.run(&["SELECT count(*) FROM _feedline_shop_1_log"])[0][0], json!(2));
    assert_eq!(other.detach().await.unwrap().len(), 5 + 4);
    assert_eq!(other.detach().await.unwrap(), Vec::<String>::new());
    let left = database.writer.run(&["SELECT count(*) FROM sqlite_schema WHERE name LIKE '%feedline%'"]);
    assert_eq!(left[0][0], json!(0));
    database.writer.run(&["ALTER TABLE t DROP COLUMN a"]);
}
