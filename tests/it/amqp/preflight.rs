//! The preflight's report before the first event.

mod alternates;
mod permissions;
mod queues;
mod routes;

use super::connector;
use super::destination::Destination;
use crate::contract_sink::{feed, open};
use crate::servers::port::wait_for;
use crate::servers::rabbitmq::RabbitMq;
use feedline::event::Operation;
use feedline::fault::{Classify, Code};
use feedline::feed::{Feed, Feeds, PrefeedKind};
use feedline::preflight::{Findings, Warning};
use feedline::sink::amqp::{Address as Broker, Connector, Management, Options, Queue, QueueType};
use feedline::sink::{Sink, SinkConnector};
use feedline::status::metrics::Metrics;
use lapin::types::FieldTable;
use std::sync::Arc;
use std::time::Duration;

/// A table whose events have the routing keys `public.TABLE.OPERATION`, and that has no prefeed.
fn table(name: &str) -> Feed {
    let mut feed = feed(name, "");
    for operation in Operation::ALL {
        feed.destinations[operation as usize] = format!("public.{name}.{operation}").into();
    }
    feed
}

/// This many tables, with a prefeed.
fn tables(count: usize) -> Arc<Feeds> {
    let feed = |number: usize| Feed { prefeed: PrefeedKind::Snapshot, ..table(&format!("t{number}")) };
    Arc::new(Feeds::new((0..count).map(feed).collect()))
}

async fn preflight(options: &Options, feeds: &Arc<Feeds>) -> Findings {
    let mut connector = Connector::new(options.clone(), Metrics::new("shop").sink);
    connector.select(Arc::clone(feeds));
    connector.preflight().await.unwrap()
}

/// The preflight for one table without a prefeed.
async fn preflight_one(options: &Options) -> Findings {
    preflight(options, &Arc::new(Feeds::new(vec![table("t0")]))).await
}

fn managed(port: u16) -> Management {
    Management { address: Broker { host: "127.0.0.1".to_owned(), port }, is_encrypted: false }
}

fn found<'f>(findings: &'f [Warning], code: Code, parts: &[&str]) -> &'f str {
    let matching = findings.iter().find(|found| found.code == code && parts.iter().all(|part| found.message.contains(part)));
    &matching.unwrap_or_else(|| panic!("{code} {parts:?} in {findings:?}")).message
}

/// Asserts that no finding has this code.
fn assert_none(findings: &[Warning], code: Code) {
    assert!(findings.iter().all(|found| found.code != code), "{findings:?}");
}

/// Every exchange, queue and binding of a broker.
fn all_resources(broker: &RabbitMq) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for list in [&["list_exchanges", "name", "type"][..], &["list_queues", "name", "messages"], &["list_bindings"]] {
        lines.extend(broker.ctl(list).lines().map(str::to_owned));
    }
    lines.sort();
    lines
}

#[tokio::test]
async fn the_preflight_changes_nothing_and_disturbs_no_other_client() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    // Beside a pipeline that publishes.
    let mut running = connector(destination.options());
    let session = open(&mut running).await;
    let findings = preflight_one(&destination.options()).await;
    found(&findings.warnings, Code::SinkBusy, &["waits"]);
    assert!(findings.refusals.is_empty(), "{findings:?}");
    session.close().await.unwrap();
    assert!(destination.read().is_empty(), "the questions about publishing publish nothing");
    // A missing exchange is reported, and not declared.
    let missing = Options { exchange: format!("{}.missing", destination.name), ..destination.options() };
    let findings = preflight_one(&missing).await;
    assert!(findings.actions.iter().any(|action| action.contains("make exchange")), "{findings:?}");
    found(&preflight_one(&Options { declare: false, ..missing }).await.refusals, Code::ExchangeUnfit, &["missing", "durable"]);
    let unfit = Options { exchange: "amq.direct".to_owned(), ..destination.options() };
    found(&preflight_one(&unfit).await.refusals, Code::ExchangeUnfit, &["amq.direct", "topic"]);
    // Without a broker, a login or a virtual host there is nothing to check.
    let elsewhere = Options { vhost: "elsewhere".to_owned(), ..destination.options() };
    assert_eq!(connector(elsewhere).preflight().await.unwrap_err().code(), Code::VirtualHostMissing);
}

/// How RabbitMQ logs a refused request.
const REFUSED: &str = "caused a channel exception";

#[tokio::test]
async fn what_exists_and_is_allowed_leaves_no_error_in_the_brokers_log() {
    let broker = RabbitMq::start(&[]);
    let destination = Destination::new(&broker, &["#"], FieldTable::default());
    let queue = Queue { name: format!("{}.billing", destination.name), keys: vec!["public.#".to_owned()], kind: QueueType::Quorum };
    let options = Options { dead_letter: Some(format!("{}.dead", destination.name).into()), queues: vec![queue], ..destination.options() };
    connector(options.clone()).establish().await.unwrap();
    let before = broker.log().matches(REFUSED).count();
    let findings = preflight_one(&options).await;
    assert!(findings.refusals.is_empty(), "{findings:?}");
    // A question that is refused, behind all others in the log.
    let absent = Options { exchange: format!("{}.absent", destination.name), declare: false, ..options };
    preflight_one(&absent).await;
    let log = wait_for("the refusal is logged", Duration::from_secs(30), || {
        broker.log().split_once(&absent.exchange).map(|(until, _)| until.to_owned())
    });
    // Each preflight asks two questions about the lock, which does not exist; then comes the one about the exchange.
    assert_eq!(log.matches(REFUSED).count() - before, 2 + 2 + 1, "{log}");
}

/// Runs the command: the report is on standard output, and the client library logs nothing beside it.
#[test]
fn check_prints_the_findings_and_sets_its_exit_status() {
    let (broker, management) = RabbitMq::start_managed();
    let destination = Destination::new(&broker, &["*.*.insert"], FieldTable::default());
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("check-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let database = directory.join("shop.db");
    let script = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.executescript('PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY)')";
    assert!(std::process::Command::new("python3").args(["-c", script]).arg(&database).status().unwrap().success());
    let check = |sink: &str, arguments: &[&str]| {
        let path = directory.join("feedline.toml");
        let configuration = format!(
            "name = \"{}\"\n[source]\nkind = \"sqlite\"\npath = \"{}\"\n[[feeds]]\ntables = [\"t\"]\nprefeed = \"none\"\n[checkpoint]\npath = \"{}\"\n\
             [sink]\nkind = \"amqp\"\nport = {}\ntls = \"disable\"\npassword_env = \"RABBIT\"\nmanagement_url = \"http://127.0.0.1:{management}\"\n{sink}",
            destination.name,
            database.display(),
            directory.join("checkpoint").display(),
            destination.port
        );
        std::fs::write(&path, configuration).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_feedline"));
        command.args(["check", "--config"]).arg(path).args(arguments).env("RABBIT", "guest").output().unwrap()
    };
    let unbound = check("", &["--format", "json"]);
    assert_eq!(unbound.status.code(), Some(71), "{}", String::from_utf8_lossy(&unbound.stdout));
    let report: serde_json::Value = serde_json::from_slice(&unbound.stdout).unwrap();
    let error = report["findings"].as_array().unwrap().iter().find(|finding| finding["severity"] == "error").unwrap();
    assert_eq!((error["code"].as_str(), error["part"].as_str()), (Some("FL3203"), Some("sink")));
    assert!(error["message"].as_str().unwrap().contains("main.t.delete"), "{error}");
    let bound = check("exchange = \"elsewhere\"\n[[sink.queues]]\nname = \"billing\"\nkeys = [\"main.#\"]\n", &[]);
    let text = String::from_utf8(bound.stdout).unwrap();
    assert!(bound.status.success(), "{text}");
    for line in ["checkpoint     ok", "sink           ok", "make exchange \"elsewhere\"", "make and bind queue \"billing\" (quorum)"] {
        assert!(text.contains(line), "{line} in:\n{text}");
    }
    assert!(bound.stderr.is_empty(), "{}", String::from_utf8_lossy(&bound.stderr));
    std::fs::remove_dir_all(directory).unwrap();
}
