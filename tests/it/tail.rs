//! The commands `tail` and `dead-letters list`, which print what is in a broker.

use crate::amqp::destination::Destination;
use crate::crash::feedline::Feedline;
use crate::servers::{kafka::Kafka, port::wait_for, rabbitmq::RabbitMq};
use lapin::types::FieldTable;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A pipeline from a SQLite database with one table.
struct World {
    directory: PathBuf,
    feedline: Feedline,
}

impl World {
    fn new(name: &str, sink: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tail-{name}"));
        std::fs::create_dir_all(&directory).unwrap();
        let destination = |file: &str| directory.join(file).display().to_string();
        let configuration = format!(
            "name = \"{name}\"\n[source]\nkind = \"sqlite\"\npath = \"{}\"\n[[feeds]]\ntables = [\"t\"]\n[checkpoint]\npath = \"{}\"\n[sink]\n\
             on_unpublishable = \"dead_letter\"\n{sink}\n",
            destination("shop.db"),
            destination("checkpoint"),
        );
        let feedline = Feedline::new(&directory, &configuration);
        let world = Self { directory, feedline };
        world.execute("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
        world
    }

    fn execute(&self, sql: &str) {
        rusqlite::Connection::open(self.directory.join("shop.db")).unwrap().execute_batch(sql).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
        command.args(arguments).arg("-c").arg(self.directory.join("feedline.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn confirms(&mut self, count: u64) {
        wait_for("the events are confirmed", Duration::from_mins(1), || {
            self.feedline.assert_runs();
            (count <= self.feedline.confirmed()).then_some(())
        });
    }

    /// What a `tail` prints that ends by itself, while rows are written.
    fn tail_while_writing(&self, arguments: &[&str]) -> String {
        let mut tail = self.command(arguments).spawn().unwrap();
        wait_for("the listener has heard enough", Duration::from_mins(1), || {
            self.execute("INSERT INTO t (v) VALUES ('more')");
            tail.try_wait().unwrap()
        });
        let heard = tail.wait_with_output().unwrap();
        assert!(heard.status.success(), "{heard:?}");
        text(&heard.stdout)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.directory).unwrap();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn objects(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn of_rabbitmq() {
    const LETTERS: usize = 700;
    // Updates have a queue, inserts have none.
    let destination = Destination::new(RabbitMq::shared(), &["*.*.update"], FieldTable::default());
    let sink = format!("kind = \"amqp\"\nport = {}\ntls = \"disable\"\npassword = \"guest\"\n", destination.port);
    let mut world = World::new(&destination.name, &sink);
    let missing = world.output(&["dead-letters", "list"]);
    assert_ne!(missing.status.code(), Some(0), "nothing has made the queue yet");

    world.feedline.start();
    world.feedline.wait_until_live();
    let empty = world.output(&["dead-letters", "list"]);
    assert!(objects(&empty).is_empty() && text(&empty.stderr).contains("0 dead letters"), "{empty:?}");
    world.execute(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {LETTERS}) INSERT INTO t SELECT i, 'a' FROM n"
    ));
    world.confirms(LETTERS as u64);
    // All of them, which is more than the broker sends without being asked for more; and again, since none is taken away.
    for _ in 0..2 {
        let listed = world.output(&["dead-letters", "list", "--brief"]);
        let letters = objects(&listed);
        let ids: Vec<&str> = letters.iter().map(|letter| letter["id"].as_str().unwrap()).collect();
        assert_eq!((ids.len(), ids.is_sorted()), (LETTERS, true));
        assert!(letters.iter().all(|letter| letter.get("event").is_none() && letter["op"] == "insert" && letter["table"] == "main.t"));
        assert!(letters[0]["error"].as_str().unwrap().starts_with("FL3203 "), "{}", letters[0]);
        assert!(text(&listed.stderr).contains(&format!("{LETTERS} dead letters")));
    }
    let listed = world.output(&["dead-letters", "list"]);
    assert_eq!(objects(&listed)[1]["event"]["after"]["id"], 2, "with its bytes");

    // What the client would print of the password stays unprinted, whatever is asked for.
    let traced = world.output(&["dead-letters", "list", "--brief", "--set", "log.level=lapin=trace"]);
    assert_eq!(objects(&traced).len(), LETTERS);
    let log = text(&traced.stderr);
    assert!(log.contains("\"level\":\"DEBUG\"") && !log.contains("\"level\":\"TRACE\""), "{log}");

    let heard = world.tail_while_writing(&["tail", "-n", "3", "--with-destination", "main.t.insert"]);
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.starts_with("main.t.insert {\"v\":1,\"op\":\"insert\"")), "{heard}");
    let heard = world.tail_while_writing(&["tail", "--count", "2"]);
    assert_eq!(heard.lines().filter(|line| line.starts_with("{\"v\":1,")).count(), 2, "{heard}");
    let refused = world.output(&["tail", "--from-beginning"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("stores no events"), "{refused:?}");
    world.feedline.stop();
}

#[test]
fn of_kafka() {
    let name = Kafka::unique("heard").replace('.', "_");
    let topic = format!("{name}.main.t");
    Kafka::shared().create_topic(&topic, 3, &[("max.message.bytes", "3000")]);
    let sink = format!(
        "kind = \"kafka\"\nbootstrap_servers = \"{}\"\ncreate_topics = {{ partitions = 3, replication = 1 }}\n",
        Kafka::shared().bootstrap()
    );
    let mut world = World::new(&name, &sink);
    world.execute("INSERT INTO t (v) VALUES ('a'), (hex(zeroblob(3000))), ('b'), (hex(zeroblob(4000))), (hex(zeroblob(5000))), ('c')");
    world.feedline.start();
    world.feedline.wait_until_live();
    world.execute("DELETE FROM t WHERE id = 1");
    world.confirms(8);

    let listed = world.output(&["dead-letters", "list"]);
    let mut letters = objects(&listed);
    letters.sort_by_key(|letter| letter["event"]["key"]["id"].as_i64());
    assert_eq!(letters.iter().map(|letter| letter["event"]["key"]["id"].as_i64().unwrap()).collect::<Vec<_>>(), [2, 4, 5]);
    assert!(
        letters.iter().all(|letter| letter["destination"] == topic.as_str() && letter["error"].as_str().unwrap().starts_with("FL3007 "))
    );
    let brief = world.output(&["dead-letters", "list", "--brief"]);
    assert!(objects(&brief).len() == 3 && objects(&brief).iter().all(|letter| letter.get("event").is_none()));
    assert!(text(&brief.stderr).contains("3 dead letters"));

    // Three rows, a delete and its tombstone.
    let heard = world.output(&["tail", "--from-beginning", "-n", "5"]);
    let mut lines: Vec<String> = text(&heard.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines.len(), 5, "{heard:?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("{\"v\":1,\"op\":\"read\"")).count(), 3);
    assert!(lines.contains(&"{\"id\":1} null".to_owned()), "a tombstone is its key: {lines:?}");
    let heard = world.output(&["tail", "--from-beginning", "--count", "3", "--with-destination", &format!("{name}.dead_letter")]);
    let lines = text(&heard.stdout);
    assert!(lines.lines().count() == 3 && lines.lines().all(|line| line.starts_with(&format!("{name}.dead_letter["))), "{lines}");
    let heard = world.tail_while_writing(&["tail", "-n", "2", "--with-destination"]);
    assert!(
        heard.lines().count() == 2 && heard.lines().all(|line| line.starts_with(&format!("{topic}[")) && line.contains("more")),
        "{heard}"
    );
    let missing = world.output(&["tail", "-n", "1", "no.such.topic"]);
    assert!(!missing.status.success() && text(&missing.stderr).contains("no.such.topic"), "{missing:?}");
    world.feedline.stop();
}
