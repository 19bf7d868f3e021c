//! What people get wrong, in one table: the input, the code that names it, and the words that say what to do.
//!
//! Each line is a whole configuration that `feedline check` is asked about, beside real servers.

use crate::amqp::place::Place;
use crate::servers::kafka::Kafka;
use crate::servers::port;
use crate::servers::postgres::Postgres;
use crate::servers::rabbitmq::RabbitMq;
use lapin::types::FieldTable;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A configuration by its parts.
struct Input {
    source: String,
    feeds: String,
    sink: String,
}

/// What the servers of this test are called, and what is in them.
struct World {
    directory: PathBuf,
    postgres: &'static Postgres,
    database: String,
    weak_role: String,
    kafka: &'static Kafka,
    rabbit: &'static RabbitMq,
    poor_user: String,
    /// An exchange that is there.
    exchange: String,
}

impl World {
    fn new() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bad-input-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        sqlite(
            &directory.join("shop.db"),
            "PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY); CREATE TABLE keyless (a)",
        );
        sqlite(&directory.join("rollback.db"), "CREATE TABLE orders (id INTEGER PRIMARY KEY)");
        std::fs::write(directory.join("text.db"), "this is no database, and long enough to be read as one: ".repeat(10)).unwrap();
        std::fs::write(directory.join("empty"), "").unwrap();
        let postgres = Postgres::shared();
        let database = postgres.create_database("bad_input");
        postgres.psql(
            &database,
            "CREATE TABLE orders (id int PRIMARY KEY, note text); CREATE TABLE keyless (a int); CREATE VIEW seen AS SELECT * FROM orders; \
             CREATE TABLE \"naïve\" (id int PRIMARY KEY)",
        );
        let weak_role = postgres.create_user("weak", "secret", "");
        let rabbit = RabbitMq::shared();
        let poor_user = format!("poor{}", std::process::id());
        rabbit.ctl(&["add_user", &poor_user, "secret"]);
        rabbit.ctl(&["set_permissions", "-p", "/", &poor_user, "^$", "^$", "^$"]);
        Self {
            directory,
            postgres,
            database,
            weak_role,
            kafka: Kafka::shared(),
            rabbit,
            poor_user,
            exchange: Place::new(rabbit, &["#"], FieldTable::default()).name,
        }
    }

    fn sqlite(&self, file: &str) -> String {
        format!("kind = \"sqlite\"\npath = \"{}\"", self.directory.join(file).display())
    }

    fn postgres(&self, lines: &str) -> String {
        let mut source = format!("kind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\n", self.postgres.port());
        for (key, value) in [("user", "\"postgres\""), ("database", &format!("\"{}\"", self.database)), ("tls", "\"disable\"")] {
            if !lines.contains(&format!("{key} =")) {
                writeln!(source, "{key} = {value}").unwrap();
            }
        }
        source + lines
    }

    fn kafka(&self, lines: &str) -> String {
        format!("kind = \"kafka\"\nbootstrap_servers = \"{}\"\n{lines}", self.kafka.bootstrap())
    }

    fn amqp(&self, lines: &str) -> String {
        let mut sink = String::from("kind = \"amqp\"\n");
        for (key, value) in [("port", self.rabbit.port().to_string()), ("tls", "\"disable\"".into()), ("password_env", "\"RABBIT\"".into())]
        {
            if !lines.contains(&format!("{key} =")) {
                writeln!(sink, "{key} = {value}").unwrap();
            }
        }
        sink + lines
    }

    /// The findings of `feedline check`, and its exit status.
    fn check(&self, input: &Input) -> (Vec<serde_json::Value>, i32) {
        let path = self.directory.join("feedline.toml");
        let checkpoint = if input.sink.contains("[checkpoint]") {
            String::new()
        } else {
            format!("[checkpoint]\npath = \"{}\"\n", self.directory.join("checkpoint").display())
        };
        let configuration =
            format!("name = \"badinput\"\n[source]\n{}\n{}\n{checkpoint}[sink]\n{}\n", input.source, input.feeds, input.sink);
        std::fs::write(&path, configuration).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
        command.args(["check", "--format", "json", "--config"]).arg(&path);
        let output = command.env("RABBIT", "guest").env("SECRET", "secret").env("WRONG", "canary").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("canary") && !String::from_utf8_lossy(&output.stderr).contains("canary"), "a secret is shown: {text}");
        let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (report["findings"].as_array().unwrap().clone(), output.status.code().unwrap())
    }
}

fn sqlite(path: &Path, statements: &str) {
    let script = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.executescript(sys.argv[2])";
    assert!(Command::new("python3").args(["-c", script]).arg(path).arg(statements).status().unwrap().success());
}

const ORDERS: &str = "[[feeds]]\ntables = [\"orders\"]";
const STDOUT: &str = "kind = \"stdout\"";

/// What is wrong, the input, its code, its exit status, and words of the message: the culprit, and the remedy.
type Line = (&'static str, Input, &'static str, i32, &'static [&'static str]);

/// The configuration itself.
fn configurations(world: &World) -> Vec<Line> {
    let shop = || world.sqlite("shop.db");
    let with = |source: String, feeds: &str, sink: String| Input { source, feeds: feeds.to_owned(), sink };
    let sink = |sink: &str| with(shop(), ORDERS, sink.to_owned());
    let feeds = |feeds: &str| with(shop(), feeds, STDOUT.to_owned());
    vec![
        ("an unknown setting", sink("kind = \"kafka\"\nbootstrap_server = \"a\""), "FL1002", 2, &["bootstrap_servers"]),
        ("a value of another type", sink(&world.amqp("window = \"many\"")), "FL1003", 2, &["sink.window", "whole number"]),
        ("a number out of bounds", sink(&world.amqp("window = 0")), "FL1003", 2, &["from 1 to 100000"]),
        ("a setting that is missing", sink("kind = \"kafka\""), "FL1004", 2, &["bootstrap_servers"]),
        ("a backend of a later version", with("kind = \"mysql\"".to_owned(), ORDERS, STDOUT.to_owned()), "FL1006", 2, &["mysql"]),
        ("a setting of another sink", sink("kind = \"stdout\"\nexchange = \"x\""), "FL1005", 2, &["sink.kind = \"amqp\""]),
        ("a password in a URL", sink("kind = \"amqp\"\nurl = \"amqps://me:canary@a\""), "FL1003", 2, &["password_file"]),
        ("a secret's file that is empty", sink("kind = \"amqp\"\npassword_file = \"/nowhere/secret\""), "FL1007", 2, &["/nowhere/secret"]),
        (
            "a placeholder that does not exist",
            sink("kind = \"kafka\"\nbootstrap_servers = \"a\"\ntopic = \"{tabel}\""),
            "FL1003",
            2,
            &["did you mean {table}"],
        ),
        ("an ordering that does not exist", sink(&world.amqp("ordering = \"strict\"")), "FL1003", 2, &["per_key"]),
        ("a queue without binding keys", sink(&world.amqp("[[sink.queues]]\nname = \"a\"")), "FL1004", 2, &["sink.queues.0.keys"]),
        (
            "queues where nothing is declared",
            sink(&world.amqp("declare = false\n[[sink.queues]]\nname = \"a\"\nkeys = [\"#\"]")),
            "FL1005",
            2,
            &["sink.declare"],
        ),
        ("a certificate without its key", sink("kind = \"amqp\"\ncert_file = \"a\""), "FL1005", 2, &["sink.key_file"]),
        (
            "acknowledgements turned off",
            sink("kind = \"kafka\"\nbootstrap_servers = \"a\"\n[sink.properties]\nacks = 0"),
            "FL1005",
            2,
            &["acks"],
        ),
        (
            "a checkpoint in a broker, and none",
            sink("kind = \"stdout\"\n[checkpoint]\nkind = \"kafka\""),
            "FL1005",
            2,
            &["sink.kind = \"kafka\""],
        ),
        (
            "a checkpoint in a file and in the broker",
            sink("kind = \"amqp\"\n[checkpoint]\nkind = \"amqp\"\npath = \"a\""),
            "FL1005",
            2,
            &["checkpoint.path", "leave one of the two out"],
        ),
        ("no table", feeds(""), "FL1004", 2, &["[[feeds]]"]),
        ("a table that is not there", feeds("[[feeds]]\ntables = [\"order\"]"), "FL1011", 2, &["order"]),
        ("a table in two feeds", feeds(&format!("{ORDERS}\n{ORDERS}")), "FL1010", 2, &["orders"]),
        ("a table without a key", feeds("[[feeds]]\ntables = [\"keyless\"]"), "FL2009", 71, &["keyless"]),
    ]
}

/// Source and sink.
fn servers(world: &World) -> Vec<Line> {
    let free = port::free();
    let with = |source: String, feeds: &str, sink: String| Input { source, feeds: feeds.to_owned(), sink };
    let source = |source: String| with(source, ORDERS, STDOUT.to_owned());
    let sink = |sink: String| with(world.sqlite("shop.db"), ORDERS, sink);
    let keyless = "[[feeds]]\ntables = [\"public.keyless\"]\nkey = [\"a\"]";
    vec![
        ("a SQLite file that is not there", source(world.sqlite("none.db")), "FL2001", 71, &["none.db"]),
        ("a file that is no database", source(world.sqlite("text.db")), "FL2200", 71, &["text.db"]),
        ("a database without WAL", source(world.sqlite("rollback.db")), "FL2201", 71, &["PRAGMA journal_mode = WAL"]),
        (
            "PostgreSQL that is not there",
            source(format!("kind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {free}\nuser = \"a\"\ndatabase = \"a\"\ntls = \"disable\"")),
            "FL2001",
            71,
            &["127.0.0.1"],
        ),
        ("a database that is not there", source(world.postgres("database = \"none\"")), "FL2101", 71, &["none"]),
        (
            "a wrong password",
            source(world.postgres(&format!("user = \"{}\"\npassword_env = \"WRONG\"", world.weak_role))),
            "FL2002",
            71,
            &["source.password"],
        ),
        ("an authority that is not trusted", source(world.postgres("tls = \"verify_full\"")), "FL2003", 71, &["source.ca_file"]),
        (
            "a role that may not replicate",
            source(world.postgres(&format!("user = \"{}\"\npassword_env = \"SECRET\"", world.weak_role))),
            "FL2004",
            71,
            &["REPLICATION"],
        ),
        ("a table without a replica identity", with(world.postgres(""), keyless, STDOUT.to_owned()), "FL2009", 71, &["keyless"]),
        (
            "Kafka that is not there",
            sink(format!("kind = \"kafka\"\nbootstrap_servers = \"127.0.0.1:{free}\"")),
            "FL3001",
            71,
            &["sink.bootstrap_servers"],
        ),
        ("a topic that is not there", sink(world.kafka("topic = \"none.{table}\"")), "FL3005", 71, &["none.orders", "sink.create_topics"]),
        ("a topic's name that Kafka refuses", sink(world.kafka("topic = \"a b\"")), "FL1013", 2, &["a b"]),
        ("RabbitMQ that is not there", sink(world.amqp(&format!("port = {free}"))), "FL3001", 71, &["sink.host"]),
        ("RabbitMQ's password", sink(world.amqp("password_env = \"WRONG\"")), "FL3002", 71, &["sink.password_file"]),
        ("a virtual host that is not there", sink(world.amqp("vhost = \"none\"")), "FL3201", 71, &["add_vhost"]),
        ("an exchange of another type", sink(world.amqp("exchange = \"amq.direct\"")), "FL1003", 2, &["amq."]),
        ("an exchange that is not there", sink(world.amqp("exchange = \"none\"\ndeclare = false")), "FL3202", 71, &["none", "topic"]),
        (
            "a user without permissions",
            sink(world.amqp(&format!(
                "user = \"{}\"\npassword_env = \"SECRET\"\nvhost = \"/\"\nexchange = \"{}\"",
                world.poor_user, world.exchange
            ))),
            "FL3004",
            71,
            &["set_permissions"],
        ),
        ("no topic for the checkpoint", sink(world.kafka("[checkpoint]\nkind = \"kafka\"")), "FL4008", 71, &["--partitions 1", "compact"]),
        (
            "no queue for the checkpoint",
            sink(world.amqp(&format!("exchange = \"{}\"\ndeclare = false\n[checkpoint]\nkind = \"amqp\"", world.exchange))),
            "FL4008",
            71,
            &["badinput.checkpoint", "sink.declare"],
        ),
        ("TLS where there is none", sink(world.amqp("tls = \"require\"")), "FL3003", 71, &["sink.port"]),
        ("a routing key that is too long", sink(world.amqp(&format!("routing_key = \"{}\"", "x".repeat(256)))), "FL1013", 2, &["255"]),
        (
            "bindings that nobody may look at",
            sink(world.amqp(&format!("exchange = \"{}\"\nmanagement_url = \"http://127.0.0.1:{free}\"", world.exchange))),
            "FL3205",
            0,
            &["management API"],
        ),
    ]
}

#[test]
fn every_bad_input_is_named_with_its_code_and_its_remedy() {
    let world = World::new();
    let mut wrong = Vec::new();
    for (what, input, code, status, words) in configurations(&world).into_iter().chain(servers(&world)) {
        let (findings, exit) = world.check(&input);
        let says = |finding: &serde_json::Value| words.iter().all(|word| finding["message"].as_str().unwrap().contains(word));
        let is_named = findings.iter().any(|finding| finding["code"] == code && says(finding));
        if !is_named || exit != status {
            let found: Vec<String> = findings.iter().map(|finding| format!("{} {}", finding["code"], finding["message"])).collect();
            wrong.push(format!("{what}: expected {code}, exit {status}, {words:?}; exit {exit}, found\n    {}", found.join("\n    ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    std::fs::remove_dir_all(&world.directory).unwrap();
}
