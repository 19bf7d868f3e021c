//! Wrong inputs, in one table: the input, the expected code and exit status, and the culprit and remedy that the message must name.
//! Each line is a complete configuration, run against real servers: with `feedline check` if that can find the error (`checked`), else with
//! `feedline run` (`run_only`).
//!
//! Wrong inputs that need more than a configuration and a server are tested elsewhere:
//!
//! | input | test |
//! |---|---|
//! | another cluster or database behind the name, a log that was rewound, a slot that was lost or moved | `postgres::refusals`, `postgres::gap` |
//! | a standby, a pooler, no slot or walsender left, timeouts of the role | `postgres::gap`, `postgres::refusals`, `postgres::reading` |
//! | a table that is dropped while it is read, renamed, or whose key column goes | `postgres::waiting`, `postgres::refusals` |
//! | a prefeed's file that changed between two runs | `dataset::a_file_that_changed_or_is_gone_is_refused` |
//! | a checkpoint's disk that is full, a file that vanished, one slot that is torn | `checkpoint_file` |
//! | a checkpoint in the broker that is foreign, newer or taken over | `contract_checkpoint` |
//! | another broker than the checkpoint's | `pipeline` |
//! | Kafka's SASL and certificates | `kafka::a_broker_without_the_users_mechanism_needs_a_person`, `kafka::a_certificate_that_nobody_vouches_for_needs_a_person` |
//! | a queue that loses messages, or fills the disk without consumers | `amqp::preflight::queues_that_lose_messages_are_named` |
//! | malicious rows | `format::json`, `postgres::values`, `sqlite::values` |

mod checked;
mod mysql;
mod run_only;

use crate::amqp::destination::Destination;
use crate::servers::kafka::Kafka;
use crate::servers::postgres::Postgres;
use crate::servers::rabbitmq::RabbitMq;
use lapin::types::FieldTable;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The parts of a configuration.
struct Input {
    source: String,
    feeds: String,
    sink: String,
}

impl Input {
    fn new(source: String, feeds: &str, sink: impl Into<String>) -> Self {
        Self { source, feeds: feeds.to_owned(), sink: sink.into() }
    }
}

/// A line of the table.
struct Line {
    /// What is wrong.
    what: &'static str,
    input: Input,
    code: &'static str,
    status: i32,
    /// What the message must name: the culprit, and the remedy.
    culprit: String,
    remedy: &'static str,
}

/// Builds a line.
fn line(what: &'static str, input: Input, code: &'static str, status: i32, culprit: impl Into<String>, remedy: &'static str) -> Line {
    Line { what, input, code, status, culprit: culprit.into(), remedy }
}

/// The codes and messages of the program, and its exit status.
type Outcome = (Vec<(String, String)>, i32);

/// Runs the program with each line, and fails with all lines that it did not name.
fn assert_named(lines: Vec<Line>, run: impl Fn(&Input) -> Outcome) {
    let mut wrong = String::new();
    for Line { what, input, code, status, culprit, remedy } in lines {
        let (messages, exit) = run(&input);
        let is_named = messages.iter().any(|(found, message)| found == code && message.contains(&culprit) && message.contains(remedy));
        if !is_named || exit != status {
            writeln!(wrong, "{what}: expected {code}, exit {status}, {culprit:?}, {remedy:?}; exit {exit}, messages:").unwrap();
            for (code, message) in messages {
                writeln!(wrong, "    {code} {message}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The program, with a directory of its own.
struct Program {
    /// The pipeline's name, which is part of the slot's name.
    name: String,
    directory: PathBuf,
}

/// The servers of a test, and the objects in them.
struct World {
    program: Program,
    postgres: &'static Postgres,
    database: String,
    weak_role: String,
    kafka: &'static Kafka,
    rabbit: &'static RabbitMq,
    poor_user: String,
    /// An existing exchange.
    exchange: String,
}

impl World {
    fn new(name: &str) -> Self {
        let program = Program::new(name);
        let directory = &program.directory;
        sqlite(
            &directory.join("shop.db"),
            "PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY); CREATE TABLE others (id INTEGER PRIMARY KEY); CREATE TABLE keyless (a)",
        );
        sqlite(&directory.join("rollback.db"), "CREATE TABLE orders (id INTEGER PRIMARY KEY)");
        std::fs::write(directory.join("text.db"), "this is no database, and long enough to be read as one: ".repeat(10)).unwrap();
        std::fs::write(directory.join("empty"), "").unwrap();
        let postgres = Postgres::shared();
        let database = postgres.create_database("bad_input");
        postgres.psql(
            &database,
            "CREATE TABLE orders (id int PRIMARY KEY, note text); CREATE TABLE keyless (a int); INSERT INTO orders VALUES (1, 'a'), (2, 'a')",
        );
        let weak_role = postgres.create_user("weak", "secret", "");
        let rabbit = RabbitMq::shared();
        let poor_user = format!("poor{name}{}", std::process::id());
        rabbit.ctl(&["add_user", &poor_user, "secret"]);
        rabbit.ctl(&["set_permissions", "-p", "/", &poor_user, "^$", "^$", "^$"]);
        Self {
            program,
            postgres,
            database,
            weak_role,
            kafka: Kafka::shared(),
            rabbit,
            poor_user,
            exchange: Destination::new(rabbit, &["#"], FieldTable::default()).name,
        }
    }

    fn sqlite(&self, file: &str) -> String {
        format!("kind = \"sqlite\"\npath = \"{}\"", self.program.directory.join(file).display())
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
}

impl Program {
    fn new(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bad-input-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self { name: format!("bad_{name}"), directory }
    }

    /// Runs `feedline COMMAND` with a configuration.
    fn feedline(&self, command: &[&str], input: &Input) -> (String, String, i32) {
        let path = self.directory.join("feedline.toml");
        let whole = |part: &str| input.sink.contains(part) || input.source.contains(part);
        let checkpoint = if whole("[checkpoint]") {
            String::new()
        } else {
            format!("[checkpoint]\npath = \"{}\"\n", self.directory.join("checkpoint").display())
        };
        let configuration =
            format!("name = \"{}\"\n[source]\n{}\n{}\n{checkpoint}[sink]\n{}\n", self.name, input.source, input.feeds, input.sink);
        std::fs::write(&path, configuration).unwrap();
        let mut program = Command::new("timeout");
        program.args(["60", env!("CARGO_BIN_EXE_feedline")]).args(command).arg("--config").arg(&path);
        program.args(["--set", "admin.listen=off", "--set", "log.format=json", "--set", "pipeline.takeover_timeout=1s"]);
        let output = program.env("RABBIT", "guest").env("SECRET", "secret").env("WRONG", "canary").output().unwrap();
        let (said, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(!said.contains("canary") && !log.contains("canary"), "a secret is shown: {said}{log}");
        (said, log, output.status.code().unwrap())
    }

    /// The findings of `feedline check`.
    fn check(&self, input: &Input) -> Outcome {
        let (said, log, exit) = self.feedline(&["check", "--format", "json"], input);
        let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{log}"));
        let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_owned();
        (report["findings"].as_array().unwrap().iter().map(|finding| (text(finding, "code"), text(finding, "message"))).collect(), exit)
    }

    /// The final error of `feedline run`.
    fn run(&self, input: &Input) -> Outcome {
        let _none = std::fs::remove_file(self.directory.join("checkpoint"));
        self.run_on(input)
    }

    /// The same, with the existing checkpoint.
    fn run_on(&self, input: &Input) -> Outcome {
        let (_, log, exit) = self.feedline(&["run"], input);
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let stops = lines.filter(|line| line["level"] == "ERROR");
        let text = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        (stops.map(|line| (text(&line, "code"), text(&line, "error"))).collect(), exit)
    }
}

fn sqlite(path: &Path, statements: &str) {
    let script = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.executescript(sys.argv[2])";
    assert!(Command::new("python3").args(["-c", script]).arg(path).arg(statements).status().unwrap().success());
}

const ORDERS: &str = "[[feeds]]\ntables = [\"orders\"]";
const STDOUT: &str = "kind = \"stdout\"";
