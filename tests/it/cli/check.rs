//! `feedline check`: reports in one run what a start would report.

use super::{Directory, Run, eventually, feedline, output, text};
use feedline::checkpoint::file::FileStore;
use feedline::checkpoint::{Checkpoint, CheckpointStore, ResumeToken};
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// Runs a command with a configuration and these `--set` arguments.
fn with(command: &[&str], configuration: &Path, settings: &[String]) -> Output {
    let over = settings.iter().flat_map(|setting| ["--set", setting]);
    feedline(command).arg("-c").arg(configuration).args(over).output().unwrap()
}

/// The result of `feedline check`.
struct Checked {
    report: Value,
    exit: i32,
}

impl Checked {
    fn new(configuration: &Path, settings: &[String]) -> Self {
        let checked = with(&["check", "--format", "json"], configuration, settings);
        let report = serde_json::from_slice(&checked.stdout).unwrap_or_else(|error| panic!("{error}: {checked:?}"));
        Self { report, exit: checked.status.code().unwrap() }
    }

    /// Part, severity and code of each finding.
    fn findings<'r>(&'r self) -> Vec<(&'r str, &'r str, &'r str)> {
        let findings = self.report["findings"].as_array().unwrap().iter();
        let field = |finding: &'r Value, name: &str| finding[name].as_str().unwrap();
        findings.map(|finding| (field(finding, "part"), field(finding, "severity"), field(finding, "code"))).collect()
    }

    fn says(&self, code: &str, words: &[&str]) -> bool {
        let findings = self.report["findings"].as_array().unwrap().iter();
        let mut of_code = findings.filter(|finding| finding["code"] == code).map(|finding| finding["message"].as_str().unwrap());
        of_code.any(|message| words.iter().all(|word| message.contains(word)))
    }
}

/// Changes the stored checkpoint.
fn alter(path: &Path, change: impl FnOnce(&mut Checkpoint)) {
    let mut checkpoint = FileStore::inspect(path).unwrap().unwrap();
    change(&mut checkpoint);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { FileStore::open(path).unwrap().save(&checkpoint).await }).unwrap();
}

/// What is wrong, the change that causes it, the settings, the reported part and code, the exit status, and words of the message.
type Line<'l> = (&'l str, fn(&mut Checkpoint), &'l [String], (&'l str, &'l str), i32, &'l [&'l str]);

#[test]
fn check_finds_what_a_start_would_refuse_of_a_checkpoint() {
    let directory = Directory::new();
    let path = directory.pipeline();
    let file = directory.0.join("cli.checkpoint");
    let check = |settings: &[String]| Checked::new(&path, settings);
    let first = check(&[]);
    assert_eq!((first.exit, first.findings()), (0, vec![]));
    assert!(first.report["actions"].to_string().contains("make checkpoint"), "{:#}", first.report);
    assert_eq!(first.report["passed"], serde_json::json!(["configuration", "checkpoint", "source", "sink"]));

    let mut run = Run::start(&path, &[]);
    eventually("existing rows", || (directory.lines().len() == 2).then_some(()));
    let beside = check(&[]);
    assert_eq!((beside.exit, beside.findings()), (0, vec![("checkpoint", "warning", "FL4004")]), "a running pipeline is not an error");
    assert!(beside.says("FL4004", &[&format!("process {}", run.child.id())]), "{:#}", beside.report);
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
    let fit = check(&[]);
    assert_eq!((fit.exit, fit.findings()), (0, vec![]));
    assert!(fit.report["actions"].to_string().contains("go on from checkpoint"), "{:#}", fit.report);

    let kept = std::fs::read(&file).unwrap();
    let another = vec![format!("sink.path={}", directory.0.join("other.jsonl").display())];
    let renamed = vec!["name=other".to_owned(), another[0].clone()];
    let lines: [Line; 6] = [
        ("another pipeline's", |_| {}, &renamed, ("checkpoint", "FL4100"), 71, &["\"cli\"", "\"other\""]),
        ("other settings", |known| known.configuration.push('x'), &[], ("checkpoint", "FL4101"), 2, &["--accept-config-change"]),
        (
            "another key",
            |known| known.keys.values_mut().for_each(|key| key.push("v".into())),
            &[],
            ("checkpoint", "FL4101"),
            2,
            &["the key of main.t"],
        ),
        ("another sink", |_| {}, &another, ("sink", "FL3900"), 70, &["other.jsonl", "accept-sink"]),
        (
            "another database",
            |known| drop(known.source.insert("uuid".to_owned(), "7".to_owned())),
            &[],
            ("source", "FL2006"),
            70,
            &["shop.db"],
        ),
        (
            "a log that was rewound",
            |known| {
                let epoch = known.token.as_ref().unwrap().0.rsplit_once(':').unwrap().0.to_owned();
                known.token = Some(ResumeToken(format!("{epoch}:999999").into()));
            },
            &[],
            ("source", "FL2007"),
            70,
            &["shop.db"],
        ),
    ];
    for (what, change, settings, (part, code), exit, words) in lines {
        alter(&file, change);
        let checked = check(settings);
        let expected = (exit, vec![(part, "error", code)]);
        assert_eq!((checked.exit, checked.findings()), expected, "{what}: {:#}", checked.report);
        assert!(checked.says(code, words), "{what}: {:#}", checked.report);
        // A start says the same.
        let started = with(&["run"], &path, settings);
        assert_eq!(started.status.code(), Some(exit), "{what}: {}", text(&started.stderr));
        assert!(text(&started.stderr).contains(code), "{what}: {}", text(&started.stderr));
        std::fs::write(&file, &kept).unwrap();
    }

    std::fs::write(&file, vec![0; kept.len()]).unwrap();
    let torn = check(&[]);
    assert_eq!((torn.exit, torn.findings()), (71, vec![("checkpoint", "error", "FL4002")]));
    std::fs::remove_file(&file).unwrap();
    let lost = check(&[]);
    assert_eq!((lost.exit, lost.findings()), (70, vec![("source", "error", "FL2013")]));
    assert!(lost.says("FL2013", &["detach"]), "{:#}", lost.report);
}

#[test]
fn errors_of_one_part_do_not_hide_those_of_the_others() {
    let directory = Directory::new();
    let free = crate::servers::port::free();
    let nowhere = directory.0.join("nowhere/cli.checkpoint");
    let configuration = |database: &str, tables: &str| {
        directory.pipeline();
        directory.execute("CREATE TABLE a (v); CREATE TABLE b (v)");
        directory.write(&format!(
            "name = \"cli\"\n[source]\nkind = \"sqlite\"\npath = \"{}\"\n[[feeds]]\ntables = [{tables}]\n[sink]\nkind = \"amqp\"\nport = {free}\n\
             tls = \"disable\"\npassword_env = \"PATH\"\n[checkpoint]\npath = \"{}\"\n",
            directory.0.join(database).display(),
            nowhere.display(),
        ))
    };
    let checked = Checked::new(&configuration("none.db", "\"t\""), &[]);
    let of_errors = |checked: &Checked| -> Vec<(String, String)> {
        let errors = checked.findings().into_iter().filter(|(_, severity, _)| *severity == "error");
        errors.map(|(part, _, code)| (part.to_owned(), code.to_owned())).collect()
    };
    let expected = |lines: &[(&str, &str)]| lines.iter().map(|(part, code)| ((*part).to_owned(), (*code).to_owned())).collect::<Vec<_>>();
    assert_eq!(of_errors(&checked), expected(&[("checkpoint", "FL4001"), ("source", "FL2001"), ("sink", "FL3001")]));
    assert_eq!(checked.exit, 71);
    assert_eq!(checked.report["passed"], serde_json::json!(["configuration"]));
    // A start names the missing directory by the same code.
    let started = output(&["run", "-c", directory.0.join("feedline.toml").to_str().unwrap(), "--set", "admin.listen=127.0.0.1:0"]);
    assert!(text(&started.stderr).contains("FL4001") && started.status.code() == Some(71), "{}", text(&started.stderr));

    std::fs::remove_file(directory.0.join("shop.db")).unwrap();
    let checked = Checked::new(&configuration("shop.db", "\"t\", \"missing\", \"a\", \"b\""), &[]);
    assert_eq!(
        of_errors(&checked),
        expected(&[("checkpoint", "FL4001"), ("source", "FL1011"), ("source", "FL2009"), ("source", "FL2009"), ("sink", "FL3001")])
    );
    assert!(!checked.report["actions"].to_string().contains("triggers"), "actions for only some of the feeds are not shown");
}

#[cfg(feature = "kafka")]
#[test]
fn a_checkpoint_in_the_broker_is_judged_as_one_in_a_file_is() {
    use crate::servers::kafka::Kafka;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    let kafka = Kafka::shared();
    let directory = Directory::new();
    directory.pipeline();
    let name = format!("kept{:08x}", fastrand::u32(..));
    let path = directory.write(&format!(
        "name = \"{name}\"\n[source]\nkind = \"sqlite\"\npath = \"{}\"\n[[feeds]]\ntables = [\"t\"]\n[sink]\nkind = \"kafka\"\nbootstrap_servers = \"{}\"\n\
         create_topics = {{ partitions = 1, replication = 1 }}\n[checkpoint]\nkind = \"kafka\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
        directory.0.join("shop.db").display(),
        kafka.bootstrap(),
    ));
    let check = |settings: &[String]| Checked::new(&path, settings);
    let errors = |checked: &Checked| checked.findings().iter().filter(|(_, severity, _)| *severity == "error").count();
    let first = check(&[]);
    assert_eq!((first.exit, errors(&first)), (0, 0), "{:#}", first.report);
    assert!(first.report["actions"].to_string().contains(&format!("make topic {name}.checkpoint")), "{:#}", first.report);

    let mut run = Run::start(&path, &[]);
    let admin = run.admin();
    eventually("readiness", || (super::get(admin, "/readyz").0 == 200).then_some(()));
    // Writers move the log and the checkpoint on while it is judged.
    for _ in 0..3 {
        directory.execute("INSERT INTO t (v) VALUES ('x')");
        let beside = check(&[]);
        assert_eq!((beside.exit, errors(&beside)), (0, 0), "{:#}", beside.report);
    }
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
    let changed = check(&["sink.tombstones=false".to_owned()]);
    assert_eq!((changed.exit, errors(&changed)), (2, 1), "{:#}", changed.report);
    assert!(changed.says("FL4101", &["sink.tombstones", "--accept-config-change"]), "{:#}", changed.report);

    let topic = format!("{name}.checkpoint");
    let producer: BaseProducer = rdkafka::ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    producer.send(BaseRecord::to(&topic).key(&topic).payload("hello")).unwrap();
    producer.flush(super::TIMEOUT).unwrap();
    let foreign = check(&[]);
    assert_eq!((foreign.exit, errors(&foreign)), (71, 1), "{:#}", foreign.report);
    assert!(foreign.says("FL4002", &[&topic, "checkpoint reset"]), "{:#}", foreign.report);
}
