//! Gaps: a log that continues on another server, or not at all. What is refused, and what `on_gap = "prefeed"` reads again.

use super::growing::Pipeline;
use super::world::{Reader, TIMEOUT, World, feed, shorts};
use crate::servers::port::wait_for;
use crate::servers::postgres::{Options, Postgres};
use feedline::checkpoint::ResumeToken;
use feedline::fault::{Classify, Code, Fault};
use feedline::source::SourceConnector;
use std::collections::BTreeMap;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text)";

/// Reads the row that this statement writes, and returns the token after it.
async fn read_one(world: &World, reader: &mut Reader, statement: &str) -> ResumeToken {
    world.sql(statement);
    reader.take(1).await;
    reader.log.token()
}

#[tokio::test]
async fn a_promoted_standby_is_accepted_only_for_the_log_that_it_has() {
    let mut primary = Postgres::start(&Options::default());
    let database = primary.create_database("source");
    primary.psql(&database, TABLE);
    let mut standby = primary.standby();
    let primary = &*Box::leak(Box::new(primary));
    let mut world = World::within(primary, database.clone(), vec![feed("t", &["id"])]);
    let (identity, start) = world.establish().await;
    let log = world.connect(&identity, &world.resume(&start, &start)).await.unwrap();
    let mut reader = Reader::of(log, &start, 1 << 20);
    let replicated = read_one(&world, &mut reader, "INSERT INTO t VALUES (1, 'on both')").await;
    let position = replicated.0.split([':', '@']).nth(1).unwrap().to_owned();
    wait_for("the standby has it", TIMEOUT, || {
        (standby.psql("postgres", &format!("SELECT '{position}' <= pg_last_wal_replay_lsn()")) == "t").then_some(())
    });

    let on_primary = world.options.port;
    world.options.port = standby.port();
    let error = world.verify().await.unwrap_err().remove(0);
    assert_eq!((error.code(), error.fault()), (Code::PostgresUnsuitable, Fault::Fatal), "{error}");
    assert!(error.to_string().contains("standby"), "{error}");

    // The standby does not get the next row, and is promoted without it.
    standby.kill();
    world.options.port = on_primary;
    let lost = read_one(&world, &mut reader, "INSERT INTO t VALUES (2, 'on the primary alone')").await;
    drop(reader);
    world.options.port = standby.port();
    standby.promote();
    let resume = |token| world.resume(token, &start);
    let error = world.connector().connect(&identity, &resume(&lost)).await.err().unwrap();
    assert_eq!((error.code(), error.fault()), (Code::SourceRewound, Fault::Gap), "{error}");
    assert!(error.to_string().contains("timeline 1 ended at"), "{error}");
    let error = world.connector().connect(&identity, &resume(&replicated)).await.err().unwrap();
    assert_eq!((error.code(), error.fault()), (Code::SourceLogLost, Fault::Gap), "{error}");
    assert!(error.to_string().contains("no longer exists"), "{error}");

    // Rows are read again: the log continues on the new timeline, after everything that was published.
    let renewed = world.connector().renew(&identity, &resume(&lost)).await.unwrap();
    assert_eq!(renewed.feeds.len(), 1);
    assert!(renewed.token.0.starts_with("2:"), "{renewed:?}");
    let log = world.connect(&identity, &world.resume(&renewed.token, &renewed.token)).await.unwrap();
    let mut reader = Reader::of(log, &renewed.token, 1 << 20);
    standby.psql(&database, "INSERT INTO t VALUES (2, 'another one')");
    let sent = reader.take(1).await;
    assert_eq!(shorts(&sent), [r#"insert {"id":2} 0!"#]);
    assert!(sent[0].id.starts_with("shop/00000002-"), "{}", sent[0].id);
}

#[tokio::test]
async fn a_gap_that_cannot_be_repaired_stays_refused() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let (identity, _) = world.establish().await;
    let beyond = ResumeToken("1:FFFF/0".into());
    let beyond = world.resume(&beyond, &beyond);
    let error = world.connector().renew(&identity, &beyond).await.err().unwrap();
    assert_eq!(error.code(), Code::SourceRewound, "positions would go backwards: {error}");
    let mut other = identity.clone();
    other.insert("system_identifier".to_owned(), "7".to_owned());
    assert_eq!(world.connector().renew(&other, &beyond).await.err().unwrap().code(), Code::SourceForeign);
}

#[tokio::test]
async fn a_database_that_was_created_again_under_its_name_is_refused() {
    let world = World::new(TABLE, vec![feed("t", &["id"])]);
    let (identity, token) = world.establish().await;
    let name = &world.database;
    world.sql(&format!("SELECT pg_drop_replication_slot('{}')", world.options.slot));
    world.server.psql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
    world.server.psql("postgres", &format!("CREATE DATABASE {name}"));
    world.sql(TABLE);
    world.establish().await;
    let error = world.connector().connect(&identity, &world.resume(&token, &token)).await.err().unwrap();
    assert_eq!((error.code(), error.fault()), (Code::SourceForeign, Fault::Gap), "{error}");
    assert!(error.to_string().contains("database_oid"), "{error}");
}

const FEEDS: &str = "[[feeds]]\ntables = [\"kept\", \"remade\"]";

/// The rows that a reader which obeys resets has after all events.
pub fn folded(pipeline: &Pipeline) -> BTreeMap<String, BTreeMap<i64, String>> {
    let mut tables: BTreeMap<String, BTreeMap<i64, String>> = BTreeMap::new();
    let mut newest = String::new();
    for event in pipeline.events() {
        let position = event["source"]["position"].as_str().unwrap().to_owned();
        assert!(newest < position, "{position} came after {newest}");
        newest = position;
        let table = tables.entry(event["table"].as_str().unwrap().to_owned()).or_default();
        match event["op"].as_str().unwrap() {
            "reset" => table.clear(),
            "delete" => drop(table.remove(&event["key"]["id"].as_i64().unwrap())),
            _ => drop(table.insert(event["key"]["id"].as_i64().unwrap(), event["after"]["note"].as_str().unwrap().to_owned())),
        }
    }
    tables
}

/// The rows of the tables.
fn actual(pipeline: &Pipeline) -> BTreeMap<String, BTreeMap<i64, String>> {
    let rows = |table: &str| {
        let text = pipeline.postgres.psql(&pipeline.database, &format!("SELECT id, note FROM {table}"));
        text.lines().filter_map(|line| line.split_once('|')).map(|(id, note)| (id.parse().unwrap(), note.to_owned())).collect()
    };
    ["kept", "remade"].map(|table| (table.to_owned(), rows(table))).into()
}

#[test]
fn on_gap_prefeed_reads_only_the_tables_with_missing_changes_again() {
    let create = "CREATE TABLE remade (id int PRIMARY KEY, note text); INSERT INTO remade VALUES (1, 'first'), (2, 'first')";
    let pipeline = Pipeline::new(
        "repaired",
        &format!("CREATE TABLE kept (id int PRIMARY KEY, note text); INSERT INTO kept VALUES (1, 'k'); {create}"),
    );
    let sql = |statements: &str| pipeline.postgres.psql(&pipeline.database, statements);
    let agree = |condition: &str| wait_for(condition, TIMEOUT * 2, || (folded(&pipeline) == actual(&pipeline)).then_some(()));
    let mut feedline = pipeline.feedline_with("on_gap = \"prefeed\"", FEEDS);
    agree("the rows");
    feedline.stop();

    // One table is dropped, and created again with other rows.
    sql(
        "DROP TABLE remade; CREATE TABLE remade (id int PRIMARY KEY, note text); INSERT INTO remade VALUES (2, 'second'); INSERT INTO kept VALUES (2, 'k')",
    );
    let mut feedline = pipeline.feedline_with("on_gap = \"prefeed\"", FEEDS);
    sql("INSERT INTO remade VALUES (3, 'live'); DELETE FROM kept WHERE id = 1");
    agree("the rows of the table that was created again");
    let resets = || pipeline.briefly().into_iter().filter(|brief| brief.starts_with("reset")).collect::<Vec<_>>();
    assert_eq!(resets(), ["reset remade null"]);
    feedline.stop();

    // The whole log is lost, and with it a delete.
    sql("SELECT pg_drop_replication_slot('feedline_repaired')");
    sql("DELETE FROM kept; INSERT INTO kept VALUES (3, 'k'); UPDATE remade SET note = 'third' WHERE id = 2");
    let mut feedline = pipeline.feedline_with("on_gap = \"prefeed\"", FEEDS);
    sql("INSERT INTO kept VALUES (4, 'live')");
    agree("all rows");
    assert_eq!(resets().len(), 3);
    let metrics = feedline.metrics().unwrap();
    assert!(metrics.contains("feedline_source_gaps_total{reason=\"log_lost\",pipeline=\"repaired\"} 1"), "{metrics}");
    assert!(metrics.contains("feedline_pipeline_restarts_total{reason=\"source_gap\",pipeline=\"repaired\"} 2"), "{metrics}");
    feedline.stop();
}
