//! Queues that are not as they are configured, or lose or hoard what they take; and where dead letters go.

use super::super::destination::Destination;
use super::{FieldTable, Options, RabbitMq, all_that_is_there, connector, foresee_one, found, managed, unsaid};
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
    let looked = foresee_one(&Options { management: Some(managed(port)), ..destination.options() }).await;
    assert!(looked.refusals.is_empty());
    found(&looked.warnings, Code::QueueDoubtful, &["length limit", "reject-publish"]);
    found(&looked.warnings, Code::QueueDoubtful, &["x-message-ttl"]);
}

#[test]
fn a_backlog_that_nobody_reads_is_named_with_its_size() {
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
    // The API's figures are some seconds old.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    wait_for("the backlog is named", Duration::from_mins(1), || {
        let looked = runtime.block_on(foresee_one(&Options { management: Some(managed(port)), ..destination.options() }));
        let named = |warning: &&feedline::preflight::Warning| warning.message.contains("backlog of 65 messages (65 MiB)");
        let warning = looked.warnings.iter().find(named)?;
        assert!(warning.code == Code::QueueDoubtful && warning.message.contains("start its reader"), "{}", warning.message);
        Some(())
    });
    let name = destination.name.clone();
    destination.with_channel(async move |channel| {
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    });
}

#[tokio::test]
async fn a_queue_of_another_type_or_durability_is_refused_as_a_start_refuses_it() {
    let destination = Destination::new(RabbitMq::shared(), &[], FieldTable::default());
    let fleeting = format!("{}.fleeting", destination.name);
    let name = fleeting.clone();
    // It goes with its connection where that ends, so that it is one which stays.
    destination.with_channel(async move |channel| {
        channel.queue_declare(name.as_str().into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    });
    let queue = |name: &str, kind| Queue { name: name.to_owned(), keys: vec!["public.#".to_owned()], kind };
    let both = vec![queue(&destination.name, QueueType::Quorum), queue(&fleeting, QueueType::Classic)];
    let options = Options { queues: both, ..destination.options() };
    // Both are named, and so is what comes after them.
    let looked = foresee_one(&Options { dead_letter: Some("amq.topic".into()), ..options.clone() }).await;
    found(&looked.refusals, Code::QueueUnfit, &[&format!("{:?}", destination.name), "x-queue-type", "[[sink.queues]]"]);
    found(&looked.refusals, Code::QueueUnfit, &[&fleeting, "durable"]);
    found(&looked.refusals, Code::ExchangeUnfit, &["amq.topic", "fanout"]);
    assert_eq!(connector(options).verify().await.unwrap_err().code(), Code::QueueUnfit);
    // As it is, it is bound, and nothing is made by looking.
    let fitting = Options { queues: vec![queue(&destination.name, QueueType::Classic)], ..destination.options() };
    let looked = foresee_one(&fitting).await;
    assert!(looked.refusals.is_empty() && looked.actions.iter().any(|action| action.starts_with("bind queue")), "{looked:?}");
}

#[tokio::test]
async fn what_becomes_of_dead_letters_is_said() {
    let (broker, port) = RabbitMq::shared_managed();
    let destination = Destination::new(broker, &["#"], FieldTable::default());
    let letters = format!("{}.dead", destination.name);
    let options = Options { dead_letter: Some(letters.as_str().into()), management: Some(managed(port)), ..destination.options() };
    let before = all_that_is_there(broker);
    let looked = foresee_one(&options).await;
    assert!(looked.refusals.is_empty(), "{looked:?}");
    for action in
        [format!("make exchange {letters:?} (fanout, durable) for dead letters"), format!("make and bind queue {letters:?} (stream)")]
    {
        assert!(looked.actions.contains(&action), "{action} in {looked:?}");
    }
    assert!(all_that_is_there(broker).iter().all(|line| before.contains(line) || !line.contains(&destination.name)));
    let verified = Options { declare: false, ..options.clone() };
    found(&foresee_one(&verified).await.refusals, Code::ExchangeUnfit, &[&letters, "fanout"]);
    // Once they are made, they are taken as they are, made by us or not.
    connector(options.clone()).verify().await.unwrap();
    for options in [&options, &verified] {
        let looked = foresee_one(options).await;
        assert!(looked.refusals.is_empty(), "{looked:?}");
        assert!(looked.actions.contains(&format!("send dead letters to exchange {letters:?} as it is")), "{looked:?}");
    }
    // Without a queue the first would stop the pipeline; a start that makes one is not concerned.
    destination.with_channel(async move |channel| {
        channel.queue_delete(letters.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    });
    found(&foresee_one(&verified).await.warnings, Code::EventUnroutable, &["dead letters", "bind a queue"]);
    unsaid(&foresee_one(&options).await.warnings, Code::EventUnroutable);
}
