//! The program, when a topic was created again, another cluster answers, brokers are away, or another instance takes over.

use crate::crash::feedline::Feedline;
use crate::servers::forwarder::Forwarder;
use crate::servers::kafka::Kafka;
use crate::servers::port::wait_for;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_mins(1);

/// A pipeline from SQLite to Kafka, in a directory of its own.
struct Pipeline {
    name: String,
    directory: PathBuf,
    configuration: String,
    feedline: Feedline,
}

impl Pipeline {
    /// The checkpoint is kept in a file, or in `kafka`.
    fn new(servers: &str, checkpoint: &str) -> Self {
        let name = Kafka::unique("recreated");
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
        database.busy_timeout(TIMEOUT).unwrap();
        database.execute("INSERT INTO orders VALUES (?1, 'a')", [id]).unwrap();
    }

    fn await_confirmed(&mut self, count: u64) {
        wait_for("rows are confirmed", TIMEOUT, || {
            self.feedline.assert_runs();
            (count <= self.feedline.confirmed()).then_some(())
        });
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
        command.args(arguments).arg("-c").arg(self.directory.join("feedline.toml")).output().unwrap()
    }
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ids(kafka: &Kafka, topic: &str) -> Vec<String> {
    let records = kafka.read_topic(topic).into_iter();
    records.map(|record| String::from_utf8(record.key.unwrap()).unwrap()).collect()
}

/// The topics of a cluster.
fn topics(kafka: &Kafka) -> Vec<String> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    let metadata = consumer.fetch_metadata(None, TIMEOUT).unwrap();
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

/// While the pipeline runs, and while it is stopped. The remedy in the message works.
#[test]
fn a_topic_that_is_created_again_stops_the_pipeline_until_it_is_accepted() {
    let kafka = Kafka::shared();
    let mut pipeline = Pipeline::new(&kafka.bootstrap(), "file");
    pipeline.feedline.start();
    pipeline.feedline.wait_until_live();
    pipeline.insert(1);
    pipeline.await_confirmed(1);
    let topic = pipeline.topic();
    kafka.delete_topics(&[&topic]);
    kafka.create_topic(&topic, 1, &[]);
    // No event is sent meanwhile.
    let (status, log) = pipeline.feedline.wait_for_end();
    assert!(status == Some(70) && log.contains("FL3901") && log.contains(&topic), "{status:?} {log}");
    let checked = pipeline.command(&["check"]);
    assert!(!checked.status.success() && text_of(&checked).contains("FL3901"), "{}", text_of(&checked));
    pipeline.feedline.start();
    assert_eq!(pipeline.feedline.wait_for_end().0, Some(70), "the error is not transient");
    let accepted = pipeline.command(&["checkpoint", "accept-sink"]);
    assert!(accepted.status.success(), "{}", text_of(&accepted));
    pipeline.insert(1_000_000);
    pipeline.feedline.start();
    wait_for("the pipeline goes on", TIMEOUT, || {
        pipeline.feedline.assert_runs();
        ids(kafka, &topic).contains(&"{\"id\":1000000}".to_owned()).then_some(())
    });
    pipeline.feedline.stop();
    // Deleted while the pipeline was stopped: it does not create an empty topic and go on as if no event was missing.
    kafka.delete_topics(&[&topic]);
    let checked = pipeline.command(&["check"]);
    assert!(
        !checked.status.success() && text_of(&checked).contains("FL3901") && text_of(&checked).contains(&topic),
        "{}",
        text_of(&checked)
    );
    pipeline.feedline.start();
    let (status, log) = pipeline.feedline.wait_for_end();
    assert!(status == Some(70) && log.contains("FL3901") && log.contains(&topic), "{status:?} {log}");
    assert!(!topics(kafka).contains(&topic), "the topic is created");
    let accepted = pipeline.command(&["checkpoint", "accept-sink"]);
    assert!(accepted.status.success(), "{}", text_of(&accepted));
    pipeline.insert(2_000_000);
    pipeline.feedline.start();
    pipeline.await_confirmed(1);
    pipeline.feedline.stop();
    assert_eq!(ids(kafka, &topic), ["{\"id\":2000000}"]);
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// All rows go to the known cluster, whatever answers at its address meanwhile.
#[test]
fn another_cluster_at_the_address_ends_the_run_and_no_row_is_missing_when_the_first_is_back() {
    let forwarder = Forwarder::start();
    let (ours, other) = (Kafka::start_behind(forwarder.port()), Kafka::start_behind(forwarder.port()));
    forwarder.lead_to(ours.outside_port());
    let mut pipeline = Pipeline::new(&format!("127.0.0.1:{}", forwarder.port()), "kafka");
    let topic = pipeline.topic();
    other.create_topic(&topic, 1, &[]);
    pipeline.feedline.start();
    pipeline.feedline.wait_until_live();
    pipeline.insert(1);
    pipeline.await_confirmed(1);
    forwarder.lead_to(other.outside_port());
    (2..50).for_each(|id| pipeline.insert(id));
    let (status, log) = pipeline.feedline.wait_for_end();
    assert!(status == Some(70) && log.contains("FL3900") && log.contains(other.cluster_id()), "{status:?} {log}");
    forwarder.lead_to(ours.outside_port());
    pipeline.feedline.start();
    pipeline.await_confirmed(48);
    pipeline.feedline.stop();
    let found = ids(&ours, &topic);
    let missing: Vec<u32> = (1..50).filter(|id| !found.contains(&format!("{{\"id\":{id}}}"))).collect();
    assert!(missing.is_empty(), "{missing:?} are missing");
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// It is noticed without an event. Neither the run, nor a start, nor `check` creates topics there.
#[test]
fn an_idle_pipeline_stops_at_another_cluster_and_creates_no_topic_there() {
    let forwarder = Forwarder::start();
    let (ours, other) = (Kafka::start_behind(forwarder.port()), Kafka::start_behind(forwarder.port()));
    forwarder.lead_to(ours.outside_port());
    let mut pipeline = Pipeline::new(&format!("127.0.0.1:{}", forwarder.port()), "file");
    pipeline.feedline.start();
    pipeline.feedline.wait_until_live();
    pipeline.insert(1);
    pipeline.await_confirmed(1);
    forwarder.lead_to(other.outside_port());
    let is_foreign = |(status, log): (Option<i32>, String)| {
        assert!(status == Some(70) && log.contains("FL3900") && log.contains(other.cluster_id()), "{status:?} {log}");
    };
    is_foreign(pipeline.feedline.wait_for_end());
    let checked = pipeline.command(&["check"]);
    assert!(!checked.status.success() && text_of(&checked).contains("FL3900"), "{}", text_of(&checked));
    pipeline.feedline.start();
    is_foreign(pipeline.feedline.wait_for_end());
    let topics = topics(&other);
    assert!(topics.iter().all(|topic| topic.starts_with("__")), "{topics:?}");
    forwarder.lead_to(ours.outside_port());
    pipeline.insert(2);
    pipeline.feedline.start();
    pipeline.await_confirmed(1);
    pipeline.feedline.stop();
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// A pipeline whose first event is confirmed, and the forwarder between it and its broker.
fn live_behind_forwarder() -> (Forwarder, Kafka, Pipeline) {
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

/// Although no event waits.
#[test]
fn an_idle_pipeline_reports_that_its_brokers_are_away() {
    let (forwarder, kafka, mut pipeline) = live_behind_forwarder();
    // No server listens on port 0.
    forwarder.lead_to(0);
    let probe = pipeline.feedline.probe();
    wait_for("readiness reports it", TIMEOUT, || probe.get("/readyz").ok().filter(|answer| answer.contains("the sink is not connected: ")));
    forwarder.lead_to(kafka.outside_port());
    wait_for("readiness recovers", TIMEOUT, || probe.get("/readyz").ok().filter(|answer| answer.starts_with("HTTP/1.1 200")));
    pipeline.insert(2);
    pipeline.await_confirmed(2);
    pipeline.feedline.stop();
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// Readiness reports it at once. After a minute it is an outage, which is one restart.
#[test]
fn brokers_that_are_away_while_events_wait_are_an_outage() {
    let (forwarder, kafka, mut pipeline) = live_behind_forwarder();
    forwarder.lead_to(0);
    pipeline.insert(2);
    let probe = pipeline.feedline.probe();
    wait_for("readiness reports it", TIMEOUT, || {
        probe.get("/readyz").ok().filter(|answer| answer.starts_with("HTTP/1.1 503") && answer.contains("confirmed none"))
    });
    wait_for("the outage is reported", TIMEOUT * 4, || (pipeline.feedline.value("feedline_sink_connected{") == Some(0.0)).then_some(()));
    let attempts = "feedline_pipeline_attempts_total{reason=\"sink_error\"";
    wait_for("the sink is tried again", TIMEOUT, || pipeline.feedline.value(attempts).filter(|attempts| 2.0 <= *attempts));
    assert_eq!(pipeline.feedline.restarts("sink_error"), 1);
    assert!(pipeline.feedline.lag_seconds().is_some_and(|lag| 30.0 < lag));
    forwarder.lead_to(kafka.outside_port());
    pipeline.await_confirmed(2);
    wait_for("the pipeline is ready", TIMEOUT, || probe.get("/readyz").ok().filter(|answer| answer.starts_with("HTTP/1.1 200")));
    pipeline.feedline.stop();
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// An instance was paused while another one took over.
#[test]
fn an_instance_that_was_taken_over_stops_when_it_is_resumed() {
    let kafka = Kafka::shared();
    let mut pipeline = Pipeline::new(&kafka.bootstrap(), "kafka");
    pipeline.feedline.start();
    pipeline.feedline.wait_until_live();
    pipeline.insert(1);
    pipeline.await_confirmed(1);
    pipeline.feedline.pause();
    let second_directory = pipeline.directory.join("second");
    std::fs::create_dir_all(&second_directory).unwrap();
    let mut second = Feedline::new(&second_directory, &pipeline.configuration);
    second.start();
    second.wait_until_live();
    pipeline.insert(2);
    wait_for("the second instance goes on", TIMEOUT, || (1 <= second.confirmed()).then_some(()));
    pipeline.feedline.resume();
    pipeline.insert(3);
    let (status, log) = pipeline.feedline.wait_for_end();
    assert!(status == Some(75) && log.contains("FL4007"), "{status:?} {log}");
    pipeline.insert(4);
    wait_for("the second instance goes on", TIMEOUT, || (3 <= second.confirmed()).then_some(()));
    second.stop();
    std::fs::remove_dir_all(&pipeline.directory).unwrap();
}

/// Records carry their commit time, from which their topic's retention counts.
#[test]
fn a_backlog_that_nears_its_topics_retention_is_a_warning() {
    let kafka = Kafka::shared();
    for (retention, is_warned) in [("1", true), ("-1", false)] {
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
        let warned = log.contains("FL3012") && log.contains(&pipeline.topic()) && log.contains("older than half of the time");
        assert_eq!(warned, is_warned, "{log}");
        std::fs::remove_dir_all(&pipeline.directory).unwrap();
    }
}
