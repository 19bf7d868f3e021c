//! The examples and commands in the documents work with this build.

use crate::crash::feedline::Feedline;
use crate::servers::kafka::Kafka;
use crate::servers::mongodb::MongoDb;
use crate::servers::mysql::{self, MySql};
use crate::servers::port;
use crate::servers::postgres::{Options, Postgres};
use crate::servers::rabbitmq::RabbitMq;
use crate::servers::rethinkdb::RethinkDb;
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A block of a document between its fences.
struct Block {
    /// The text after the first fence.
    kind: String,
    /// The line before it that is not empty.
    before: String,
    text: String,
}

fn blocks(document: &Path) -> Vec<Block> {
    let (mut blocks, mut open, mut before) = (Vec::new(), None::<Block>, String::new());
    for line in std::fs::read_to_string(document).unwrap().lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => writeln!(block.text, "{line}").unwrap(),
            (None, Some(kind)) => open = Some(Block { kind: kind.to_owned(), before: before.clone(), text: String::new() }),
            (None, None) if !line.is_empty() => line.clone_into(&mut before),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a fence is not closed", document.display());
    blocks
}

fn documents() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    docs.chain([root().join("README.md"), root().join("helm/feedline/README.md")]).collect()
}

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("documents-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A fragment as a whole configuration: with a name, a source, a feed and a sink where it has none.
fn whole(fragment: &str) -> String {
    let tables: toml_edit::DocumentMut = fragment.parse().unwrap();
    let mut whole = format!("name = \"fragment\"\n{fragment}");
    let has = |table: &str| tables.contains_key(table);
    if !has("source") {
        whole += "\n[source]\nkind = \"postgres\"\nhost = \"127.0.0.1\"\nuser = \"feedline\"\ndatabase = \"shop\"\n";
    }
    if !has("feeds") {
        whole += "\n[[feeds]]\ntables = [\"public.orders\"]\n";
    }
    if !has("sink") {
        whole += "\n[sink]\nkind = \"stdout\"\n";
    }
    whole
}

#[test]
fn every_configuration_in_the_documents_passes_check() {
    let directory = Directory::new("toml");
    std::fs::write(directory.0.join("secret"), "secret").unwrap();
    let (path, mut count) = (directory.0.join("feedline.toml"), 0);
    for document in documents() {
        for block in blocks(&document).iter().filter(|block| block.kind.starts_with("toml")) {
            let text = if block.kind == "toml fragment" { whole(&block.text) } else { block.text.clone() };
            // A file that a person has is stood for by one that is here.
            let place = directory.0.join("secret").display().to_string();
            let lines = text.lines().map(|line| match line.split_once(" = ") {
                Some((key, _)) if key.ends_with("_file") || key.ends_with(".location\"") => format!("{key} = {place:?}\n"),
                _ => format!("{line}\n"),
            });
            std::fs::write(&path, lines.collect::<String>()).unwrap();
            let mut check = Command::new(env!("CARGO_BIN_EXE_feedline"));
            check
                .args(["check", "--offline", "-c"])
                .arg(&path)
                .env("POSTGRES_PASSWORD", "x")
                .env("RABBITMQ_PASSWORD", "x")
                .env("MYSQL_PASSWORD", "x")
                .env("RETHINKDB_PASSWORD", "x")
                .env("MONGODB_PASSWORD", "x");
            // A few lines of a sink do not say which one: RabbitMQ's document is alone in that.
            let tables: toml_edit::DocumentMut = text.parse().unwrap();
            if !tables["sink"].as_table().unwrap().contains_key("kind") {
                check.args(["--set", "sink.kind=amqp"]);
            }
            let output = check.output().unwrap();
            assert!(output.status.success(), "{}: {}\n{}", document.display(), block.text, String::from_utf8_lossy(&output.stdout));
            count += 1;
        }
    }
    assert!(8 <= count, "{count} configurations");
}

/// What rabbitmq.md grants is enough to carry a row by the configuration above it.
#[test]
fn rabbitmqs_permissions_are_enough_for_the_configuration_above_them() {
    let (directory, broker) = (Directory::new("permissions"), RabbitMq::shared());
    let name = format!("documents{}", std::process::id());
    let blocks = blocks(&root().join("docs/rabbitmq.md"));
    let command =
        blocks.iter().filter(|block| block.kind == "sh").flat_map(|block| block.text.lines()).find(|line| line.contains("set_permissions"));
    let (queue, command) =
        (format!("{name}billing"), command.unwrap().replace("billing", &format!("{name}billing")).replace("shop", &name));
    let words: Vec<String> = command.split_whitespace().skip(1).map(|word| word.trim_matches('\'').replace("feedline", &name)).collect();
    assert!(words[4].contains(&queue), "the queue of the configuration: {words:?}");
    broker.ctl(&["add_user", &name, "secret"]);
    broker.ctl(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let database = directory.0.join("shop.db");
    let script = "import sqlite3, sys\nd = sqlite3.connect(sys.argv[1])\nd.execute('PRAGMA journal_mode = WAL')\n\
        d.executescript('CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)')";
    assert!(Command::new("/usr/bin/python3").args(["-c", script]).arg(&database).status().unwrap().success());
    let configuration = format!(
        "name = \"{name}\"\n[source]\nkind = \"sqlite\"\npath = {database:?}\n[[feeds]]\ntables = [\"t\"]\n[checkpoint]\npath = {:?}\n\
         [sink]\nkind = \"amqp\"\nport = {}\ntls = \"disable\"\nuser = \"{name}\"\npassword = \"secret\"\n\
         [[sink.queues]]\nname = \"{queue}\"\nkeys = [\"#\"]\ntype = \"classic\"\n",
        directory.0.join("checkpoint"),
        broker.port(),
    );
    let mut feedline = Feedline::new(&directory.0, &configuration);
    feedline.start();
    feedline.wait_until_live();
    feedline.stop();
    broker.ctl(&["delete_user", &name]);
}

/// The statements of events.md end on the same rows in whatever order events come, and whatever is repeated.
#[test]
fn the_sql_of_events_folds_events_in_any_order() {
    const EVENTS: [&str; 6] =
        ["clear('01')", "put(2, 'new', 2, '02')", "clear('03')", "put(1, 'paid', 1.50, '04')", "put(3, 'new', 3, '05')", "remove(3, '06')"];
    const ORDERS: usize = 720;
    let (directory, server) = (Directory::new("fold"), Postgres::shared());
    let database = server.create_database("fold");
    let mut script = blocks(&root().join("docs/events.md")).into_iter().find(|block| block.kind == "sql").unwrap().text;
    script += "BEGIN;\n";
    for number in 0..ORDERS {
        let (mut left, mut order, mut digits) = (EVENTS.to_vec(), Vec::new(), number);
        while !left.is_empty() {
            let base = left.len();
            order.push(left.remove(digits % base));
            digits /= base;
        }
        // As after a fault.
        order.extend_from_within(..3);
        script += "DELETE FROM orders; DELETE FROM floors;\n";
        for event in order {
            writeln!(script, "EXECUTE {event};").unwrap();
        }
        script += "SELECT id, status, total FROM orders WHERE NOT is_deleted ORDER BY id;\n";
    }
    let path = directory.0.join("fold.sql");
    std::fs::write(&path, script).unwrap();
    let output = server.psql_command(&database).arg("-f").arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1|paid|1.50\n".repeat(ORDERS));
}

/// Types `docs/five-minutes.md`, block after block, into one shell; only the ports are those of the tests' servers.
#[test]
fn five_minutes_are_typed_as_they_stand() {
    let directory = Directory::new("five-minutes");
    let (postgres, kafka, rabbit) = (Postgres::start(&Options::default()), Kafka::start(&[]), RabbitMq::start(&[]));
    let (kafkas_admin, rabbits_admin) = (port::free(), port::free());
    let ports = [
        ("127.0.0.1:9092", kafka.bootstrap()),
        ("127.0.0.1:5672", format!("127.0.0.1:{}", rabbit.port())),
        ("127.0.0.1:9464", format!("127.0.0.1:{kafkas_admin}")),
        ("127.0.0.1:9465", format!("127.0.0.1:{rabbits_admin}")),
    ];
    let mut script = String::from("set -e\n");
    for block in blocks(&root().join("docs/five-minutes.md")) {
        let text = ports.iter().fold(block.text, |text, (written, here)| text.replace(written, here));
        let named = |what: &str| block.before.rsplit('`').nth(1).unwrap_or_else(|| panic!("which {what}? {:?}", block.before));
        match block.kind.as_str() {
            "sql" => writeln!(script, "psql -v ON_ERROR_STOP=1 -q {} <<'END'\n{text}END", named("database")).unwrap(),
            "toml" => {
                let text = text.replace("kind = \"amqp\"\n", &format!("kind = \"amqp\"\nport = {}\n", rabbit.port()));
                writeln!(script, "cat >{} <<'END'\n{text}END", named("file")).unwrap();
            }
            // The port that the first pipeline does not name is the default one.
            "sh" => {
                let named = format!("feedline run --set admin.listen=127.0.0.1:{kafkas_admin} -c feedline.toml");
                script += &text.replace("feedline run -c feedline.toml", &named);
            }
            kind => panic!("a block of a kind that nobody types: {kind:?}"),
        }
    }
    let port = postgres.port().to_string();
    let said = typed(
        &directory,
        &script,
        &[("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGUSER", "postgres"), ("FEEDLINE__SOURCE__PORT", &port)],
    );
    let lines = |part: &str| said.lines().filter(|line| line.contains(part)).count();
    assert_eq!(lines("\"op\":\"read\""), 3, "{said}");
    assert_eq!(lines("\"op\":\"update\""), 1, "{said}");
    assert!(said.contains("feedline_lag_seconds{pipeline=\"shop\"} "), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("public.orders {")).count(), 3, "{said}");
    assert!(
        said.contains("removed replication slot feedline_shop\n") && said.contains("removed replication slot feedline_shop_rabbit\n"),
        "{said}"
    );
    assert_eq!(postgres.psql("shop", "SELECT count(*) FROM pg_replication_slots"), "0");
}

/// Types `docs/five-minutes-mariadb.md` in the same way, on a server with the settings that it names.
#[test]
fn five_minutes_with_mariadb_are_typed_as_they_stand() {
    let blocks = blocks(&root().join("docs/five-minutes-mariadb.md"));
    let of_kind = |kind: &str| blocks.iter().filter(|block| block.kind == kind).map(|block| &*block.text).collect::<String>();
    let settings = of_kind("ini").leak().lines().filter_map(|line| line.split_once(" = ")).collect();
    let (directory, kafka, admin) = (Directory::new("five-minutes-mariadb"), Kafka::start(&[]), port::free());
    let mariadb = MySql::start(&mysql::Options { settings, ..mysql::Options::default() });
    let (port, admin) = (mariadb.port().to_string(), format!("127.0.0.1:{admin}"));
    let mut script = String::from("set -e\n");
    for block in &blocks {
        let text = block.text.replace("127.0.0.1:9092", &kafka.bootstrap()).replace("127.0.0.1:9464", &admin);
        match block.kind.as_str() {
            "sql" => writeln!(script, "mariadb --no-defaults --skip-ssl -h 127.0.0.1 -P {port} -u root <<'END'\n{text}END").unwrap(),
            "toml" => writeln!(script, "cat >feedline.toml <<'END'\n{text}END").unwrap(),
            "sh" => script += &text.replace("feedline run", &format!("feedline run --set admin.listen={admin}")),
            kind => assert_eq!(kind, "ini", "a block of a kind that nobody types"),
        }
    }
    let said = typed(&directory, &script, &[("FEEDLINE__SOURCE__PORT", &port)]);
    let lines = |part: &str| said.lines().filter(|line| line.contains(part)).count();
    assert_eq!((lines("\"op\":\"read\""), lines("\"op\":\"update\"")), (3, 1), "{said}");
    assert!(said.contains("feedline_lag_seconds{pipeline=\"shop\"} "), "{said}");
}

/// The statements of `docs/five-minutes-rethinkdb.md` are in Python.
#[test]
fn five_minutes_with_rethinkdb_are_typed_as_they_stand() {
    let server = RethinkDb::start();
    server.add_user("feedline", "secret");
    server.create_table("orders", "id");
    (1..=1000).for_each(|id| server.put("orders", &json!({"id": id, "status": "new", "total": id})));
    let statements = Statements {
        language: "python",
        first: "range(1, 1001)",
        second: "r.db(\"shop\").table(\"orders\").get(7).update({\"status\": \"paid\"})",
    };
    let port = server.port();
    let said = typed_beside("rethinkdb", &statements, port, || server.put("orders", &json!({"id": 7, "status": "paid", "total": 7})));
    assert!(said.contains("removed the local store shop.store\n"), "{said}");
}

/// The statements of `docs/five-minutes-mongodb.md` are for mongosh.
#[test]
fn five_minutes_with_mongodb_are_typed_as_they_stand() {
    let server = MongoDb::start(&[]);
    server.create("shop", "orders");
    server.insert("shop", "orders", &(1..=1000).map(|id| json!({"_id": id, "status": "new", "total": id})).collect::<Vec<_>>());
    let statements =
        Statements { language: "js", first: "insertMany", second: "db.orders.updateOne({_id: 7}, {$set: {status: \"paid\"}})" };
    let port = server.port();
    typed_beside("mongodb", &statements, port, || server.update("shop", "orders", &json!(7), &json!({"$set": {"status": "paid"}})));
}

/// The statements of a document that are not the shell's: a test has made the first, and makes the second when it is its turn.
struct Statements {
    language: &'static str,
    first: &'static str,
    second: &'static str,
}

/// Types the shell's commands of `docs/five-minutes-NAME.md` in the same way, on a server at this port.
fn typed_beside(name: &str, statements: &Statements, port: u16, second: impl FnOnce() + Send) -> String {
    let (directory, kafka, admin) = (Directory::new(&format!("five-minutes-{name}")), Kafka::start(&[]), port::free());
    let (admin, mut script) = (format!("127.0.0.1:{admin}"), String::from("set -e\n"));
    for block in blocks(&root().join(format!("docs/five-minutes-{name}.md"))) {
        let text = block.text.replace("127.0.0.1:9092", &kafka.bootstrap()).replace("127.0.0.1:9464", &admin);
        match block.kind.as_str() {
            "toml" => writeln!(script, "cat >feedline.toml <<'END'\n{text}END").unwrap(),
            "sh" => script += &text.replace("feedline run", &format!("feedline run --set admin.listen={admin}")),
            // How the server is installed.
            "text" => {}
            kind if kind == statements.language && text.contains(statements.first) => {}
            // The shell waits where this statement stands, and goes on when it has been made.
            kind => {
                assert!(kind == statements.language && text.contains(statements.second), "{text}");
                script += "touch asked; until [ -e answered ]; do sleep 0.1; done\n";
            }
        }
    }
    let (asked, answered) = (directory.0.join("asked"), directory.0.join("answered"));
    let said = std::thread::scope(|scope| {
        scope.spawn(|| {
            port::wait_for("the second statement is asked for", Duration::from_mins(2), || asked.exists().then_some(()));
            second();
            std::fs::write(answered, "").unwrap();
        });
        typed(&directory, &script, &[("FEEDLINE__SOURCE__PORT", &port.to_string())])
    });
    let lines = |part: &str| said.lines().filter(|line| line.contains(part)).count();
    assert_eq!((lines("\"op\":\"read\""), lines("\"op\":\"update\"")), (3, 1), "{said}");
    assert!(said.contains("feedline_lag_seconds{pipeline=\"shop\"} "), "{said}");
    said
}

/// Types a script into a shell that has the program, this repository's examples, and the system's Python, whose packages tests/setup
/// installs. Returns what it printed.
fn typed(directory: &Directory, script: &str, environment: &[(&str, &str)]) -> String {
    let programs = directory.0.join("bin");
    std::fs::create_dir(&programs).unwrap();
    for (name, place) in [("bin/feedline", env!("CARGO_BIN_EXE_feedline")), ("bin/python3", "/usr/bin/python3")] {
        std::os::unix::fs::symlink(place, directory.0.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(root().join("examples"), directory.0.join("examples")).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("timeout");
    shell.args(["--kill-after", "5", "120", "bash", "-c", script]).current_dir(&directory.0).env("PATH", path);
    let output = shell.envs(environment.iter().copied()).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    said.into_owned()
}
