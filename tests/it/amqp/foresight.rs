//! What a look ahead says before the first event.

use super::connector;
use super::place::Place;
use crate::contract_sink::{feed, open};
use crate::servers::port;
use crate::servers::rabbitmq::RabbitMq;
use feedline::change::Operation;
use feedline::fault::{Classify, Code};
use feedline::feed::{Feed, Feeds};
use feedline::foresight::{Foresight, Warning};
use feedline::metrics::Metrics;
use feedline::sink::amqp::{Connector, Management, Options, Place as Broker, Queue, QueueType};
use feedline::sink::{Sink, SinkConnector};
use lapin::types::{AMQPValue, FieldTable};
use std::sync::Arc;

/// A table whose events have the routing keys `public.TABLE.OPERATION`.
fn table(name: &str) -> Feed {
    let mut feed = feed(name, "");
    for operation in Operation::ALL {
        feed.destinations[operation as usize] = format!("public.{name}.{operation}").into();
    }
    feed
}

async fn foresee(options: &Options, tables: usize) -> Foresight {
    let mut connector = Connector::new(options.clone(), Metrics::new("shop").sink);
    connector.select(Arc::new(Feeds::new((0..tables).map(|number| table(&format!("t{number}"))).collect())));
    connector.foresee().await.unwrap()
}

fn found<'f>(findings: &'f [Warning], code: Code, words: &[&str]) -> &'f str {
    let matching = findings.iter().find(|found| found.code == code && words.iter().all(|word| found.message.contains(word)));
    &matching.unwrap_or_else(|| panic!("{code} {words:?} in {findings:?}")).message
}

#[tokio::test]
async fn every_routing_key_that_no_queue_takes_is_named_before_the_first_event() {
    let (broker, port) = RabbitMq::start_managed();
    let place = Place::new(&broker, &["*.*.insert", "public.t0.*"], FieldTable::default());
    let management = Some(Management { place: Broker { host: "127.0.0.1".to_owned(), port }, is_encrypted: false });
    let options = Options { management, ..place.options() };
    // 200 tables without a prefeed: insert, update, delete, truncate each. Inserts have a queue, and so has all of one table.
    let looked = foresee(&options, 200).await;
    let refusal = found(&looked.refusals, Code::EventUnroutable, &["public.t1.delete"]);
    assert!(refusal.contains("597 routing keys"), "{refusal}");
    found(&looked.warnings, Code::QueueDoubtful, &["no consumer"]);
    // What the start itself binds counts.
    let queue = Queue { name: format!("{}.rest", place.name), keys: vec!["public.#".to_owned()], kind: QueueType::Classic };
    let looked = foresee(&Options { queues: vec![queue], ..options.clone() }, 200).await;
    assert!(looked.refusals.is_empty(), "{looked:?}");
    assert!(looked.actions.iter().any(|action| action.contains("make and bind queue")), "{looked:?}");
    // With dead letters nothing stops, and it is still said.
    let looked = foresee(&Options { dead_letter: Some("x".into()), ..options.clone() }, 2).await;
    assert!(looked.refusals.is_empty());
    found(&looked.warnings, Code::EventUnroutable, &["public.t1.update"]);
    // Another exchange that is bound and leads nowhere takes nothing.
    broker.ctl(&["eval", &format!(
        "rabbit_binding:add({{binding, rabbit_misc:r(<<\"/\">>, exchange, <<\"{}\">>), <<\"#\">>, rabbit_misc:r(<<\"/\">>, exchange, <<\"amq.fanout\">>), []}}, <<\"test\">>).",
        place.name
    )]);
    assert_eq!(foresee(&options, 2).await.refusals.len(), 1);

    // A user without the tag is told what is missing, and the rest is looked at.
    broker.ctl(&["add_user", "plain", "secret"]);
    broker.ctl(&["set_permissions", "-p", "/", "plain", ".*", ".*", ".*"]);
    let plain = Options { user: "plain".to_owned(), password: Some(feedline::secret::Secret::new("secret".to_owned())), ..options.clone() };
    let looked = foresee(&plain, 2).await;
    found(&looked.warnings, Code::BindingsUnseen, &["set_user_tags plain management"]);
    let absent = Some(Management { place: Broker { host: "127.0.0.1".to_owned(), port: port::free() }, is_encrypted: false });
    let looked = foresee(&Options { management: absent, ..options.clone() }, 2).await;
    found(&looked.warnings, Code::BindingsUnseen, &["refused"]);
    let looked = foresee(&Options { management: None, ..options }, 2).await;
    found(&looked.warnings, Code::BindingsUnseen, &["sink.management_url"]);
}

#[tokio::test]
async fn queues_that_lose_messages_are_named() {
    let (broker, port) = RabbitMq::start_managed();
    let management = Some(Management { place: Broker { host: "127.0.0.1".to_owned(), port }, is_encrypted: false });
    let mut limited = FieldTable::default();
    limited.insert("x-max-length".into(), AMQPValue::LongInt(25));
    limited.insert("x-message-ttl".into(), AMQPValue::LongInt(1000));
    let place = Place::new(&broker, &["#"], limited);
    let looked = foresee(&Options { management, ..place.options() }, 1).await;
    assert!(looked.refusals.is_empty());
    found(&looked.warnings, Code::QueueDoubtful, &["length limit", "reject-publish"]);
    found(&looked.warnings, Code::QueueDoubtful, &["x-message-ttl"]);
}

#[tokio::test]
async fn a_look_changes_nothing_and_disturbs_nobody() {
    let place = Place::new(RabbitMq::shared(), &["#"], FieldTable::default());
    // Beside a pipeline that publishes.
    let mut running = connector(place.options());
    let session = open(&mut running).await;
    let looked = foresee(&place.options(), 1).await;
    found(&looked.warnings, Code::SinkBusy, &["waits"]);
    session.close().await.unwrap();
    // What is missing would be made, and is not.
    let missing = Options { exchange: format!("{}.missing", place.name), ..place.options() };
    let looked = foresee(&missing, 1).await;
    assert!(looked.actions.iter().any(|action| action.contains("make exchange")), "{looked:?}");
    let mut unmade = connector(Options { declare: false, ..missing });
    assert_eq!(unmade.foresee().await.unwrap_err().code(), Code::ExchangeUnfit);
    let unfit = Options { exchange: "amq.direct".to_owned(), ..place.options() };
    assert_eq!(connector(unfit).foresee().await.unwrap_err().code(), Code::ExchangeUnfit);
}

/// As a user sees it: the report on standard output, and nothing of the client's own words beside it.
#[test]
fn check_prints_what_it_found_and_says_so_by_its_status() {
    let (broker, management) = RabbitMq::start_managed();
    let place = Place::new(&broker, &["*.*.insert"], FieldTable::default());
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
            place.name,
            database.display(),
            directory.join("checkpoint").display(),
            place.port
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
