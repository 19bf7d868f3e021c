//! The program as people and orchestrators use it: arguments, output, signals, exit statuses, HTTP.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

mod check;
mod documents;
mod lifecycle;
mod log;
mod outputs;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A temporary directory, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Writes a configuration: a SQLite database with two rows, to a file.
    fn pipeline(&self) -> PathBuf {
        let database = rusqlite::Connection::open(self.0.join("shop.db")).unwrap();
        database
            .execute_batch(
                "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t (v) VALUES ('a'), ('b');",
            )
            .unwrap();
        self.write(&format!(
            "name = \"cli\"\n[source]\nkind = \"sqlite\"\npath = \"{}\"\n[[feeds]]\ntables = [\"t\"]\n[sink]\nkind = \"file\"\npath = \"{}\"\n\
             [checkpoint]\npath = \"{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
            self.0.join("shop.db").display(),
            self.0.join("out.jsonl").display(),
            self.0.join("cli.checkpoint").display(),
        ))
    }

    fn write(&self, text: &str) -> PathBuf {
        let path = self.0.join("feedline.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn execute(&self, sql: &str) {
        rusqlite::Connection::open(self.0.join("shop.db")).unwrap().execute_batch(sql).unwrap();
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.0.join("out.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn feedline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    feedline(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Waits until `ready` returns a value.
#[track_caller]
fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + TIMEOUT;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < until, "{what} did not happen in {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running `feedline run`; killed if the test fails.
struct Run {
    child: Child,
    logs: mpsc::Receiver<serde_json::Value>,
    seen: Vec<serde_json::Value>,
}

impl Run {
    fn start(configuration: &Path, arguments: &[&str]) -> Self {
        let mut command = feedline(&["run", "-c", configuration.to_str().unwrap()]);
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, logs) = mpsc::channel();
        let stderr: ChildStderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("a log line is not JSON: {line}"));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, logs, seen: Vec::new() }
    }

    /// The next log line with this message.
    fn log(&mut self, message: &str) -> serde_json::Value {
        let until = Instant::now() + TIMEOUT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.logs.recv_timeout(left).unwrap_or_else(|_| panic!("no log says {message:?}: {:#?}", self.seen));
            self.seen.push(line.clone());
            if line["message"] == message {
                return line;
            }
        }
    }

    fn admin(&mut self) -> SocketAddr {
        let line = self.log("metrics and health are served");
        line["address"].as_str().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        eventually("the end of the process", || self.child.try_wait().unwrap())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn help_has_examples_and_a_wrong_argument_is_a_configuration_error() {
    let help = output(&["--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("Examples:") && help.stderr.is_empty());
    assert!(text(&output(&["--version"]).stdout).starts_with(&format!("feedline {}", env!("CARGO_PKG_VERSION"))));
    for arguments in [&["rum"][..], &["run", "--sett", "x=y"], &[]] {
        let wrong = output(arguments);
        assert_eq!(wrong.status.code(), Some(2), "{arguments:?}");
        assert!(wrong.stdout.is_empty() && !wrong.stderr.is_empty());
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&output(&["completions", shell]).stdout).contains("feedline"));
    }
}

#[test]
fn every_error_of_a_configuration_is_on_standard_error_with_its_code() {
    let directory = Directory::new();
    let path = directory.write("name = \"x\"\nnam = \"y\"\n[format]\nkind = \"debezium\"\n");
    let wrong = output(&["run", "-c", path.to_str().unwrap()]);
    assert_eq!((wrong.status.code(), wrong.stdout.len()), (Some(2), 0));
    for code in ["FL1002", "FL1004", "FL1006"] {
        assert!(text(&wrong.stderr).contains(code), "{}", text(&wrong.stderr));
    }
    let check = output(&["check", "--offline", "--format", "json", "-c", path.to_str().unwrap()]);
    assert_eq!(check.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["findings"][0]["code"].as_str().unwrap().len(), 6);
}

#[test]
fn a_run_publishes_serves_its_health_and_drains_on_a_signal() {
    let directory = Directory::new();
    let path = directory.pipeline();
    let configuration = path.to_str().unwrap();

    let check = output(&["check", "-c", configuration]);
    assert!(check.status.success(), "{}{}", text(&check.stdout), text(&check.stderr));
    assert!(text(&check.stdout).contains("main.t (id) -> cli.main.t"), "{}", text(&check.stdout));

    let mut run = Run::start(&path, &[]);
    let admin = run.admin();
    eventually("existing rows", || (directory.lines().len() == 2).then_some(()));
    directory.execute("UPDATE t SET v = 'c' WHERE id = 1; DELETE FROM t WHERE id = 2");
    eventually("live events", || (directory.lines().len() == 4).then_some(()));
    eventually("readiness", || (get(admin, "/readyz").0 == 200).then_some(()));
    assert_eq!(get(admin, "/livez"), (200, "{\"status\":\"ok\"}\n".to_owned()));
    assert_eq!(get(admin, "/startupz").0, 200);
    assert_eq!(get(admin, "/nothing").0, 404);
    let version: serde_json::Value = serde_json::from_str(&get(admin, "/version").1).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    // A check beside a run changes nothing.
    assert!(output(&["check", "-c", configuration]).status.success());

    let metrics = eventually("a lag of 0", || {
        let metrics = get(admin, "/metrics").1;
        metrics.contains("feedline_lag_seconds{pipeline=\"cli\"} 0\n").then_some(metrics)
    });
    for line in [
        "feedline_sink_events_total{pipeline=\"cli\"} 4",
        "feedline_prefeed_rows_total{pipeline=\"cli\"} 2",
        "feedline_pipeline_state{state=\"live\",pipeline=\"cli\"} 1",
        "feedline_pipeline_info{delivery=\"at_least_once\",sink_type=\"file\",source_type=\"sqlite\",pipeline=\"cli\"} 1",
        "feedline_pipeline_restarts_total{reason=\"sink_error\",pipeline=\"cli\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.contains("\nprocess_resident_memory_bytes ") && metrics.contains("\nfeedline_build_info{"));

    // Another instance waits until its timeout, and then names the process that holds the checkpoint.
    let second = output(&["run", "-c", configuration, "--set", "pipeline.takeover_timeout=0s"]);
    assert_eq!(second.status.code(), Some(75), "{}", text(&second.stderr));
    assert!(text(&second.stderr).contains("FL4004"));

    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
    run.log("drained and stopped");
    let mut rest = String::new();
    run.child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "standard output has only the result of a command");

    let show = output(&["checkpoint", "show", "-c", configuration]);
    assert!(text(&show.stdout).contains("feed       main.t: live"), "{}{}", text(&show.stdout), text(&show.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output(&["checkpoint", "show", "--json", "-c", configuration]).stdout).unwrap();
    assert_eq!(json["name"], "cli");

    // The next start publishes changes made meanwhile, and repeats nothing.
    directory.execute("INSERT INTO t (v) VALUES ('d')");
    let mut run = Run::start(&path, &[]);
    eventually("the change made meanwhile", || (directory.lines().len() == 5).then_some(()));
    run.signal(Signal::INT);
    assert_eq!(run.wait().code(), Some(0));
    let operations: Vec<_> = directory.lines().iter().map(|event| event["op"].as_str().unwrap().to_owned()).collect();
    assert_eq!(operations, ["read", "read", "update", "delete", "insert"]);
}

/// An outage of the broker that holds the checkpoint must not make an orchestrator kill the process.
#[cfg(feature = "kafka")]
#[test]
fn a_start_waits_for_the_checkpoints_broker_and_fails_only_the_readiness_probe() {
    let directory = Directory::new();
    let pipeline = std::fs::read_to_string(directory.pipeline()).unwrap();
    let (before, after) = (pipeline.split("[sink]").next().unwrap(), pipeline.split("[admin]").nth(1).unwrap());
    let path = directory.write(&format!(
        "{before}[sink]\nkind = \"kafka\"\nbootstrap_servers = \"127.0.0.1:{}\"\n[checkpoint]\nkind = \"kafka\"\n[admin]{after}",
        crate::servers::port::free()
    ));
    let mut run = Run::start(&path, &[]);
    let admin = run.admin();
    let line = run.log("cannot begin yet; trying again");
    assert_eq!((&line["code"], &line["span"]["pipeline"]), (&"FL3001".into(), &"cli".into()));
    assert!(line["delay_ms"].is_u64() && line["times"] == 1, "numbers are numbers: {line}");
    assert_eq!((get(admin, "/startupz").0, get(admin, "/livez").0), (200, 200));
    assert_eq!(get(admin, "/readyz").0, 503);
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
}

#[test]
fn a_rewound_feed_is_read_again_and_a_detached_source_keeps_nothing() {
    let directory = Directory::new();
    let path = directory.pipeline();
    let configuration = path.to_str().unwrap();
    let until = |count: usize| {
        let mut run = Run::start(&path, &[]);
        eventually("events", || (directory.lines().len() == count).then_some(()));
        run.signal(Signal::TERM);
        assert_eq!(run.wait().code(), Some(0));
    };
    assert_eq!(output(&["checkpoint", "show", "-c", configuration]).status.code(), Some(2));
    until(2);
    assert_eq!(output(&["checkpoint", "rewind", "-c", configuration]).status.code(), Some(2), "it does not say what to rewind");
    assert_eq!(output(&["checkpoint", "rewind", "--feed", "main.x", "-c", configuration]).status.code(), Some(2));
    assert!(output(&["checkpoint", "rewind", "--feed", "main.t", "-c", configuration]).status.success());
    // A reset, because rows may have been deleted, and both rows.
    until(5);
    assert!(directory.lines()[2].to_string().contains("reset"));
    for command in [&["checkpoint", "reset"][..], &["detach"]] {
        let mut arguments = command.to_vec();
        arguments.extend(["-c", configuration]);
        assert_eq!(output(&arguments).status.code(), Some(2), "{command:?} needs --yes");
        arguments.push("--yes");
        let done = output(&arguments);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    let created = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_feedline%' ESCAPE '\\'";
    let database = rusqlite::Connection::open(directory.0.join("shop.db")).unwrap();
    assert_eq!(database.query_row(created, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    // Without a checkpoint, all rows are sent again.
    until(7);
}

#[test]
fn an_address_in_use_is_named() {
    let directory = Directory::new();
    let path = directory.pipeline();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("admin.listen={}", taken.local_addr().unwrap());
    let refused = output(&["run", "-c", path.to_str().unwrap(), "--set", &listen]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("FL1014"), "{}", text(&refused.stderr));
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_is_checked_carried_and_detached_by_a_role_that_is_no_superuser() {
    use crate::servers::postgres::Postgres;
    let server = Postgres::shared();
    let directory = Directory::new();
    let (database, user) = (server.create_database("cli"), server.create_user("cli", "it's secret", "REPLICATION"));
    server.psql("postgres", &format!("ALTER DATABASE {database} OWNER TO {user}"));
    server.psql(
        &database,
        &format!(
            "CREATE TABLE orders (id int PRIMARY KEY, v text); ALTER TABLE orders OWNER TO {user}; INSERT INTO orders VALUES (7, 'old')"
        ),
    );
    std::fs::write(directory.0.join("password"), "it's secret\n").unwrap();
    let name = format!("cli_{:08x}", fastrand::u32(..));
    let path = directory.write(&format!(
        "name = \"{name}\"\n[source]\nkind = \"postgres\"\nurl = \"postgres://{user}@localhost:{}/{database}\"\npassword_file = \"{}\"\n\
         ca_file = \"{}\"\n[[feeds]]\ntables = [\"orders\"]\n[sink]\nkind = \"file\"\npath = \"{}\"\n\
         [checkpoint]\npath = \"{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
        server.port(),
        directory.0.join("password").display(),
        server.ca_file().display(),
        directory.0.join("out.jsonl").display(),
        directory.0.join("cli.checkpoint").display(),
    ));
    let configuration = path.to_str().unwrap();
    let check = output(&["check", "-c", configuration]);
    assert!(check.status.success(), "{}{}", text(&check.stdout), text(&check.stderr));
    let slots = || server.psql(&database, &format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'feedline_{name}'"));
    assert_eq!(slots(), "0", "a check creates nothing");
    assert_eq!(server.psql(&database, "SELECT count(*) FROM pg_publication"), "0");
    for expected in [
        "a start will run: CREATE PUBLICATION",
        "create replication slot \"feedline_cli",
        "ACCESS SHARE",
        "warning FL2106",
        "warning FL2108",
    ] {
        assert!(text(&check.stdout).contains(expected), "{expected}: {}", text(&check.stdout));
    }

    let mut run = Run::start(&path, &[]);
    let admin = run.admin();
    eventually("readiness", || (get(admin, "/readyz").0 == 200).then_some(()));
    eventually("the existing row", || (directory.lines().len() == 1).then_some(()));
    server.psql(&database, "INSERT INTO orders VALUES (1, 'a'); UPDATE orders SET v = 'b' WHERE id = 1; DELETE FROM orders WHERE id = 1");
    eventually("live events", || (directory.lines().len() == 4).then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
    let events = directory.lines();
    assert_eq!((&events[0]["op"], &events[0]["after"]["v"]), (&"read".into(), &"old".into()));
    assert_eq!(events[2]["after"]["v"], "b");
    assert_eq!(events[3]["source"]["database"], *database);

    for (token, said) in [("1:FFFF/0", "--yes"), ("sqlite:1:5:6", "FL2005")] {
        let refused = output(&["checkpoint", "rewind", "--token", token, "-c", configuration]);
        assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains(said), "{}", text(&refused.stderr));
    }
    assert!(output(&["checkpoint", "rewind", "--token", "1:0/1", "-c", configuration]).status.success());

    assert_eq!(slots(), "1");
    let detached = output(&["detach", "--yes", "-c", configuration]);
    assert!(detached.status.success(), "{}", text(&detached.stderr));
    assert_eq!(slots(), "0");
    assert!(!format!("{:?}{check:?}{detached:?}", run.seen).contains("it's secret"));
}

/// A pipeline whose broker has disappeared before it confirmed a record.
#[cfg(feature = "kafka")]
fn stuck(directory: &Directory, deadline: &str) -> Run {
    use rdkafka::mocking::MockCluster;
    let path = directory.pipeline();
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("cli.main.t", 1, 1).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let at = text.find("[sink]").unwrap();
    let end = text.find("[checkpoint]").unwrap();
    let sink = format!(
        "[sink]\nkind = \"kafka\"\nbootstrap_servers = {:?}\n[pipeline]\nshutdown_deadline = {deadline:?}\n",
        cluster.bootstrap_servers()
    );
    std::fs::write(&path, format!("{}{sink}{}", &text[..at], &text[end..])).unwrap();
    let mut run = Run::start(&path, &[]);
    let admin = run.admin();
    let confirmed = |count: u32| get(admin, "/metrics").1.contains(&format!("feedline_sink_events_total{{pipeline=\"cli\"}} {count}\n"));
    eventually("existing rows", || confirmed(2).then_some(()));
    drop(cluster);
    directory.execute("INSERT INTO t (v) VALUES ('d')");
    eventually("a record on its way", || {
        get(admin, "/metrics").1.contains("feedline_source_events_total{op=\"insert\",pipeline=\"cli\"} 1\n").then_some(())
    });
    run
}

#[cfg(feature = "kafka")]
#[test]
fn a_stop_with_unconfirmed_records_has_its_own_exit_status() {
    let directory = Directory::new();
    let mut run = stuck(&directory, "1s");
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(3));
}

#[cfg(feature = "kafka")]
#[test]
fn a_second_signal_stops_at_once() {
    let directory = Directory::new();
    let mut run = stuck(&directory, "1h");
    run.signal(Signal::TERM);
    run.log("stopping; a second signal stops at once");
    run.signal(Signal::INT);
    assert_eq!(run.wait().code(), Some(3));
}

#[cfg(feature = "demo")]
#[test]
fn the_demonstration_shows_existing_rows_then_live_changes_and_loses_nothing() {
    let shown = output(&["demo", "--for", "4s", "--rate", "50", "--metrics-listen", "127.0.0.1:0"]);
    let out = text(&shown.stdout);
    assert_eq!(shown.status.code(), Some(0), "{out}{}", text(&shown.stderr));
    assert!(!out.contains('\u{1b}'), "no colours without a terminal");
    assert!(out.lines().all(|line| line.chars().count() <= 100), "{out}");
    let offset = |text: &str| out.find(text).unwrap_or_else(|| panic!("{text:?} is not in\n{out}"));
    assert!(offset("  read  ") < offset("live: the shop is open"));
    assert!(offset("live: the shop is open") < offset("  insert  "));
    assert!(offset(" → ") < offset("nothing lost, nothing twice"));
}
