//! The checkpoint's queue, and what others do to it: "none" is said only where none was ever written.

use super::destination::Destination;
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

/// Tries until it no longer fails for what passes: an earlier connection is still closing.
async fn persist<T>(mut attempt: impl AsyncFnMut() -> Result<T, CheckpointError>) -> Result<T, CheckpointError> {
    for _ in 0..300 {
        match attempt().await {
            Err(error) if error.fault() == Fault::Transient => tokio::time::sleep(Duration::from_millis(100)).await,
            done => return done,
        }
    }
    panic!("it does not pass")
}

/// What a start finds.
async fn found(options: &Options) -> Result<Option<u32>, CheckpointError> {
    persist(async || Store::new(options.clone()).load().await).await.map(|found| found.map(|found| found.slice))
}

/// What a look finds.
async fn seen(options: &Options) -> Result<Option<u32>, CheckpointError> {
    persist(async || Store::inspect(options).await).await.map(|found| found.map(|found| found.slice))
}

async fn saved(options: &Options, numbers: impl IntoIterator<Item = u32>) {
    let mut store = Store::new(options.clone());
    persist(async || store.load().await).await.unwrap();
    for number in numbers {
        store.save(&numbered(number)).await.unwrap();
    }
}

fn place() -> Destination {
    Destination::new(RabbitMq::shared(), &["#"], FieldTable::default())
}

fn queue(destination: &Destination) -> String {
    format!("{}.checkpoint", destination.name)
}

/// What is ready in a queue, and taken out of it.
fn taken(destination: &Destination, queue: String) -> Vec<String> {
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
async fn a_stray_message_is_set_aside_and_hinders_nothing() {
    let destination = place();
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
    // Met by a start, it is no checkpoint, and the checkpoint is found.
    put("hello");
    assert_eq!(seen(&options).await.unwrap(), Some(30));
    assert_eq!(found(&options).await.unwrap(), Some(30));
    saved(&options, [31, 32]).await;
    assert_eq!(
        taken(&destination, format!("{}.strays", queue(&destination))),
        ["{\"hello\":1}", "{\"hello\":1}", "{\"hello\":1}", "hello"]
    );
    let left = taken(&destination, queue(&destination));
    assert!(left.len() == 1 && left[0].contains("token-32"), "{left:?}");
}

#[tokio::test]
async fn a_checkpoint_that_somebody_holds_is_not_none() {
    let destination = place();
    let options = destination.options();
    saved(&options, [1]).await;
    let (connection, channel) = client(&destination).await;
    let hidden = persist(async || {
        let got = channel.basic_get(queue(&destination).as_str().into(), BasicGetOptions::default()).await;
        assert!(got.unwrap().is_some());
        Ok(())
    });
    hidden.await.unwrap();
    for error in [found(&options).await.unwrap_err(), seen(&options).await.unwrap_err()] {
        // A quorum queue counts who holds a message as a consumer.
        assert!([Code::CheckpointUnreadable, Code::CheckpointPlaceUnfit].contains(&error.code()), "{error}");
        assert_eq!(error.fault(), Fault::Fatal, "{error}");
        assert!(error.to_string().contains("messages_unacknowledged"), "{error}");
    }
    // The remedy: that client is closed.
    connection.close(200, "done".into()).await.unwrap();
    assert_eq!(found(&options).await.unwrap(), Some(1));
    // A look of a moment is waited for.
    let (connection, channel) = client(&destination).await;
    assert!(channel.basic_get(queue(&destination).as_str().into(), BasicGetOptions::default()).await.unwrap().is_some());
    let (found, ()) = tokio::join!(found(&options), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        connection.close(200, "done".into()).await.unwrap();
    });
    assert_eq!(found.unwrap(), Some(1));
}

#[tokio::test]
async fn a_checkpoint_that_was_taken_away_is_not_none_until_it_is_reset() {
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
        let destination = place();
        let options = destination.options();
        assert_eq!(found(&options).await.unwrap(), None);
        saved(&options, [1, 2]).await;
        let name = queue(&destination);
        destination.with_channel(async move |channel| away(channel, name).await);
        for error in [seen(&options).await.unwrap_err(), found(&options).await.unwrap_err()] {
            assert_eq!((error.code(), error.fault()), (Code::CheckpointUnreadable, Fault::Fatal), "{error}");
            assert!(error.to_string().contains("feedline checkpoint reset"), "{error}");
        }
        let removed = persist(async || Store::new(options.clone()).remove().await).await.unwrap();
        assert!(removed, "there was one once");
        assert_eq!(found(&options).await.unwrap(), None);
        saved(&options, [7]).await;
        assert_eq!(found(&options).await.unwrap(), Some(7));
    }
}

#[tokio::test]
async fn who_consumes_the_checkpoint_is_refused() {
    let destination = place();
    let options = destination.options();
    let mut store = Store::new(options.clone());
    store.load().await.unwrap();
    store.save(&numbered(1)).await.unwrap();
    let (connection, channel) = client(&destination).await;
    channel
        .basic_consume(queue(&destination).as_str().into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap();
    let error = loop {
        if let Err(error) = store.save(&numbered(2)).await {
            break error;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!((error.code(), error.fault()), (Code::CheckpointPlaceUnfit, Fault::Fatal), "{error}");
    drop(store);
    for error in [found(&options).await.unwrap_err(), seen(&options).await.unwrap_err(), Store::preflight(&options).await.unwrap_err()] {
        assert_eq!(error.code(), Code::CheckpointPlaceUnfit, "{error}");
        assert!(error.to_string().contains("consume"), "{error}");
    }
    connection.close(200, "done".into()).await.unwrap();
    assert_eq!(found(&options).await.unwrap(), Some(2));
}

/// A policy sets a limit where the queue has none, and the lower of the two holds.
#[tokio::test]
async fn looks_do_not_use_the_checkpoint_up() {
    let broker = RabbitMq::shared();
    for limit in ["0", "1", "3"] {
        let destination = place();
        let options = destination.options();
        let policy = format!("limit-{}", destination.name);
        let (pattern, definition) = (format!("^{}$", queue(&destination)), format!("{{\"delivery-limit\":{limit}}}"));
        broker.ctl(&["set_policy", &policy, &pattern, &definition, "--apply-to", "queues"]);
        saved(&options, [1]).await;
        for _ in 0..6 {
            assert_eq!(seen(&options).await.unwrap(), Some(1), "with a limit of {limit}");
        }
        for _ in 0..6 {
            assert_eq!(found(&options).await.unwrap(), Some(1), "with a limit of {limit}");
        }
        broker.ctl(&["clear_policy", &policy]);
    }
}

/// Queues that an operator made, of both kinds.
#[tokio::test]
async fn looks_do_not_use_up_a_checkpoint_in_a_queue_made_by_hand() {
    for kind in ["quorum", "classic"] {
        let destination = place();
        let options = Options { declare: false, ..destination.options() };
        let name = queue(&destination);
        destination.with_channel(async move |channel| {
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
            channel.queue_declare(name.as_str().into(), durable, arguments).await.unwrap();
        });
        saved(&options, [1]).await;
        // RabbitMQ 4 grants a quorum queue 20 deliveries.
        for _ in 0..25 {
            assert_eq!(seen(&options).await.unwrap(), Some(1), "in a {kind} queue");
        }
        assert_eq!(found(&options).await.unwrap(), Some(1), "in a {kind} queue");
        assert_eq!(taken(&destination, queue(&destination)).len(), 1);
    }
}

#[tokio::test]
async fn a_policy_that_would_lose_the_checkpoint_is_found_by_a_look() {
    let (broker, port) = RabbitMq::shared_managed();
    let destination = Destination::new(broker, &["#"], FieldTable::default());
    let management = Management { address: Broker { host: "127.0.0.1".to_owned(), port }, is_encrypted: false };
    let options = Options { management: Some(management), ..destination.options() };
    saved(&options, [1]).await;
    for (name, value) in [("message-ttl", 3_600_000), ("expires", 3_600_000), ("max-length", 1), ("max-length-bytes", 100_000)] {
        let policy = format!("loses-{}", destination.name);
        let (pattern, definition) = (format!("^{}$", queue(&destination)), format!("{{\"{name}\":{value}}}"));
        broker.ctl(&["set_policy", &policy, &pattern, &definition, "--apply-to", "queues"]);
        let error = persist(async || match Store::preflight(&options).await {
            Err(error) if error.to_string().contains(&format!("x-{name},")) => Ok(error),
            // The API shows a policy a moment later.
            other => {
                let reason = format!("{name} is not shown: {other:?}");
                Err(CheckpointError::Broker(feedline::sink::amqp::Error::Unconfirmed { reason }))
            }
        });
        let error = error.await.unwrap();
        assert_eq!((error.code(), error.fault()), (Code::CheckpointPlaceUnfit, Fault::Fatal), "{error}");
        broker.ctl(&["clear_policy", &policy]);
    }
}

/// A queue of somebody else under a lock's name is no other instance.
#[tokio::test]
async fn a_queue_with_the_name_of_a_lock_is_named_as_what_it_is() {
    let destination = place();
    for (lock, of_events) in [(format!("{}.lock", destination.name), true), (format!("{}.lock", queue(&destination)), false)] {
        let name = lock.clone();
        destination.with_channel(async move |channel| {
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(name.as_str().into(), durable, FieldTable::default()).await.unwrap();
        });
        let (code, said) = if of_events {
            let error = super::connector(destination.options()).verify().await.unwrap_err();
            assert_eq!(error.fault(), Fault::Fatal, "{error}");
            let foreseen = super::connector(destination.options()).preflight().await.unwrap();
            assert!(foreseen.refusals.iter().any(|refusal| refusal.message == error.to_string()), "{foreseen:?}");
            (error.code(), error.to_string())
        } else {
            let error = Store::new(destination.options()).load().await.unwrap_err();
            assert_eq!(error.fault(), Fault::Fatal, "{error}");
            (error.code(), error.to_string())
        };
        assert_eq!(code, Code::QueueUnfit, "{said}");
        assert!(said.contains(&lock) && said.contains("somebody else"), "{said}");
        // The remedy.
        destination.with_channel(async move |channel| {
            channel.queue_delete(lock.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        });
    }
    super::connector(destination.options()).verify().await.unwrap();
    assert_eq!(found(&destination.options()).await.unwrap(), None);
}
