//! What an operator does to a stopped pipeline: change or delete its checkpoint, detach its source.

use super::documents::sql_under;
use super::{Directory, Run, eventually, get, output, text};
use rustix::process::Signal;
use std::path::Path;
use std::process::Output;

/// Runs the pipeline until its output has this number of lines.
fn run_until(directory: &Directory, configuration: &Path, lines: usize) {
    let mut run = Run::start(configuration, &[]);
    eventually("events", || (directory.lines().len() == lines).then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
}

/// Runs a command.
fn command(configuration: &Path, arguments: &[&str]) -> Output {
    output(&[arguments, &["-c", configuration.to_str().unwrap()]].concat())
}

/// Runs a command that ends with this exit status; returns its standard error.
fn refused(configuration: &Path, arguments: &[&str], status: i32) -> String {
    let done = command(configuration, arguments);
    assert_eq!(done.status.code(), Some(status), "{arguments:?}: {}", text(&done.stderr));
    text(&done.stderr).to_owned()
}

/// Runs a command that succeeds; returns its standard error.
fn done(configuration: &Path, arguments: &[&str]) -> String {
    refused(configuration, arguments, 0)
}

/// The token in the checkpoint, split into its fixed part and the number of the next change.
fn token(configuration: &Path) -> (String, i64) {
    let shown = command(configuration, &["checkpoint", "show", "--json"]);
    let checkpoint: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let (log, next) = checkpoint["token"].as_str().unwrap().rsplit_once(':').unwrap();
    (log.to_owned(), next.parse().unwrap())
}

#[test]
fn a_token_moves_forward_only_with_yes() {
    let directory = Directory::new();
    let path = directory.pipeline();
    run_until(&directory, &path, 2);
    directory.execute("INSERT INTO t (v) VALUES ('c'), ('d')");
    let (log, next) = token(&path);
    let later = format!("{log}:{}", next + 2);

    let said = refused(&path, &["checkpoint", "rewind", "--token", &later], 2);
    assert!(said.contains("never be published") && said.contains("--yes"), "{said}");
    for garbage in ["garbage", "sqlite:1:7:1", "1:0/16B3748"] {
        let said = refused(&path, &["checkpoint", "rewind", "--token", garbage], 2);
        assert!(said.contains("FL2005") && said.contains("checkpoint show"), "{said}");
    }
    assert_eq!(token(&path), (log.clone(), next), "a refused command changes nothing");
    run_until(&directory, &path, 4);

    let said = done(&path, &["checkpoint", "rewind", "--token", &format!("{log}:{}", next + 1)]);
    assert!(said.contains(&later), "{said}");
    run_until(&directory, &path, 5);
    assert_eq!(directory.lines()[4]["after"]["v"], "d");

    directory.execute("INSERT INTO t (v) VALUES ('e'), ('f')");
    let said = done(&path, &["checkpoint", "rewind", "--yes", "--token", &format!("{log}:{}", next + 3)]);
    assert!(said.contains("skipped") && said.contains(&later), "{said}");
    run_until(&directory, &path, 6);
    assert_eq!(directory.lines()[5]["after"]["v"], "f");
}

#[test]
fn changes_of_a_checkpoint_are_logged() {
    let directory = Directory::new();
    let path = directory.pipeline();
    run_until(&directory, &path, 2);
    let logged = |arguments: &[&str]| -> serde_json::Value {
        let said = done(&path, arguments);
        let event: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!((&event["level"], &event["pipeline"]), (&"WARN".into(), &"cli".into()), "{said}");
        event
    };
    assert_eq!(logged(&["checkpoint", "rewind", "--feed", "main.t"])["feed"], "main.t");
    let (log, next) = token(&path);
    let (here, later) = (format!("{log}:{next}"), format!("{log}:{}", next + 1));
    let skipped = logged(&["checkpoint", "rewind", "--yes", "--token", &later]);
    assert_eq!((&skipped["from"], &skipped["to"]), (&here.as_str().into(), &later.as_str().into()));
    assert!(skipped["message"].as_str().unwrap().contains("skipped"), "{skipped}");
    let rewound = logged(&["checkpoint", "rewind", "--token", &here]);
    assert_eq!((&rewound["from"], &rewound["to"]), (&later.as_str().into(), &here.as_str().into()));
    assert!(logged(&["checkpoint", "accept-sink"])["sink"].to_string().contains("out.jsonl"));
    let copy = directory.0.join("checkpoint.json");
    std::fs::write(&copy, command(&path, &["checkpoint", "show", "--json"]).stdout).unwrap();
    let copied = std::fs::read_to_string(&copy).unwrap();
    let reset = logged(&["checkpoint", "reset", "--yes"]);
    assert!(reset["message"].as_str().unwrap().contains("every row again, and readers must begin with empty tables"), "{reset}");
    std::fs::write(&copy, copied.replacen(&here, "garbage", 1)).unwrap();
    assert!(refused(&path, &["checkpoint", "restore", copy.to_str().unwrap()], 2).contains("FL2005"));
    std::fs::write(&copy, copied).unwrap();
    assert_eq!(logged(&["checkpoint", "restore", copy.to_str().unwrap()])["token"], here);
}

#[test]
fn a_table_that_comes_back_to_the_feeds_begins_with_a_reset() {
    let directory = Directory::new();
    let path = directory.pipeline();
    directory.execute("CREATE TABLE other (id INTEGER PRIMARY KEY, v)");
    run_until(&directory, &path, 2);
    let configured = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, configured.replace("tables = [\"t\"]", "tables = [\"other\"]")).unwrap();
    directory.execute("INSERT INTO other (v) VALUES ('x')");
    run_until(&directory, &path, 3);
    directory.execute("DELETE FROM t WHERE v = 'a'");
    std::fs::write(&path, configured).unwrap();
    let check = command(&path, &["check"]);
    assert!(text(&check.stdout).contains("read table main.t again after a reset: it was published before"), "{}", text(&check.stdout));
    run_until(&directory, &path, 5);
    let lines: Vec<_> = directory.lines().iter().map(|line| format!("{} {} {}", line["op"], line["table"], line["key"])).collect();
    assert_eq!(
        lines[2..],
        [r#""read" "other" {"id":1}"#, r#""reset" "t" null"#, r#""read" "t" {"id":2}"#],
        "readers learn that a row was deleted"
    );
    // A rewind by the operator keeps the reset.
    done(&path, &["checkpoint", "rewind", "--feed", "main.t"]);
    run_until(&directory, &path, 7);
    assert_eq!(directory.lines()[5]["op"], "reset");
}

#[test]
fn feeds_are_rewound_by_name_by_pattern_and_all() {
    let directory = Directory::new();
    let path = directory.pipeline();
    directory.execute("CREATE TABLE \"order.old\" (id INTEGER PRIMARY KEY); CREATE TABLE order_new (id INTEGER PRIMARY KEY)");
    let configured = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, configured.replace("tables = [\"t\"]", "tables = [\"t\", \"order*\"]")).unwrap();
    run_until(&directory, &path, 2);
    let rewound = |arguments: &[&str]| -> Vec<String> {
        let said = done(&path, &[&["checkpoint", "rewind"], arguments].concat());
        let feed = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["feed"].as_str().unwrap().to_owned();
        said.lines().map(feed).collect()
    };
    let all = ["main.\"order.old\"", "main.order_new", "main.t"];
    assert_eq!(rewound(&["--feed", "main.t"]), all[2..]);
    assert_eq!(rewound(&["--feed", "order*"]), all[..2]);
    assert_eq!(rewound(&["--feed", "main.\"order.old\"", "--feed", "*.t"]), [all[0], all[2]]);
    assert_eq!(rewound(&["--all"]), all);
    assert!(
        refused(&path, &["checkpoint", "rewind", "--feed", "nothing_*"], 2).contains("it has main.\"order.old\", main.order_new, main.t")
    );
    assert!(refused(&path, &["checkpoint", "rewind", "--feed", "a.b.c"], 2).contains("a third name"));
    // A reset for each table, and the rows.
    run_until(&directory, &path, 2 + 3 + 2);
    assert_eq!(directory.lines().iter().filter(|line| line["op"] == "reset").count(), 3);
}

#[test]
fn a_running_pipeline_keeps_its_triggers() {
    let directory = Directory::new();
    let path = directory.pipeline();
    let mut run = Run::start(&path, &[]);
    eventually("existing rows", || (directory.lines().len() == 2).then_some(()));
    assert!(refused(&path, &["detach", "--yes"], 75).contains("FL4004"));
    directory.execute("INSERT INTO t (v) VALUES ('c')");
    eventually("the change after it", || (directory.lines().len() == 3).then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
    done(&path, &["detach", "--yes"]);
    // A missing directory does not prevent a detach.
    done(&path, &["detach", "--yes", "--set", "checkpoint.path=/nowhere/cli.checkpoint"]);
}

#[test]
fn after_a_detach_the_remedy_is_named_and_works() {
    let directory = Directory::new();
    let path = directory.pipeline();
    run_until(&directory, &path, 2);
    done(&path, &["detach", "--yes"]);
    let said = refused(&path, &["run"], 70);
    assert!(said.contains("FL2006") && said.contains("after a detach") && said.contains("checkpoint reset --yes"), "{said}");
    done(&path, &["checkpoint", "reset", "--yes"]);
    run_until(&directory, &path, 4);
}

/// The steps of `docs/sqlite.md`: SQLite does not drop a column that a trigger names.
#[test]
fn a_column_is_dropped_between_two_runs_and_readers_are_told() {
    let directory = Directory::new();
    let path = directory.pipeline();
    directory.execute("ALTER TABLE t ADD COLUMN w");
    run_until(&directory, &path, 2);
    let database = rusqlite::Connection::open(directory.0.join("shop.db")).unwrap();
    assert!(database.execute_batch("ALTER TABLE t DROP COLUMN w").is_err());
    let sql = sql_under("docs/sqlite.md", "Dropping a column").replace("orders", "t").replace("notes", "w");
    let (list, alter) = sql.split_once(";\n").unwrap();
    let drops: Vec<String> = database.prepare(list).unwrap().query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(drops.len(), 5, "{drops:?}");
    database.execute_batch(&drops.concat()).unwrap();
    database.execute_batch(alter).unwrap();
    database.execute_batch("DELETE FROM t WHERE v = 'a'").unwrap();
    assert!(refused(&path, &["run"], 70).contains("FL2008"));
    let mut run = Run::start(&path, &["--set", "source.on_gap=prefeed"]);
    eventually("a reset and the remaining row", || (directory.lines().len() == 4).then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
    let lines = directory.lines();
    assert_eq!((&lines[2]["op"], &lines[3]["after"]), (&"reset".into(), &serde_json::json!({"id": 2, "v": "b"})));
}

#[test]
fn an_output_that_cannot_be_created_is_found_before_anything_is_created() {
    let directory = Directory::new();
    let path = directory.pipeline();
    let sink = format!("sink.path={}", directory.0.join("nodir/out.jsonl").display());
    let check = command(&path, &["check", "--set", &sink]);
    assert_eq!(check.status.code(), Some(71), "{}", text(&check.stdout));
    assert!(text(&check.stdout).contains("FL3102"), "{}", text(&check.stdout));
    assert!(refused(&path, &["run", "--set", &sink], 71).contains("FL3102"));
    // Neither checkpoint nor triggers were created: with a correct path, it is a first start.
    assert!(refused(&path, &["checkpoint", "show"], 2).contains("no checkpoint"));
    run_until(&directory, &path, 2);
}

/// Another database at the same path has a change log of the same name.
#[cfg(feature = "kafka")]
#[test]
fn another_pipelines_source_is_not_detached_when_the_checkpoint_is_in_the_broker() {
    let directory = Directory::new();
    let path = directory.pipeline();
    let name = format!("detached{:08x}", fastrand::u32(..));
    let configured = std::fs::read_to_string(&path).unwrap().replace("\"cli\"", &format!("{name:?}"));
    let (source, rest) = configured.split_at(configured.find("[sink]").unwrap());
    let admin = &rest[rest.find("[admin]").unwrap()..];
    let kafka = |servers: &str| {
        format!(
            "{source}[sink]\nkind = \"kafka\"\nbootstrap_servers = {servers:?}\ncreate_topics = {{ partitions = 1, replication = 1 }}\n\
             [checkpoint]\nkind = \"kafka\"\n{admin}"
        )
    };
    let triggers = || -> i64 {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'";
        rusqlite::Connection::open(directory.0.join("shop.db")).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let run = || {
        let mut run = Run::start(&path, &[]);
        let admin = run.admin();
        let ready = || (get(admin, "/readyz").0 == 200 && triggers() == 5).then_some(());
        eventually("a pipeline that follows its source", ready);
        run.signal(Signal::TERM);
        assert_eq!(run.wait().code(), Some(0));
    };
    let broker = kafka(&crate::servers::kafka::Kafka::shared().bootstrap());
    // The other database, used with a checkpoint in a file.
    std::fs::write(&path, &configured).unwrap();
    run_until(&directory, &path, 2);
    let other = directory.0.join("other.db");
    std::fs::rename(directory.0.join("shop.db"), &other).unwrap();
    directory.pipeline();
    std::fs::write(&path, &broker).unwrap();
    run();
    let ours = directory.0.join("ours.db");
    std::fs::rename(directory.0.join("shop.db"), &ours).unwrap();
    std::fs::rename(&other, directory.0.join("shop.db")).unwrap();
    let before = triggers();
    assert!(refused(&path, &["detach", "--yes"], 70).contains("FL2006"));
    assert_eq!(triggers(), before);

    // Without the broker the source cannot be identified: this must be allowed explicitly.
    std::fs::rename(&ours, directory.0.join("shop.db")).unwrap();
    std::fs::write(&path, kafka(&format!("127.0.0.1:{}", crate::servers::port::free()))).unwrap();
    let said = command(&path, &["detach", "--yes"]);
    assert!(text(&said.stderr).contains("--without-checkpoint") && triggers() == 5, "{}", text(&said.stderr));
    done(&path, &["detach", "--yes", "--without-checkpoint"]);
    assert_eq!(triggers(), 0);
}
