//! The consumers of `examples/` end on the tables, whatever was repeated on the way.

use crate::crash::feedline::Feedline;
use crate::servers::kafka::Kafka;
use crate::servers::rabbitmq::RabbitMq;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

/// The system's Python, whose packages `tests/setup` installs.
const PYTHON: &str = "/usr/bin/python3";

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
    let sink = format!("[sink]\nkind = \"kafka\"\nbootstrap_servers = \"{}\"\ncreate_topics = {{ partitions = 3 }}\n", kafka.bootstrap());
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
        "[sink]\nkind = \"amqp\"\nport = {}\ntls = \"disable\"\npassword = \"guest\"\n{}{}",
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
