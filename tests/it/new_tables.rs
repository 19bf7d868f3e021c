//! Tables that are created while a pipeline runs: it publishes them without a new process.

use crate::crash::feedline::Feedline;
use crate::servers::mongodb::MongoDb;
use crate::servers::mysql::MySql;
use crate::servers::port::wait_for;
use crate::servers::postgres::Postgres;
use crate::servers::rethinkdb::RethinkDb;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

/// A running pipeline of one database, to a file.
struct Pipeline {
    directory: PathBuf,
    feedline: Feedline,
}

impl Pipeline {
    /// Of all tables whose names do not begin with an underscore.
    fn start(name: &str, source: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("new_tables_{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = |file: &str| directory.join(file).display().to_string();
        let configuration = format!(
            "name = \"new_tables_{name}\"\n[source]\n{}\n[[feeds]]\ntables = [\"*\", \"!_*\"]\n\
             [sink]\nkind = \"file\"\npath = \"{}\"\n[checkpoint]\npath = \"{}\"\n",
            source.replace("DIRECTORY", &directory.display().to_string()),
            path("out"),
            path("checkpoint"),
        );
        let mut feedline = Feedline::new(&directory, &configuration);
        feedline.start();
        feedline.wait_until_live();
        Self { directory, feedline }
    }

    /// Operation, table and key of each event, by table.
    fn events(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.join("out")).unwrap();
        let event = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
        let key = |event: &Value| event["key"].as_object().and_then(|key| key.values().next().cloned()).unwrap_or_default();
        let brief = |event: Value| format!("{} {} {}", event["table"].as_str().unwrap(), event["op"].as_str().unwrap(), key(&event));
        let mut events: Vec<_> = text.lines().map(event).map(brief).collect();
        events.sort_by(|one, other| one.split(' ').next().cmp(&other.split(' ').next()));
        events
    }

    fn wait_for(&mut self, expected: &[&str]) {
        wait_for("the events", LIMIT, || {
            self.feedline.assert_runs();
            (self.events() == expected).then_some(())
        });
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.feedline.stop();
            std::fs::remove_dir_all(&self.directory).unwrap();
        }
    }
}

/// Creates a table beside another one, and expects each row of both exactly once, from one process.
fn follow(name: &str, source: &str, create: impl Fn(&str), insert: impl Fn(&str, u32)) {
    create("a");
    insert("a", 1);
    let mut pipeline = Pipeline::start(name, source);
    let process = pipeline.feedline.pid();
    create("b");
    insert("b", 1);
    create("_shadow");
    insert("_shadow", 1);
    insert("a", 2);
    pipeline.wait_for(&["a read 1", "a insert 2", "b read 1"]);
    pipeline.feedline.wait_until_live();
    insert("b", 2);
    insert("a", 3);
    pipeline.wait_for(&["a read 1", "a insert 2", "a insert 3", "b read 1", "b insert 2"]);
    assert_eq!(pipeline.feedline.pid(), process);
    assert_eq!(["process", "source_error", "sink_error"].map(|reason| pipeline.feedline.restarts(reason)), [0; 3]);
    let log = pipeline.log();
    assert_eq!(log.matches("the pipeline drains and begins again").count(), 1, "{log}");
}

#[test]
fn a_table_that_is_created_later_is_published_from_sqlite() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("new_tables_sqlite-{}.db", std::process::id()));
    let execute = |sql: &str| {
        let database = rusqlite::Connection::open(&path).unwrap();
        database.busy_timeout(Duration::from_secs(30)).unwrap();
        database.pragma_update(None, "journal_mode", "WAL").unwrap();
        database.execute_batch(sql).unwrap();
    };
    follow(
        "sqlite",
        &format!("kind = \"sqlite\"\npath = \"{}\"", path.display()),
        |table| execute(&format!("CREATE TABLE {table} (id INTEGER PRIMARY KEY)")),
        |table, id| execute(&format!("INSERT INTO {table} VALUES ({id})")),
    );
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_table_that_is_created_later_is_published_from_postgres() {
    let (server, source, database) = postgres();
    follow(
        "postgres",
        &source,
        |table| drop(server.psql(&database, &format!("CREATE TABLE {table} (id int PRIMARY KEY)"))),
        |table, id| drop(server.psql(&database, &format!("INSERT INTO {table} VALUES ({id})"))),
    );
    server.psql("postgres", "SELECT pg_drop_replication_slot('feedline_new_tables_postgres')");
}

#[test]
fn a_table_that_is_created_later_is_published_from_mysql() {
    let server = MySql::shared();
    let database = server.create_database("new_tables");
    let source = format!(
        "kind = \"mysql\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"root\"\ndatabase = \"{database}\"\ntls = \"disable\"",
        server.port()
    );
    follow(
        "mysql",
        &source,
        |table| drop(server.sql(&database, &format!("CREATE TABLE {table} (id int PRIMARY KEY)"))),
        |table, id| drop(server.sql(&database, &format!("INSERT INTO {table} VALUES ({id})"))),
    );
}

#[test]
fn a_collection_that_is_created_later_is_published_from_mongodb() {
    let (server, database) = (MongoDb::shared(), MongoDb::database("new_tables"));
    let source =
        format!("kind = \"mongodb\"\nhost = \"{}\"\nport = {}\ndatabase = \"{database}\"\ntls = \"disable\"", server.host(), server.port());
    follow(
        "mongodb",
        &source,
        |collection| server.create(&database, collection),
        |collection, id| server.insert(&database, collection, &[json!({"_id": id})]),
    );
}

#[test]
fn a_table_that_is_created_later_is_published_from_rethinkdb() {
    let server = RethinkDb::start();
    let source = format!(
        "kind = \"rethinkdb\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\ndatabase = \"test\"\ntls = \"disable\"\n\
         store = \"DIRECTORY/store\"",
        server.port()
    );
    follow("rethinkdb", &source, |table| server.create_table(table, "id"), |table, id| server.put(table, &json!({"id": id})));
}

#[test]
fn a_table_that_cannot_be_published_is_named_and_stops_nothing() {
    let (server, source, database) = postgres();
    server.psql(&database, "CREATE TABLE a (id int PRIMARY KEY)");
    let mut pipeline = Pipeline::start("keyless", &source);
    server.psql(&database, "CREATE TABLE b (id int NOT NULL); INSERT INTO b VALUES (1)");
    wait_for("a warning", LIMIT, || {
        pipeline.feedline.assert_runs();
        let log = pipeline.log();
        let warning = log.lines().find(|line| line.contains("a start with them is refused"))?;
        assert!(warning.contains("public.b") && warning.contains("FL2009"), "{warning}");
        Some(())
    });
    server.psql(&database, "INSERT INTO a VALUES (1)");
    pipeline.wait_for(&["a insert 1"]);
    // Its remedy is enough.
    server.psql(&database, "ALTER TABLE b ADD PRIMARY KEY (id)");
    pipeline.wait_for(&["a insert 1", "b read 1"]);
    drop(pipeline);
    server.psql("postgres", "SELECT pg_drop_replication_slot('feedline_new_tables_keyless')");
}

fn postgres() -> (&'static Postgres, String, String) {
    let server = Postgres::shared();
    let database = server.create_database("new_tables");
    let source =
        format!("kind = \"postgres\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{database}\"\ntls = \"disable\"", server.port());
    (server, source, database)
}
