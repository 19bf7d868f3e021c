//! Queues that differ from their configuration, lose messages or grow without limit; and the queue of dead letters.

use super::super::destination::Destination;
use super::{FieldTable, Options, RabbitMq, all_resources, assert_none, connector, found, managed, preflight_one};
use crate::servers::port::wait_for;
use feedline::fault::{Classify, Code};
use feedline::sink::SinkConnector;
use feedline::sink::amqp::{Queue, QueueType};
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::AMQPValue;
use std::time::Duration;

#[tokio::test]
async fn queues_that_lose_messages_are_named() {
    let (broker, port) = RabbitMq::shared_managed();
    let mut limited = FieldTable::default();
    limited.insert("x-max-length".into(), AMQPValue::LongInt(25));
    limited.insert("x-message-ttl".into(), AMQPValue::LongInt(1000));
    let destination = Destination::new(broker, &["#"], limited);
    let findings = preflight_one(&Options { management: Some(managed(port)), ..destination.options() }).await;
    assert!(findings.refusals.is_empty());
    found(&findings.warnings, Code::QueueUnsafe, &["length limit", "reject-publish"]);
    found(&findings.warnings, Code::QueueUnsafe, &["x-message-ttl"]);
}

#[test]
fn a_backlog_without_a_consumer_is_named_with_its_size() {
    let (broker, port) = RabbitMq::shared_managed();
    let destination = Destination::new(broker, &["#"], FieldTable::default());
    let name = destination.name.clone();
    destination.with_channel(async move |channel| {
        let megabyte = vec![b'x'; 1 << 20];
        for _ in 0..65 {
            let options = BasicPublishOptions::default();
            channel.basic_publish("".into(), name.as_str().into(), options, &megabyte, BasicProperties::default()).await.unwrap();
        }
    });
    // The API's numbers are some seconds old.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    wait_for("the backlog is named", Duration::from_mins(1), || {
        let findings = runtime.block_on(preflight_one(&Options { management: Some(managed(port)), ..destination.options() }));
        let named = |warning: &&feedline::preflight::Warning| warning.message.contains("backlog of 65 messages (65 MiB)");
        let warning = findings.warnings.iter().find(named)?;
        assert!(warning.code == Code::QueueUnsafe && warning.message.contains("start its reader"), "{}", warning.message);
        Some(())
    });
    let name = destination.name.clone();
    destination.with_channel(async move |channel| {
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    });
}

#[tokio::test]
async fn a_queue_of_another_type_or_durability_is_refused_like_by_a_start() {
    let destination = Destination::new(RabbitMq::shared(), &[], FieldTable::default());
    let fleeting = format!("{}.fleeting", destination.name);
    let name = fleeting.clone();
    // Not exclusive, so that it outlives its connection.
    destination.with_channel(async move |channel| {
        channel.queue_declare(name.as_str().into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    });
    let queue = |name: &str, kind| Queue { name: name.to_owned(), keys: vec!["public.#".to_owned()], kind };
    let both = vec![queue(&destination.name, QueueType::Quorum), queue(&fleeting, QueueType::Classic)];
    let options = Options { queues: both, ..destination.options() };
    // Both queues are named, and the exchange after them too.
    let findings = preflight_one(&Options { dead_letter: Some("amq.topic".into()), ..options.clone() }).await;
    found(&findings.refusals, Code::QueueUnfit, &[&format!("{:?}", destination.name), "x-queue-type", "[[sink.queues]]"]);
    found(&findings.refusals, Code::QueueUnfit, &[&fleeting, "durable"]);
    found(&findings.refusals, Code::ExchangeUnfit, &["amq.topic", "fanout"]);
    assert_eq!(connector(options).establish().await.unwrap_err().code(), Code::QueueUnfit);
    // A queue that fits would be bound.
    let fitting = Options { queues: vec![queue(&destination.name, QueueType::Classic)], ..destination.options() };
    let findings = preflight_one(&fitting).await;
    assert!(findings.refusals.is_empty() && findings.actions.iter().any(|action| action.starts_with("bind queue")), "{findings:?}");
}

#[tokio::test]
async fn the_dead_letter_exchange_and_queue_are_checked() {
    let (broker, port) = RabbitMq::shared_managed();
    let destination = Destination::new(broker, &["#"], FieldTable::default());
    let letters = format!("{}.dead", destination.name);
    let options = Options { dead_letter: Some(letters.as_str().into()), management: Some(managed(port)), ..destination.options() };
    let before = all_resources(broker);
    let findings = preflight_one(&options).await;
    assert!(findings.refusals.is_empty(), "{findings:?}");
    for action in
        [format!("make exchange {letters:?} (fanout, durable) for dead letters"), format!("make and bind queue {letters:?} (stream)")]
    {
        assert!(findings.actions.contains(&action), "{action} in {findings:?}");
    }
    assert!(all_resources(broker).iter().all(|line| before.contains(line) || !line.contains(&destination.name)));
    let verified = Options { declare: false, ..options.clone() };
    found(&preflight_one(&verified).await.refusals, Code::ExchangeUnfit, &[&letters, "fanout"]);
    // Existing ones are taken as they are, with and without `declare`.
    connector(options.clone()).establish().await.unwrap();
    for options in [&options, &verified] {
        let findings = preflight_one(options).await;
        assert!(findings.refusals.is_empty(), "{findings:?}");
        assert!(findings.actions.contains(&format!("send dead letters to exchange {letters:?} as it is")), "{findings:?}");
    }
    // Without a queue the first dead letter would stop the pipeline; with `declare` a start makes the queue.
    destination.with_channel(async move |channel| {
        channel.queue_delete(letters.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    });
    found(&preflight_one(&verified).await.warnings, Code::EventUnroutable, &["dead letters", "bind a queue"]);
    assert_none(&preflight_one(&options).await.warnings, Code::EventUnroutable);
}
