//! The consumers of `examples/` end on the tables, whatever was repeated on the way.

use crate::crash::feedline::Feedline;
use crate::servers::kafka::Kafka;
use crate::servers::postgres::Postgres;
use crate::servers::rabbitmq::RabbitMq;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

/// The system's Python, whose packages `tests/setup` installs.
const PYTHON: &str = "/usr/bin/python3";

/// The consumers also read CloudEvents.
const STRUCTURED: &str = "[format]\nkind = \"cloudevents\"\nmode = \"structured\"\n";

/// A database with a table that is written to while feedline carries it and is killed.
struct Shop {
    directory: PathBuf,
    feedline: Feedline,
}

impl Shop {
    fn new(name: &str, sink: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        sql(
            &directory,
            "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, note TEXT); INSERT INTO t SELECT value, 0, 'é' FROM json_each('[1,2,3,4,5,6,7,8,9]')",
        );
        let configuration = format!(
            "name = \"{name}\"\n[source]\nkind = \"sqlite\"\npath = \"{}\"\n[[feeds]]\ntables = [\"t\"]\n[checkpoint]\npath = \"{}\"\n{sink}",
            directory.join("shop.db").display(),
            directory.join("checkpoint").display(),
        );
        Self { feedline: Feedline::new(&directory, &configuration), directory }
    }

    /// Changes rows while the process is killed three times, and waits until all is confirmed.
    fn carry(&mut self) {
        for round in 0..3 {
            self.feedline.start();
            self.feedline.wait_until_live();
            for n in 0..20 {
                let id = (n * 7 + round) % 12;
                sql(
                    &self.directory,
                    &format!(
                        "INSERT INTO t VALUES ({id}, {n}, 'x') ON CONFLICT (id) DO UPDATE SET n = {n}; DELETE FROM t WHERE id = {}",
                        (n * 5) % 11
                    ),
                );
            }
            self.feedline.kill();
        }
        sql(&self.directory, "UPDATE t SET note = 'last' WHERE id % 2 = 0");
        self.feedline.start();
        self.feedline.wait_until_live();
        crate::servers::port::wait_for("all is confirmed", Duration::from_secs(30), || {
            (self.feedline.lag_seconds() == Some(0.0)).then_some(())
        });
        self.feedline.stop();
    }

    /// The table's rows, as the consumers print them.
    fn rows(&self) -> BTreeSet<String> {
        let rows = sql(&self.directory, "SELECT json_object('id', id, 'n', n, 'note', note) FROM t");
        rows.lines().map(|row| canonical("main.t", row)).collect()
    }
}

/// Tables of PostgreSQL with every kind of event: values that the log leaves out, changed keys, a TRUNCATE, and rows that were removed while
/// the log does not show it.
struct Warehouse {
    postgres: &'static Postgres,
    database: String,
    directory: PathBuf,
    feedline: Feedline,
}

impl Warehouse {
    /// Values that are stored out of line (TOAST), so that the log leaves them out of an update that does not change them.
    const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, n int, note text); ALTER TABLE t ALTER note SET STORAGE EXTERNAL; \
        CREATE TABLE emptied (id int PRIMARY KEY); \
        CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id); \
        CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10); \
        CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20); \
        INSERT INTO t SELECT n, 0, n || repeat(' a large value', 400) FROM generate_series(1, 20) AS n; \
        INSERT INTO emptied SELECT generate_series(1, 20); INSERT INTO parted SELECT generate_series(1, 19)";

    fn new(name: &str, sink: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let postgres = Postgres::shared();
        let database = postgres.create_database("warehouse");
        postgres.psql(&database, Self::TABLES);
        let configuration = format!(
            "name = \"{name}\"\n[source]\nkind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{database}\"\n\
             tls = \"disable\"\n[[feeds]]\ntables = [\"public.t\", \"public.emptied\", \"public.parted\"]\n[checkpoint]\npath = \"{}\"\n{sink}",
            postgres.port(),
            directory.join("checkpoint").display(),
        );
        Self { feedline: Feedline::new(&directory, &configuration), directory, postgres, database }
    }

    fn carry(&mut self) {
        self.feedline.start();
        self.feedline.wait_until_live();
        let sql = |statements: &str| self.postgres.psql(&self.database, statements);
        sql("UPDATE t SET n = 1 WHERE id % 2 = 0; TRUNCATE emptied; INSERT INTO emptied SELECT generate_series(15, 25)");
        for id in 1..=10 {
            // A key that changes twice, and a new row with its old key. The value moves with the row, and only the first event contains it.
            sql(&format!("UPDATE t SET id = {} WHERE id = {id}; UPDATE t SET n = 2 WHERE id = {}", id + 100, id + 100));
            sql(&format!("INSERT INTO t VALUES ({id}, 3, 'new'); UPDATE t SET id = {} WHERE id = {}", id + 200, id + 100));
        }
        // The same change of key twice, with different values.
        sql("UPDATE t SET id = 300 WHERE id = 20; DELETE FROM t WHERE id = 300; INSERT INTO t VALUES (20, 4, repeat('second', 1000))");
        sql("UPDATE t SET id = 300 WHERE id = 20");
        self.feedline.kill();
        // The log does not show the rows that go with a detached partition. The next connect notices it, and sends a reset.
        sql("ALTER TABLE parted DETACH PARTITION parted_1; INSERT INTO emptied VALUES (99)");
        self.feedline.start();
        crate::servers::port::wait_for("all is confirmed", Duration::from_mins(1), || {
            self.feedline.assert_runs();
            // All tables, where the kill came before it was saved that they had been read.
            let is_read_again = self.feedline.metrics().is_ok() && 10 <= self.feedline.count("feedline_prefeed_rows_total", "");
            (is_read_again && self.feedline.is_live() && self.feedline.lag_seconds() == Some(0.0)).then_some(())
        });
        self.feedline.stop();
        let configuration = self.directory.join("feedline.toml");
        let detached = Command::new(env!("CARGO_BIN_EXE_feedline")).args(["detach", "--yes", "-c"]).arg(configuration).status();
        assert!(detached.unwrap().success());
    }

    fn rows(&self) -> BTreeSet<String> {
        let rows = |table: &str| {
            let rows = self.postgres.psql(&self.database, &format!("SELECT row_to_json(t) FROM {table} t"));
            rows.lines().map(|row| canonical(&format!("public.{table}"), row)).collect::<Vec<_>>()
        };
        ["t", "emptied", "parted"].into_iter().flat_map(rows).collect()
    }
}

fn sql(directory: &Path, statements: &str) -> String {
    let script = "import sqlite3, sys\nd = sqlite3.connect(sys.argv[1], timeout=30)\nd.execute('PRAGMA journal_mode = WAL')\n\
                  for s in sys.argv[2].split('; '):\n  for row in d.execute(s): print(row[0])\nd.commit()";
    let run = Command::new(PYTHON).args(["-c", script]).arg(directory.join("shop.db")).arg(statements).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

fn canonical(table: &str, row: &str) -> String {
    format!("{table} {}", serde_json::from_str::<serde_json::Value>(row).unwrap())
}

/// What a consumer prints.
fn run(program: &str, arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| line.split_once(' ').unwrap()).map(|(table, row)| canonical(table, row)).collect()
}

/// The program of an example.
fn example(name: &str) -> String {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--locked", "--quiet", "--examples"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.unwrap().success(), "cargo build --examples");
    });
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("debug/examples").join(name).display().to_string()
}

#[test]
fn kafkas_consumers_end_on_the_tables() {
    let (kafka, name) = (Kafka::shared(), format!("consumers{}", std::process::id()));
    let sink = format!(
        "[sink]\nkind = \"kafka\"\nbootstrap_servers = \"{}\"\ncreate_topics = {{ partitions = 3 }}\n{STRUCTURED}",
        kafka.bootstrap()
    );
    let mut shop = Shop::new(&name, &sink);
    shop.carry();
    let (expected, topic) = (shop.rows(), format!("{name}.main.t"));
    assert!(3 < expected.len());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/kafka_consumer.py");
    assert_eq!(run(PYTHON, &[script, &kafka.bootstrap(), &topic]), expected);
    assert_eq!(run(&example("kafka_consumer"), &[&kafka.bootstrap(), &topic]), expected);
}

#[test]
fn rabbitmqs_consumers_end_on_the_tables() {
    let (broker, name) = (RabbitMq::shared(), format!("consumers{}r", std::process::id()));
    let queue = |queue: &str| format!("[[sink.queues]]\nname = \"{name}.{queue}\"\nkeys = [\"main.#\"]\ntype = \"classic\"\n");
    let sink = format!(
        "[sink]\nkind = \"amqp\"\nport = {}\ntls = \"disable\"\npassword = \"guest\"\n{}{}{STRUCTURED}",
        broker.port(),
        queue("python"),
        queue("rust")
    );
    let mut shop = Shop::new(&name, &sink);
    shop.carry();
    let expected = shop.rows();
    assert!(3 < expected.len());
    let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", broker.port());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rabbitmq_consumer.py");
    assert_eq!(run(PYTHON, &[script, &url, &format!("{name}.python")]), expected);
    assert_eq!(run(&example("rabbitmq_consumer"), &[&url, &format!("{name}.rust")]), expected);
}

#[test]
fn kafkas_consumers_join_what_the_log_leaves_out_across_partitions() {
    let (kafka, name) = (Kafka::shared(), format!("consumers{}p", std::process::id()));
    let sink = format!("[sink]\nkind = \"kafka\"\nbootstrap_servers = \"{}\"\ncreate_topics = {{ partitions = 3 }}\n", kafka.bootstrap());
    let mut warehouse = Warehouse::new(&name, &sink);
    warehouse.carry();
    let expected = warehouse.rows();
    let topics = ["t", "emptied", "parted"].map(|table| format!("{name}.public.{table}"));
    let bootstrap = kafka.bootstrap();
    let arguments =
        |first: &'static str| [first, &bootstrap, &topics[0], &topics[1], &topics[2]].into_iter().filter(|text| !text.is_empty());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/kafka_consumer.py");
    same(&run(PYTHON, &arguments(script).collect::<Vec<_>>()), &expected);
    same(&run(&example("kafka_consumer"), &arguments("").collect::<Vec<_>>()), &expected);
}

#[test]
fn rabbitmqs_consumers_join_what_the_log_leaves_out() {
    let (broker, name) = (RabbitMq::shared(), format!("consumers{}q", std::process::id()));
    let queue = |queue: &str| format!("[[sink.queues]]\nname = \"{name}.{queue}\"\nkeys = [\"#\"]\ntype = \"classic\"\n");
    let port = broker.port();
    let sink =
        format!("[sink]\nkind = \"amqp\"\nport = {port}\ntls = \"disable\"\npassword = \"guest\"\n{}{}", queue("python"), queue("rust"));
    let mut warehouse = Warehouse::new(&name, &sink);
    warehouse.carry();
    let expected = warehouse.rows();
    let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/rabbitmq_consumer.py");
    same(&run(PYTHON, &[script, &url, &format!("{name}.python")]), &expected);
    same(&run(&example("rabbitmq_consumer"), &[&url, &format!("{name}.rust")]), &expected);
}

/// Compares large rows, and shows the beginnings of those that differ.
#[track_caller]
fn same(found: &BTreeSet<String>, expected: &BTreeSet<String>) {
    let beginnings = |rows: &BTreeSet<String>, others: &BTreeSet<String>| -> Vec<String> {
        rows.difference(others).map(|row| row.chars().take(60).collect()).collect()
    };
    let (surplus, missing) = (beginnings(found, expected), beginnings(expected, found));
    assert!(surplus.is_empty() && missing.is_empty(), "surplus {surplus:#?}, missing {missing:#?}");
}

#[test]
fn each_file_of_a_consumer_is_short() {
    for file in ["kafka_consumer.py", "kafka_consumer.rs", "rabbitmq_consumer.py", "rabbitmq_consumer.rs", "tables/mod.rs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(file);
        let lines = std::fs::read_to_string(path).unwrap().lines().count();
        assert!(lines < 60, "{file}: {lines} lines");
    }
}
