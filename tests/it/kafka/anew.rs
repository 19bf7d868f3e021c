//! The program, when what it writes to is made anew, is another's, or is taken over.

use crate::crash::feedline::Feedline;
use crate::servers::forwarder::Forwarder;
use crate::servers::kafka::Kafka;
use crate::servers::port::wait_for;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);

/// A pipeline from SQLite to a Kafka, in a directory of its own.
struct Pipeline {
    name: String,
    directory: PathBuf,
    configuration: String,
    feedline: Feedline,
}

impl Pipeline {
    /// The checkpoint is kept in a file, or in `kafka`.
    fn new(servers: &str, checkpoint: &str) -> Self {
        let name = Kafka::unique("anew");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let database = directory.join("shop.db");
        rusqlite::Connection::open(&database)
            .unwrap()
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT);")
            .unwrap();
        let configuration = format!(
            "name = \"{name}\"\n[source]\nkind = \"sqlite\"\npath = \"{0}/shop.db\"\n[[feeds]]\ntables = [\"orders\"]\n[sink]\nkind = \"kafka\"\n\
             bootstrap_servers = \"{servers}\"\ncreate_topics = {{ partitions = 1, replication = 1 }}\n[checkpoint]\nkind = \"{checkpoint}\"\n{1}",
            directory.display(),
            if checkpoint == "file" { format!("path = \"{}/checkpoint\"\n", directory.display()) } else { String::new() },
        );
        let feedline = Feedline::new(&directory, &configuration);
        Self { name, directory, configuration, feedline }
    }

    fn topic(&self) -> String {
        format!("{}.main.orders", self.name)
    }

    fn insert(&self, id: u32) {
        let database = rusqlite::Connection::open(self.directory.join("shop.db")).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database.execute("INSERT INTO orders VALUES (?1, 'a')", [id]).unwrap();
    }

    fn await_confirmed(&mut self, count: u64) {
        wait_for("rows are confirmed", PATIENCE, || {
            self.feedline.assert_runs();
            (count <= self.feedline.confirmed()).then_some(())
        });
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
        command.args(arguments).arg("-c").arg(self.directory.join("feedline.toml")).output().unwrap()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ids(kafka: &Kafka, topic: &str) -> Vec<String> {
    let records = kafka.read_topic(topic).into_iter();
    records.map(|record| String::from_utf8(record.key.unwrap()).unwrap()).collect()
}

/// The topics of a cluster.
fn topics(kafka: &Kafka) -> Vec<String> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

/// While it runs and while it is away; and what the message says helps.
#[test]
fn a_topic_that_is_made_anew_stops_the_pipeline_until_a_person_accepts_it() {
    let kafka = Kafka::shared();
    let mut pipeline = Pipeline::new(&kafka.bootstrap(), "file");
    pipeline.feedline.start();
    pipeline.feedline.wait_until_live();
    pipeline.insert(1);
    pipeline.await_confirmed(1);
    let topic = pipeline.topic();
    kafka.delete_topics(&[&topic]);
    kafka.create_topic(&topic, 1, &[]);
    // Nothing is sent meanwhile.
    let (status, log) = pipeline.feedline.wait_for_end();
    assert!(status == Some(70) && log.contains("FL3901") && log.contains(&topic), "{status:?} {log}");
    let checked = pipeline.command(&["check"]);
    assert!(!checked.status.success() && said(&checked).contains("FL3901"), "{}", said(&checked));
    pipeline.feedline.start();
    assert_eq!(pipeline.feedline.wait_for_end().0, Some(70), "it does not pass");
    let accepted = pipeline.command(&["checkpoint", "accept-sink"]);
    assert!(accepted.status.success(), "{}", said(&accepted));
    pipeline.insert(1_000_000);
    pipeline.feedline.start();
    wait_for("it goes on", PATIENCE, || {
        pipeline.feedline.assert_runs();
        ids(kafka, &topic).contains(&"{\"id\":1000000}".to_owned()).then_some(())
    });
    pipeline.feedline.stop();
    // Deleted while it was away: it does not make an empty one and go on as if nothing was missing.
    kafka.delete_topics(&[&topic]);
    let checked = pipeline.command(&["check"]);
    assert!(!checked.status.success() && said(&checked).contains("FL3901") && said(&checked).contains(&topic), "{}", said(&checked));
    pipeline.feedline.start();
    let (status, log) = pipeline.feedline.wait_for_end();
    assert!(status == Some(70) && log.contains("FL3901") && log.contains(&topic), "{status:?} {log}");
    assert!(!topics(kafka).contains(&topic), "it is made");
    let accepted = pipeline.command(&["checkpoint", "accept-sink"]);
    assert!(accepted.status.success(), "{}", said(&accepted));
    pipeline.insert(2_000_000);
    pipeline.feedline.start();
    pipeline.await_confirmed(1);
    pipeline.feedline.stop();
    assert_eq!(ids(kafka, &topic), ["{\"id\":2000000}"]);
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// All rows go to the cluster that is known, whoever stands behind its address meanwhile.
#[test]
fn another_cluster_behind_the_address_ends_the_run_and_back_at_the_first_nothing_is_missing() {
    let forwarder = Forwarder::start();
    let (ours, stranger) = (Kafka::start_behind(forwarder.port()), Kafka::start_behind(forwarder.port()));
    forwarder.lead_to(ours.outside_port());
    let mut pipeline = Pipeline::new(&format!("127.0.0.1:{}", forwarder.port()), "kafka");
    let topic = pipeline.topic();
    stranger.create_topic(&topic, 1, &[]);
    pipeline.feedline.start();
    pipeline.feedline.wait_until_live();
    pipeline.insert(1);
    pipeline.await_confirmed(1);
    forwarder.lead_to(stranger.outside_port());
    (2..50).for_each(|id| pipeline.insert(id));
    let (status, log) = pipeline.feedline.wait_for_end();
    assert!(status == Some(70) && log.contains("FL3900") && log.contains(stranger.cluster_id()), "{status:?} {log}");
    forwarder.lead_to(ours.outside_port());
    pipeline.feedline.start();
    pipeline.await_confirmed(48);
    pipeline.feedline.stop();
    let found = ids(&ours, &topic);
    let missing: Vec<u32> = (1..50).filter(|id| !found.contains(&format!("{{\"id\":{id}}}"))).collect();
    assert!(missing.is_empty(), "{missing:?} are missing");
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// It is seen without an event, and nothing is made there: neither by the run, nor by a start, nor by a look.
#[test]
fn at_another_cluster_nothing_is_made_and_an_idle_pipeline_stops() {
    let forwarder = Forwarder::start();
    let (ours, stranger) = (Kafka::start_behind(forwarder.port()), Kafka::start_behind(forwarder.port()));
    forwarder.lead_to(ours.outside_port());
    let mut pipeline = Pipeline::new(&format!("127.0.0.1:{}", forwarder.port()), "file");
    pipeline.feedline.start();
    pipeline.feedline.wait_until_live();
    pipeline.insert(1);
    pipeline.await_confirmed(1);
    forwarder.lead_to(stranger.outside_port());
    let is_foreign = |(status, log): (Option<i32>, String)| {
        assert!(status == Some(70) && log.contains("FL3900") && log.contains(stranger.cluster_id()), "{status:?} {log}");
    };
    is_foreign(pipeline.feedline.wait_for_end());
    let checked = pipeline.command(&["check"]);
    assert!(!checked.status.success() && said(&checked).contains("FL3900"), "{}", said(&checked));
    pipeline.feedline.start();
    is_foreign(pipeline.feedline.wait_for_end());
    let made = topics(&stranger);
    assert!(made.iter().all(|topic| topic.starts_with("__")), "{made:?}");
    forwarder.lead_to(ours.outside_port());
    pipeline.insert(2);
    pipeline.feedline.start();
    pipeline.await_confirmed(1);
    pipeline.feedline.stop();
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// A pipeline whose first event is confirmed, and what stands between it and its broker.
fn live_behind_a_forwarder() -> (Forwarder, Kafka, Pipeline) {
    let forwarder = Forwarder::start();
    let kafka = Kafka::start_behind(forwarder.port());
    forwarder.lead_to(kafka.outside_port());
    let mut pipeline = Pipeline::new(&format!("127.0.0.1:{}", forwarder.port()), "file");
    pipeline.feedline.start();
    pipeline.feedline.wait_until_live();
    pipeline.insert(1);
    pipeline.await_confirmed(1);
    (forwarder, kafka, pipeline)
}

/// Brokers that are away are said to be, though no event waits for them.
#[test]
fn an_idle_pipeline_says_that_its_brokers_are_away() {
    let (forwarder, kafka, mut pipeline) = live_behind_a_forwarder();
    // Nobody listens there.
    forwarder.lead_to(0);
    let probe = pipeline.feedline.probe();
    wait_for("it says so", PATIENCE, || probe.get("/readyz").ok().filter(|said| said.contains("the sink is not connected: ")));
    forwarder.lead_to(kafka.outside_port());
    wait_for("it is there again", PATIENCE, || probe.get("/readyz").ok().filter(|said| said.starts_with("HTTP/1.1 200")));
    pipeline.insert(2);
    pipeline.await_confirmed(2);
    pipeline.feedline.stop();
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// With events on their way too: at once by readiness, and after a minute as an outage, which is one restart.
#[test]
fn brokers_that_are_away_while_events_wait_are_an_outage() {
    let (forwarder, kafka, mut pipeline) = live_behind_a_forwarder();
    forwarder.lead_to(0);
    pipeline.insert(2);
    let probe = pipeline.feedline.probe();
    wait_for("readiness says so", PATIENCE, || {
        probe.get("/readyz").ok().filter(|said| said.starts_with("HTTP/1.1 503") && said.contains("confirmed none"))
    });
    wait_for("it is an outage", PATIENCE * 4, || (pipeline.feedline.value("feedline_sink_connected{") == Some(0.0)).then_some(()));
    let attempts = "feedline_pipeline_attempts_total{reason=\"sink_error\"";
    wait_for("it is tried again", PATIENCE, || pipeline.feedline.value(attempts).filter(|attempts| 2.0 <= *attempts));
    assert_eq!(pipeline.feedline.restarts("sink_error"), 1);
    assert!(pipeline.feedline.lag_seconds().is_some_and(|lag| 30.0 < lag));
    forwarder.lead_to(kafka.outside_port());
    pipeline.await_confirmed(2);
    wait_for("it is ready", PATIENCE, || probe.get("/readyz").ok().filter(|said| said.starts_with("HTTP/1.1 200")));
    pipeline.feedline.stop();
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// An instance that was paused while another went on stops by itself, and says why.
#[test]
fn who_was_succeeded_in_a_topic_stops_when_it_is_back() {
    let kafka = Kafka::shared();
    let mut pipeline = Pipeline::new(&kafka.bootstrap(), "kafka");
    pipeline.feedline.start();
    pipeline.feedline.wait_until_live();
    pipeline.insert(1);
    pipeline.await_confirmed(1);
    let pid = rustix::process::Pid::from_raw(i32::try_from(pipeline.feedline.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let elsewhere = pipeline.directory.join("second");
    std::fs::create_dir_all(&elsewhere).unwrap();
    let mut second = Feedline::new(&elsewhere, &pipeline.configuration);
    second.start();
    second.wait_until_live();
    pipeline.insert(2);
    wait_for("the second goes on", PATIENCE, || (1 <= second.confirmed()).then_some(()));
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    pipeline.insert(3);
    let (status, log) = pipeline.feedline.wait_for_end();
    assert!(status == Some(75) && log.contains("FL4007"), "{status:?} {log}");
    pipeline.insert(4);
    wait_for("the second goes on", PATIENCE, || (3 <= second.confirmed()).then_some(()));
    second.stop();
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// Records carry their commit time, from which their topic's retention counts: a backlog that nears it is told, once it is sent.
#[test]
fn a_backlog_that_nears_its_topics_retention_is_told() {
    let kafka = Kafka::shared();
    for (retention, is_told) in [("1", true), ("-1", false)] {
        let mut pipeline = Pipeline::new(&kafka.bootstrap(), "file");
        kafka.create_topic(&pipeline.topic(), 1, &[("retention.ms", retention)]);
        pipeline.feedline.start();
        pipeline.feedline.wait_until_live();
        pipeline.feedline.stop();
        pipeline.insert(1);
        pipeline.feedline.start();
        pipeline.await_confirmed(1);
        pipeline.feedline.stop();
        let log = std::fs::read_to_string(pipeline.directory.join("log")).unwrap();
        let told = log.contains("FL3012") && log.contains(&pipeline.topic()) && log.contains("older than half of the time");
        assert_eq!(told, is_told, "{log}");
        std::fs::remove_dir_all(&pipeline.directory).unwrap();
    }
}
