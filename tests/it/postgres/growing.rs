//! Prefeeds of the real program: stages, key ranges of a large table, tables that are added later.

use crate::crash::feedline::Feedline;
use crate::servers::port::wait_for;
use crate::servers::postgres::Postgres;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub struct Pipeline {
    name: &'static str,
    pub directory: PathBuf,
    pub postgres: &'static Postgres,
    pub database: String,
}

impl Pipeline {
    pub fn new(name: &'static str, tables: &str) -> Self {
        let database = Postgres::shared().create_database(name);
        Postgres::shared().psql(&database, tables);
        Self::within(name, database)
    }

    /// With a database that exists already.
    pub fn within(name: &'static str, database: String) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self { name, directory, postgres: Postgres::shared(), database }
    }

    pub fn feedline(&self, feeds: &str) -> Feedline {
        self.feedline_with("", feeds)
    }

    /// A running program that is live, with more settings of its source.
    pub fn feedline_with(&self, source: &str, feeds: &str) -> Feedline {
        let mut feedline = self.configured(&format!("{source}\n{feeds}"));
        feedline.start();
        feedline.wait_until_live();
        feedline
    }

    /// A running program that is live and accepts changes of the configuration.
    pub fn feedline_accepting(&self, feeds: &str) -> Feedline {
        let mut feedline = self.configured(feeds);
        feedline.start_with(&["--accept-config-change"]);
        feedline.wait_until_live();
        feedline
    }

    /// The status and log of a program that ends by itself.
    pub fn ended(&self, source: &str, feeds: &str) -> (Option<i32>, String) {
        let mut feedline = self.configured(&format!("{source}\n{feeds}"));
        feedline.start();
        feedline.wait_for_end()
    }

    /// A program that has not been started.
    pub fn configured(&self, feeds: &str) -> Feedline {
        let configuration = format!(
            "name = \"{}\"\n[source]\nkind = \"postgres\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{}\"\ntls = \"disable\"\n\
             {feeds}\n[sink]\nkind = \"file\"\npath = \"{}\"\n[checkpoint]\npath = \"{}\"\n",
            self.name,
            self.postgres.port(),
            self.database,
            self.directory.join("out").display(),
            self.directory.join("checkpoint").display(),
        );
        Feedline::new(&self.directory, &configuration)
    }

    /// The output of `check`, which must succeed.
    fn check(&self, feeds: &str) -> String {
        self.configured(feeds);
        let program = std::process::Command::new(env!("CARGO_BIN_EXE_feedline"))
            .args(["check", "-c"])
            .arg(self.directory.join("feedline.toml"))
            .output()
            .unwrap();
        let output = String::from_utf8(program.stdout).unwrap();
        assert!(program.status.success(), "{output}");
        output
    }

    pub fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.directory.join("out")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Operation, table and `id` of each event.
    pub fn briefly(&self) -> Vec<String> {
        let brief =
            |event: &Value| format!("{} {} {}", event["op"].as_str().unwrap(), event["table"].as_str().unwrap(), event["key"]["id"]);
        self.events().iter().map(brief).collect()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.postgres.try_psql(&self.database, &format!("SELECT pg_drop_replication_slot('feedline_{}')", self.name)).ok();
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.directory).ok();
        }
    }
}

#[test]
fn a_table_that_is_added_later_is_read_while_the_others_continue() {
    let pipeline = Pipeline::new(
        "growing",
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1), (2)",
    );
    pipeline.feedline("[[feeds]]\ntables = [\"public.a\"]").stop();
    pipeline.postgres.psql(&pipeline.database, "INSERT INTO a VALUES (2); DELETE FROM b WHERE id = 1");
    let mut feedline = pipeline.feedline("[[feeds]]\ntables = [\"public.*\"]");
    pipeline.postgres.psql(&pipeline.database, "INSERT INTO a VALUES (3); INSERT INTO b VALUES (3)");
    wait_for("the live events", Duration::from_mins(1), || (pipeline.briefly().len() == 5).then_some(()));
    feedline.stop();
    assert_eq!(pipeline.briefly(), ["read a 1", "insert a 2", "read b 2", "insert a 3", "insert b 3"]);
    let positions: Vec<_> = pipeline.events().iter().map(|event| event["source"]["position"].to_string()).collect();
    assert!(positions.is_sorted(), "{positions:#?}");
}

/// Follows the remedy of `docs/errors.md` for a table that left the publication.
#[test]
fn a_table_that_comes_back_begins_with_a_reset() {
    let pipeline = Pipeline::new(
        "returning",
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1), (2)",
    );
    let both = "[[feeds]]\ntables = [\"public.a\", \"public.b\"]";
    pipeline.feedline(both).stop();
    pipeline.postgres.psql(&pipeline.database, "DROP TABLE b; CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (2), (3)");
    let mut refused = pipeline.configured(both);
    refused.start();
    let (status, log) = refused.wait_for_end();
    assert_eq!(status, Some(70), "{log}");
    assert!(log.contains("FL2008"), "{log}");
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md")).unwrap();
    assert!(
        document.contains("starting once without\n  it in the feeds and then with it does the same"),
        "docs/errors.md describes what this test does"
    );
    pipeline.feedline("[[feeds]]\ntables = [\"public.a\"]").stop();
    let check = pipeline.check(both);
    assert!(check.contains("a start will read table public.b again after a reset: it was published before"), "{check}");
    let mut feedline = pipeline.feedline(both);
    pipeline.postgres.psql(&pipeline.database, "INSERT INTO b VALUES (4)");
    wait_for("the live event", Duration::from_mins(1), || (pipeline.briefly().len() == 7).then_some(()));
    feedline.stop();
    let expected = ["read a 1", "read b 1", "read b 2", "reset b null", "read b 2", "read b 3", "insert b 4"];
    assert_eq!(pipeline.briefly(), expected);
    let positions: Vec<_> = pipeline.events().iter().map(|event| event["source"]["position"].to_string()).collect();
    assert!(positions.is_sorted(), "{positions:#?}");
    // A change that happened while the program was stopped is named by `check`, and the table is read at the start.
    pipeline.postgres.psql(&pipeline.database, "ALTER TABLE a ADD COLUMN n int GENERATED ALWAYS AS IDENTITY");
    let check = pipeline.check(both);
    assert!(check.contains("a start will read table public.a again: column \"n\" was added with values"), "{check}");
    let mut feedline = pipeline.feedline(both);
    wait_for("the row with its value", Duration::from_mins(1), || (pipeline.events().len() == 8).then_some(()));
    feedline.stop();
    assert_eq!(pipeline.events()[7]["after"], serde_json::json!({"id": 1, "n": 1}));
    assert!(!pipeline.check(both).contains("again"));
}

#[test]
fn a_lower_stage_is_delivered_completely_before_a_higher_one_begins() {
    let pipeline = Pipeline::new(
        "stages",
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); \
         INSERT INTO a SELECT generate_series(1, 3000); INSERT INTO b SELECT generate_series(1, 3000)",
    );
    let mut feedline = pipeline.feedline("[[feeds]]\ntables = [\"a\"]\nstage = 2\n[[feeds]]\ntables = [\"b\"]\nstage = 1");
    wait_for("all rows", Duration::from_mins(1), || (pipeline.briefly().len() == 6000).then_some(()));
    feedline.stop();
    let tables: Vec<_> = pipeline.events().iter().map(|event| event["table"].as_str().unwrap().to_owned()).collect();
    assert!(tables[..3000].iter().all(|table| table == "b") && tables[3000..].iter().all(|table| table == "a"));
}

#[test]
fn a_large_table_is_read_by_ranges_each_row_once() {
    let pipeline = Pipeline::new(
        "ranges",
        "CREATE TABLE large (region text COLLATE \"C\", id int, note text, PRIMARY KEY (id, region)); \
         INSERT INTO large SELECT 'r' || g % 5, g / 3, repeat('x', 500) FROM generate_series(1, 50000) g; ANALYZE large",
    );
    let mut feedline = pipeline.feedline("[[feeds]]\ntables = [\"large\"]");
    wait_for("all rows", Duration::from_mins(1), || (50_000 <= pipeline.events().len()).then_some(()));
    feedline.stop();
    let events = pipeline.events();
    let keys: Vec<_> = events.iter().map(|event| event["key"].to_string()).collect();
    assert_eq!((keys.len(), keys.iter().collect::<BTreeSet<_>>().len()), (50_000, 50_000));
    let ids: Vec<_> = events.iter().map(|event| event["key"]["id"].as_i64().unwrap()).collect();
    assert!(!ids.is_sorted(), "two sessions read different parts at the same time");
}

#[test]
fn rows_whose_changes_are_not_in_the_log_are_read_again() {
    let pipeline = Pipeline::new(
        "unlogged",
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (10); \
         CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (10) TO (20); INSERT INTO p VALUES (1), (11)",
    );
    let feeds = "[[feeds]]\ntables = [\"p\"]";
    let mut feedline = pipeline.feedline(feeds);
    // While the program runs: the next row in the log shows the new column, and the table is surveyed.
    pipeline.postgres.psql(&pipeline.database, "ALTER TABLE p ADD COLUMN a int DEFAULT 7");
    pipeline.postgres.psql(&pipeline.database, "INSERT INTO p VALUES (2, 8)");
    wait_for("the rows with their new column", Duration::from_mins(1), || (pipeline.events().len() == 6).then_some(()));
    feedline.stop();
    // While it does not run: the checkpoint has the table's layout.
    pipeline.postgres.psql(&pipeline.database, "TRUNCATE p_low");
    let mut feedline = pipeline.feedline(feeds);
    wait_for("the remaining rows", Duration::from_mins(1), || (pipeline.events().len() == 8).then_some(()));
    feedline.stop();
    let rows = |event: &Value| format!("{} {}", event["op"].as_str().unwrap(), event["after"]);
    let expected = [
        "read {\"id\":1}",
        "read {\"id\":11}",
        "insert {\"a\":8,\"id\":2}",
        "read {\"a\":7,\"id\":1}",
        "read {\"a\":8,\"id\":2}",
        "read {\"a\":7,\"id\":11}",
        "reset null",
        "read {\"a\":7,\"id\":11}",
    ];
    assert_eq!(pipeline.events().iter().map(rows).collect::<Vec<_>>(), expected);
    let positions: Vec<_> = pipeline.events().iter().map(|event| event["source"]["position"].to_string()).collect();
    assert!(positions.is_sorted(), "{positions:#?}");
}
