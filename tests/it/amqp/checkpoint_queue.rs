//! The checkpoint's queue when other clients read, purge or delete it: "no checkpoint" is reported only if none was ever written.

use super::destination::Destination;
use crate::contract_checkpoint::settled;
use crate::servers::rabbitmq::RabbitMq;
use feedline::checkpoint::{Checkpoint, CheckpointStore, Identity, ResumeToken};
use feedline::fault::{Classify, Code, Fault};
use feedline::sink::SinkConnector;
use feedline::sink::amqp::checkpoint::{CheckpointError, Store};
use feedline::sink::amqp::{Address as Broker, Management, Options};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use std::time::Duration;

fn numbered(number: u32) -> Checkpoint {
    let mut checkpoint = Checkpoint::intent("shop", "instance".to_owned(), Identity::new(), "hash".to_owned());
    checkpoint.token = Some(ResumeToken(format!("token-{number}").into()));
    checkpoint.slice = number;
    checkpoint
}

/// Loads the checkpoint as a start does, and returns its number.
async fn load(options: &Options) -> Result<Option<u32>, CheckpointError> {
    settled(async || Store::new(options.clone()).load().await).await.map(|found| found.map(|found| found.slice))
}

/// Reads the checkpoint from outside, and returns its number.
async fn inspect(options: &Options) -> Result<Option<u32>, CheckpointError> {
    settled(async || Store::inspect(options).await).await.map(|found| found.map(|found| found.slice))
}

async fn save(options: &Options, numbers: impl IntoIterator<Item = u32>) {
    let mut store = Store::new(options.clone());
    settled(async || store.load().await).await.unwrap();
    for number in numbers {
        store.save(&numbered(number)).await.unwrap();
    }
}

fn new_destination() -> Destination {
    Destination::new(RabbitMq::shared(), &["#"], FieldTable::default())
}

fn queue(destination: &Destination) -> String {
    format!("{}.checkpoint", destination.name)
}

/// Takes all messages out of a queue.
fn take_all(destination: &Destination, queue: String) -> Vec<String> {
    destination.with_channel(async move |channel| {
        let mut bodies = Vec::new();
        while let Some(message) = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap() {
            bodies.push(String::from_utf8(message.delivery.data).unwrap());
        }
        bodies
    })
}

async fn client(destination: &Destination) -> (Connection, Channel) {
    let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", destination.port);
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

#[tokio::test]
async fn a_stray_message_is_moved_to_another_queue() {
    let destination = new_destination();
    let options = destination.options();
    let mut store = Store::new(options.clone());
    store.load().await.unwrap();
    let put = |body: &'static str| {
        let queue = queue(&destination);
        destination.with_channel(async move |channel| {
            let properties = BasicProperties::default().with_headers(FieldTable::default());
            let put = BasicPublishOptions::default();
            channel.basic_publish("".into(), queue.as_str().into(), put, body.as_bytes(), properties).await.unwrap();
        });
    };
    for number in 1..=30 {
        if number % 10 == 5 {
            put("{\"hello\":1}");
        }
        store.save(&numbered(number)).await.unwrap();
    }
    drop(store);
    // A start finds the checkpoint beside the stray message.
    put("hello");
    assert_eq!(inspect(&options).await.unwrap(), Some(30));
    assert_eq!(load(&options).await.unwrap(), Some(30));
    save(&options, [31, 32]).await;
    assert_eq!(
        take_all(&destination, format!("{}.strays", queue(&destination))),
        ["{\"hello\":1}", "{\"hello\":1}", "{\"hello\":1}", "hello"]
    );
    let left = take_all(&destination, queue(&destination));
    assert!(left.len() == 1 && left[0].contains("token-32"), "{left:?}");
}

#[tokio::test]
async fn a_checkpoint_that_a_client_holds_is_not_reported_as_missing() {
    let destination = new_destination();
    let options = destination.options();
    save(&options, [1]).await;
    let (connection, channel) = client(&destination).await;
    assert!(channel.basic_get(queue(&destination).as_str().into(), BasicGetOptions::default()).await.unwrap().is_some());
    for error in [load(&options).await.unwrap_err(), inspect(&options).await.unwrap_err()] {
        // A quorum queue counts a client that holds a message as a consumer.
        assert!([Code::CheckpointUnreadable, Code::CheckpointStoreUnfit].contains(&error.code()), "{error}");
        assert_eq!(error.fault(), Fault::Fatal, "{error}");
        assert!(error.to_string().contains("messages_unacknowledged"), "{error}");
    }
    // The remedy: close that client.
    connection.close(200, "done".into()).await.unwrap();
    assert_eq!(load(&options).await.unwrap(), Some(1));
    // A client that holds it for a moment is waited for.
    let (connection, channel) = client(&destination).await;
    assert!(channel.basic_get(queue(&destination).as_str().into(), BasicGetOptions::default()).await.unwrap().is_some());
    let (found, ()) = tokio::join!(load(&options), async {
        // As long as that moment is.
        tokio::time::sleep(Duration::from_secs(2)).await;
        connection.close(200, "done".into()).await.unwrap();
    });
    assert_eq!(found.unwrap(), Some(1));
}

#[tokio::test]
async fn a_checkpoint_that_was_removed_is_not_reported_as_missing_until_it_is_reset() {
    type Away = fn(Channel, String) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    let purge: Away = |channel, queue| {
        Box::pin(async move {
            channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await.unwrap();
        })
    };
    let delete: Away = |channel, queue| {
        Box::pin(async move {
            channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        })
    };
    for away in [purge, delete] {
        let destination = new_destination();
        let options = destination.options();
        assert_eq!(load(&options).await.unwrap(), None);
        save(&options, [1, 2]).await;
        let name = queue(&destination);
        destination.with_channel(async move |channel| away(channel, name).await);
        for error in [inspect(&options).await.unwrap_err(), load(&options).await.unwrap_err()] {
            assert_eq!((error.code(), error.fault()), (Code::CheckpointUnreadable, Fault::Fatal), "{error}");
            assert!(error.to_string().contains("feedline checkpoint reset"), "{error}");
        }
        let removed = settled(async || Store::new(options.clone()).remove().await).await.unwrap();
        assert!(removed, "there was one before");
        assert_eq!(load(&options).await.unwrap(), None);
        save(&options, [7]).await;
        assert_eq!(load(&options).await.unwrap(), Some(7));
    }
}

#[tokio::test]
async fn a_consumer_of_the_checkpoints_queue_is_an_error() {
    let destination = new_destination();
    let options = destination.options();
    let mut store = Store::new(options.clone());
    store.load().await.unwrap();
    store.save(&numbered(1)).await.unwrap();
    let (connection, channel) = client(&destination).await;
    channel
        .basic_consume(queue(&destination).as_str().into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap();
    let noticed = async {
        loop {
            if let Err(error) = store.save(&numbered(2)).await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let error = tokio::time::timeout(Duration::from_mins(1), noticed).await.expect("the consumer is noticed");
    assert_eq!((error.code(), error.fault()), (Code::CheckpointStoreUnfit, Fault::Fatal), "{error}");
    drop(store);
    for error in [load(&options).await.unwrap_err(), inspect(&options).await.unwrap_err(), Store::preflight(&options).await.unwrap_err()] {
        assert_eq!(error.code(), Code::CheckpointStoreUnfit, "{error}");
        assert!(error.to_string().contains("consume"), "{error}");
    }
    connection.close(200, "done".into()).await.unwrap();
    assert_eq!(load(&options).await.unwrap(), Some(2));
}

/// The lower of the policy's and the queue's delivery limits applies.
#[tokio::test]
async fn reading_does_not_use_up_the_delivery_limit() {
    let broker = RabbitMq::shared();
    for limit in ["0", "1", "3"] {
        let destination = new_destination();
        let options = destination.options();
        let policy = format!("limit-{}", destination.name);
        let (pattern, definition) = (format!("^{}$", queue(&destination)), format!("{{\"delivery-limit\":{limit}}}"));
        broker.ctl(&["set_policy", &policy, &pattern, &definition, "--apply-to", "queues"]);
        save(&options, [1]).await;
        for _ in 0..6 {
            assert_eq!(inspect(&options).await.unwrap(), Some(1), "with a limit of {limit}");
        }
        for _ in 0..6 {
            assert_eq!(load(&options).await.unwrap(), Some(1), "with a limit of {limit}");
        }
        broker.ctl(&["clear_policy", &policy]);
    }
}

/// In quorum and classic queues that an operator made.
#[tokio::test]
async fn reading_does_not_use_up_the_delivery_limit_of_an_operators_queue() {
    for kind in ["quorum", "classic"] {
        let destination = new_destination();
        let options = Options { declare: false, ..destination.options() };
        let name = queue(&destination);
        destination.with_channel(async move |channel| {
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
            channel.queue_declare(name.as_str().into(), durable, arguments).await.unwrap();
        });
        save(&options, [1]).await;
        // The default limit of a quorum queue in RabbitMQ 4 is 20 deliveries.
        for _ in 0..25 {
            assert_eq!(inspect(&options).await.unwrap(), Some(1), "in a {kind} queue");
        }
        assert_eq!(load(&options).await.unwrap(), Some(1), "in a {kind} queue");
        assert_eq!(take_all(&destination, queue(&destination)).len(), 1);
    }
}

#[tokio::test]
async fn a_policy_that_would_lose_the_checkpoint_is_found_by_the_preflight() {
    let (broker, port) = RabbitMq::shared_managed();
    let destination = Destination::new(broker, &["#"], FieldTable::default());
    let management = Management { address: Broker { host: "127.0.0.1".to_owned(), port }, is_encrypted: false };
    let options = Options { management: Some(management), ..destination.options() };
    save(&options, [1]).await;
    for (name, value) in [("message-ttl", 3_600_000), ("expires", 3_600_000), ("max-length", 1), ("max-length-bytes", 100_000)] {
        let policy = format!("loses-{}", destination.name);
        let (pattern, definition) = (format!("^{}$", queue(&destination)), format!("{{\"{name}\":{value}}}"));
        broker.ctl(&["set_policy", &policy, &pattern, &definition, "--apply-to", "queues"]);
        let error = settled(async || match Store::preflight(&options).await {
            Err(error) if error.to_string().contains(&format!("x-{name},")) => Ok(error),
            // The API shows a policy a moment later.
            other => {
                let reason = format!("{name} is not shown: {other:?}");
                Err(CheckpointError::Broker(feedline::sink::amqp::Error::Unconfirmed { reason }))
            }
        });
        let error = error.await.unwrap();
        assert_eq!((error.code(), error.fault()), (Code::CheckpointStoreUnfit, Fault::Fatal), "{error}");
        broker.ctl(&["clear_policy", &policy]);
    }
}

/// It is not reported as another instance.
#[tokio::test]
async fn an_ordinary_queue_with_the_name_of_a_lock_is_refused() {
    let destination = new_destination();
    for (lock, of_events) in [(format!("{}.lock", destination.name), true), (format!("{}.lock", queue(&destination)), false)] {
        let name = lock.clone();
        destination.with_channel(async move |channel| {
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(name.as_str().into(), durable, FieldTable::default()).await.unwrap();
        });
        let (code, message) = if of_events {
            let error = super::connector(destination.options()).establish().await.unwrap_err();
            assert_eq!(error.fault(), Fault::Fatal, "{error}");
            let findings = super::connector(destination.options()).preflight().await.unwrap();
            assert!(findings.refusals.iter().any(|refusal| refusal.message == error.to_string()), "{findings:?}");
            (error.code(), error.to_string())
        } else {
            let error = Store::new(destination.options()).load().await.unwrap_err();
            assert_eq!(error.fault(), Fault::Fatal, "{error}");
            (error.code(), error.to_string())
        };
        assert_eq!(code, Code::QueueUnfit, "{message}");
        assert!(message.contains(&lock) && message.contains("somebody else"), "{message}");
        // The remedy: delete the queue.
        destination.with_channel(async move |channel| {
            channel.queue_delete(lock.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        });
    }
    super::connector(destination.options()).establish().await.unwrap();
    assert_eq!(load(&destination.options()).await.unwrap(), None);
}
