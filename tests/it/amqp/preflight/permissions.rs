//! Missing permissions of the broker's user, found without declaring or sending anything.

use super::super::destination::Destination;
use super::{Connector, FieldTable, Options, RabbitMq, all_resources, assert_none, connector, found, preflight, preflight_one, tables};
use feedline::fault::{Classify, Code};
use feedline::net::secret::Secret;
use feedline::sink::SinkConnector;
use feedline::sink::amqp::{Queue, QueueType, consume};
use feedline::status::metrics::Metrics;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::time::timeout;

/// A user with the destination's name and these permissions.
fn user(broker: &RabbitMq, destination: &Destination, [configure, write, read]: [&str; 3]) -> Options {
    let name = destination.name.as_str();
    broker.ctl(&["add_user", name, "secret"]);
    broker.ctl(&["set_permissions", "-p", "/", name, configure, write, read]);
    Options { user: name.to_owned(), password: Some(Secret::new("secret".to_owned())), ..destination.options() }
}

/// Runs the `rabbitmqctl` command of a message as it stands.
fn run(broker: &RabbitMq, message: &str) {
    let (_, command) = message.split_once("rabbitmqctl ").unwrap();
    let (command, _) = command.split_once(" (it replaces").unwrap();
    let words: Vec<&str> = command.split_whitespace().map(|word| word.trim_matches('\'')).collect();
    broker.ctl(&words);
}

#[tokio::test]
async fn all_missing_permissions_are_named_at_once_with_the_command_that_grants_them() {
    let broker = RabbitMq::shared();
    let destination = Destination::new(broker, &[], FieldTable::default());
    let queue = Queue { name: format!("{}.billing", destination.name), keys: vec!["#".to_owned()], kind: QueueType::Classic };
    let poor = user(broker, &destination, ["^$", "^$", "^$"]);
    // Only this test's resources: others come and go meanwhile.
    let resources = || {
        let mut lines = all_resources(broker);
        lines.retain(|line| line.contains(&destination.name));
        lines
    };
    let (name, letters) = (destination.name.as_str(), format!("{}.dead", destination.name));
    let there = Options { queues: vec![queue], dead_letter: Some(letters.as_str().into()), ..poor };
    let absent = Options { exchange: format!("{name}.new"), ..there.clone() };
    for options in [there, absent] {
        broker.ctl(&["set_permissions", "-p", "/", name, "^$", "^$", "^$"]);
        let before = resources();
        let findings = preflight(&options, &tables(1)).await;
        let exchange = &options.exchange;
        let message = found(&findings.refusals, Code::SinkPrivilege, &[]);
        let lists = message.split("lacks permissions: ").nth(1).unwrap().split("; run").next().unwrap();
        let mut lists = lists.split("; ").map(|list| list.split_once(" for ").unwrap());
        let made = [
            format!("exchange {exchange:?}"),
            format!("exchange {letters:?}"),
            format!("queue {letters:?}"),
            format!("queue \"{name}.billing\""),
        ];
        let lock = format!("queue \"{name}.lock\"");
        for (permission, expected) in [("configure", &[&made[..], &[lock]].concat()), ("write", &made.to_vec())] {
            let (named, list) = lists.next().unwrap();
            let list: BTreeSet<String> = list.split(", ").map(str::to_owned).collect();
            assert_eq!((named, list), (permission, expected.iter().cloned().collect()), "{findings:?}");
        }
        assert_eq!(findings.refusals.len(), 1, "{findings:?}");
        // RabbitMQ checks reading the exchange after writing to the queue, so it may not be seen.
        let all = [&findings.refusals[..], &findings.warnings].concat();
        found(&all, Code::SinkPrivilege, &["read for exchange"]);
        assert_eq!(resources(), before, "the preflight declares nothing, binds nothing and sends nothing");
        // The command is enough for the preflight and for the start.
        run(broker, message);
        let findings = preflight(&options, &tables(1)).await;
        assert!(findings.refusals.is_empty() && findings.warnings.iter().all(|found| found.code != Code::SinkPrivilege), "{findings:?}");
        assert_eq!(resources(), before, "the preflight declares nothing, binds nothing and sends nothing");
        let mut connector = Connector::new(options.clone(), Metrics::new("shop").sink);
        connector.select(tables(1));
        connector.establish().await.unwrap();
    }
}

#[tokio::test]
async fn each_missing_permission_is_named() {
    let broker = RabbitMq::shared();
    let destination = Destination::new(broker, &["#"], FieldTable::default());
    let options = user(broker, &destination, ["^$", "^$", "^$"]);
    let name = destination.name.as_str();
    let queue = Queue { name: format!("{name}.q"), keys: vec!["#".to_owned()], kind: QueueType::Classic };
    let options = Options { queues: vec![queue], ..options };
    let (exchange, lock, queue) = (format!("exchange {name:?}"), format!("queue \"{name}.lock\""), format!("queue \"{name}.q\""));
    let alone = format!("^{name}$");
    for ([configure, write, read], lacking) in [
        (["^$", ".*", ".*"], format!("lacks permissions: configure for {exchange}, {lock}, {queue}; run")),
        ([&alone, ".*", ".*"], format!("lacks permissions: configure for {lock}, {queue}; run")),
        ([".*", "^$", ".*"], format!("lacks permissions: write for {exchange}, {queue}; run")),
        ([".*", &alone, "^$"], format!("lacks permissions: write for {queue}; read for {exchange}, {lock}; run")),
        ([".*", ".*", "^$"], format!("lacks permissions: read for {exchange}, {lock}; run")),
        ([name, name, name], String::new()),
    ] {
        broker.ctl(&["set_permissions", "-p", "/", name, configure, write, read]);
        let findings = preflight_one(&options).await;
        let messages = findings.refusals.iter().map(|refusal| refusal.message.as_str()).collect::<String>();
        assert!(if lacking.is_empty() { messages.is_empty() } else { messages.contains(&lacking) }, "{lacking} in {messages}");
        let started = connector(options.clone()).establish().await;
        // Only the first event shows whether the user may write to the exchange.
        assert_eq!(started.is_ok(), lacking.is_empty(), "{started:?}");
    }
    // The documented permissions for `declare = false`.
    broker.ctl(&["set_permissions", "-p", "/", name, &format!("^{name}\\.lock$"), &format!("^{name}$"), &format!("^{name}\\.lock$")]);
    let verified = Options { declare: false, queues: Vec::new(), ..options.clone() };
    let findings = preflight_one(&verified).await;
    assert!(findings.refusals.is_empty(), "{findings:?}");
    connector(verified).establish().await.unwrap();
    // Permissions by routing key.
    broker.ctl(&["set_permissions", "-p", "/", name, ".*", ".*", ".*"]);
    broker.ctl(&["set_topic_permissions", "-p", "/", name, name, "^public\\.t[0-8]\\.", ".*"]);
    let findings = preflight(&options, &tables(9)).await;
    assert!(findings.refusals.is_empty(), "{findings:?}");
    let findings = preflight(&options, &tables(200)).await;
    found(&findings.refusals, Code::SinkPrivilege, &["access to topic 'public.t", "set_topic_permissions"]);
}

#[tokio::test]
async fn a_user_that_may_not_consume_is_told_the_needed_permissions() {
    let broker = RabbitMq::shared();
    let destination = Destination::new(broker, &["#"], FieldTable::default());
    let name = destination.name.as_str();
    let publishing = ["^$".to_owned(), format!("^{name}$"), "^$".to_owned()];
    let options = user(broker, &destination, publishing.each_ref().map(String::as_str));
    let mut on_consumed = |_| ControlFlow::Break(());
    let refused = consume::consume(&options, &["#".into()], &mut on_consumed).await.unwrap_err();
    assert_eq!(refused.code(), Code::SinkPrivilege);
    let message = refused.to_string();
    assert!(message.contains("amq\\.gen") && message.contains(".lock"), "{message}");
    run(broker, &message);
    let keys = ["#".into()];
    let consuming = timeout(Duration::from_secs(2), consume::consume(&options, &keys, &mut on_consumed));
    assert!(consuming.await.is_err(), "it consumes");
    // The pipeline's own permissions are still there.
    connector(options).establish().await.unwrap();
}

#[tokio::test]
async fn nothing_is_published_by_a_user_that_may_impersonate_others() {
    let broker = RabbitMq::shared();
    let destination = Destination::new(broker, &["#"], FieldTable::default());
    let options = user(broker, &destination, [".*", ".*", ".*"]);
    broker.ctl(&["set_user_tags", &destination.name, "impersonator"]);
    let findings = preflight_one(&options).await;
    assert_none(&findings.refusals, Code::SinkPrivilege);
    assert_none(&findings.warnings, Code::SinkPrivilege);
    assert!(destination.read().is_empty(), "the transaction is rolled back");
    broker.ctl(&["set_permissions", "-p", "/", &destination.name, ".*", "^$", ".*"]);
    found(&preflight_one(&options).await.refusals, Code::SinkPrivilege, &["lacks permissions: write for exchange"]);
}

#[tokio::test]
async fn a_broker_that_blocks_publishers_is_checked_as_far_as_it_answers() {
    let broker = RabbitMq::start(&[]);
    let destination = Destination::new(&broker, &["#"], FieldTable::default());
    let options = user(&broker, &destination, ["^$", "^$", "^$"]);
    broker.ctl(&["set_permissions", "-p", "/", &destination.name, "^$", ".*", ".*"]);
    broker.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    let options = Options { dead_letter: Some("letters".into()), ..options };
    let findings = timeout(Duration::from_secs(50), preflight_one(&options)).await.unwrap();
    found(&findings.refusals, Code::SinkPrivilege, &["lacks permissions: configure for exchange"]);
    found(&findings.warnings, Code::SinkPrivilege, &["short of memory or disk", "write for exchange", "\"letters\""]);
}
