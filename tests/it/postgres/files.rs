//! Prefeeds from files: their rows come before the live events of their table, while other tables continue.

use super::growing::Pipeline;
use crate::crash::feedline::Feedline;
use crate::servers::port::wait_for;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// The number of events of this table and operation.
fn count(pipeline: &Pipeline, op: &str, table: &str) -> usize {
    let text = std::fs::read_to_string(pipeline.directory.join("out")).unwrap_or_default();
    let wanted = format!("\"op\":\"{op}\",\"schema\":\"public\",\"table\":\"{table}\"");
    text.lines().filter(|line| line.contains(&wanted)).count()
}

fn wait_for_some(pipeline: &Pipeline, op: &str, table: &str, least: usize) {
    wait_for(&format!("{least} times {op} of {table}"), Duration::from_mins(1), || (least <= count(pipeline, op, table)).then_some(()));
}

fn write_rows(pipeline: &Pipeline, rows: u32) -> String {
    let seed = pipeline.directory.join("seed.jsonl");
    let rows: Vec<_> = (1..=rows).map(|id| format!("{{\"id\":{id},\"note\":\"{}\"}}\n", "x".repeat(200))).collect();
    std::fs::write(&seed, rows.concat()).unwrap();
    format!("prefeed = {{ file = \"{}\" }}", seed.display())
}

#[test]
fn a_files_rows_all_come_before_the_first_live_event_whenever_the_process_is_killed() {
    let pipeline = Pipeline::new("seeded", "CREATE TABLE a (id int PRIMARY KEY, note text)");
    let prefeed = write_rows(&pipeline, 3000);
    let feeds = format!("[[feeds]]\ntables = [\"a\"]\n{prefeed}\n[pipeline]\nprefeed_rate = \"{{rate}}\"");
    let mut feedline = pipeline.configured(&feeds.replace("{rate}", "400KiB/s"));
    for kill in 0..3 {
        feedline.start();
        wait_for("some more rows", Duration::from_mins(1), || {
            let lines = std::fs::read_to_string(pipeline.directory.join("out")).unwrap_or_default().lines().count();
            (500 * (kill + 1) < lines).then_some(())
        });
        pipeline.postgres.psql(&pipeline.database, &format!("INSERT INTO a VALUES ({}, 'too early')", 5000 + kill));
        feedline.kill();
    }
    let mut feedline = pipeline.feedline(&feeds.replace("{rate}", "unlimited"));
    pipeline.postgres.psql(&pipeline.database, "INSERT INTO a VALUES (6000, 'live')");
    wait_for("the live event", Duration::from_mins(1), || {
        std::fs::read_to_string(pipeline.directory.join("out")).unwrap().contains("\"id\":6000").then_some(())
    });
    feedline.stop();
    let events = pipeline.events();
    let ids: Vec<_> = events.iter().map(|event| event["key"]["id"].as_u64().unwrap()).collect();
    let (read, live) = ids.split_at(ids.len() - 4);
    assert_eq!(live, [5000, 5001, 5002, 6000], "rows that were inserted meanwhile come after the file");
    assert_eq!(read.iter().collect::<BTreeSet<_>>().len(), 3000);
    assert!(read.len() < 6000, "it continues where it stopped: {}", read.len());
    let positions: Vec<_> = events.iter().map(|event| event["source"]["position"].to_string()).collect();
    assert!(positions.is_sorted());
}

#[test]
fn other_tables_continue_while_a_file_is_sent_and_its_table_misses_nothing() {
    let pipeline = Pipeline::new(
        "beside",
        "CREATE TABLE a (id int PRIMARY KEY, note text); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1)",
    );
    let prefeed = write_rows(&pipeline, 4000);
    let feeds =
        format!("[[feeds]]\ntables = [\"a\"]\n{prefeed}\nstage = 2\n[[feeds]]\ntables = [\"b\"]\n[pipeline]\nprefeed_rate = \"{{rate}}\"");
    let psql = |sql: &str| pipeline.postgres.psql(&pipeline.database, sql);
    let mut feedline = pipeline.configured(&feeds.replace("{rate}", "100KiB/s"));
    feedline.start();
    wait_for_some(&pipeline, "read", "a", 100);
    // A transaction with both tables, and changes of their columns.
    psql(
        "BEGIN; INSERT INTO a VALUES (9001), (9002); INSERT INTO b VALUES (2), (3); INSERT INTO a VALUES (9003); INSERT INTO b VALUES (4); COMMIT",
    );
    wait_for_some(&pipeline, "insert", "b", 3);
    psql(
        "ALTER TABLE b ADD COLUMN x int; ALTER TABLE a ADD COLUMN y text; INSERT INTO a VALUES (9004, 'n', 'y'); INSERT INTO b VALUES (5, 7)",
    );
    wait_for_some(&pipeline, "insert", "b", 4);
    let during = count(&pipeline, "read", "a");
    assert!(during < 4000, "the file was complete before: {during}");
    assert_eq!(count(&pipeline, "insert", "a"), 0, "changes of the file's table must wait");
    feedline.kill();
    psql("INSERT INTO b VALUES (6, 8); UPDATE a SET note = 'later' WHERE id = 9001");
    let mut feedline: Feedline = pipeline.configured(&feeds.replace("{rate}", "unlimited"));
    feedline.start();
    wait_for_some(&pipeline, "update", "a", 1);
    psql("INSERT INTO b VALUES (7, 9); INSERT INTO a VALUES (9005, 'm', 'z')");
    wait_for_some(&pipeline, "insert", "a", 5);
    feedline.wait_until_live();
    feedline.stop();

    let events = pipeline.events();
    let of = |table: &str| events.iter().filter(|event| event["table"] == table).collect::<Vec<_>>();
    let brief = |event: &&Value| {
        let source = &event["source"];
        format!("{} {} {} {}", event["op"].as_str().unwrap(), event["key"]["id"], source["index"], source["last"])
    };
    let (read, live): (Vec<_>, Vec<_>) = of("a").into_iter().partition(|event| event["op"] == "read");
    assert_eq!(read.iter().map(|event| event["key"]["id"].as_u64().unwrap()).collect::<BTreeSet<_>>().len(), 4000);
    // The index counts only the events of this table in the transaction.
    let expected = [
        "insert 9001 0 false",
        "insert 9002 1 false",
        "insert 9003 2 true",
        "insert 9004 0 true",
        "update 9001 0 true",
        "insert 9005 1 true",
    ];
    assert_eq!(live.iter().map(brief).collect::<Vec<_>>(), expected);
    assert_eq!(live[3]["after"], serde_json::json!({"id": 9004, "note": "n", "y": "y"}));
    let mut seen = BTreeSet::new();
    let others: Vec<_> = of("b").into_iter().filter(|event| seen.insert(event["source"]["position"].to_string())).collect();
    let expected = [
        "read 1 null null",
        "insert 2 0 false",
        "insert 3 1 false",
        "insert 4 2 true",
        "insert 5 0 true",
        "insert 6 0 true",
        "insert 7 0 false",
    ];
    assert_eq!(others.iter().map(brief).collect::<Vec<_>>(), expected);
    let positions = |table: &str| of(table).iter().map(|event| event["source"]["position"].to_string()).collect::<Vec<_>>();
    assert!(positions("a").is_sorted(), "positions of a table do not go back");
}
