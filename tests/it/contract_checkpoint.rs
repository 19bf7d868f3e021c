//! The contract of every checkpoint store: what was saved is loaded, and `None` means that there is no checkpoint.

mod queue;
mod topic;

use crate::servers::{kafka::Kafka, rabbitmq::RabbitMq};
use feedline::checkpoint::file::FileStore;
use feedline::checkpoint::{Checkpoint, CheckpointStore, Identity, ResumeToken};
use feedline::fault::{Classify, Code, Fault};
use feedline::sink::{amqp, kafka};
use feedline::status::metrics::Metrics;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

/// A checkpoint that differs from those with other numbers.
fn numbered(number: u32) -> Checkpoint {
    let mut checkpoint = Checkpoint::intent("shop", "instance".to_owned(), Identity::new(), "hash".to_owned());
    checkpoint.token = Some(ResumeToken(format!("token-{number}").into()));
    checkpoint.slice = number;
    checkpoint
}

/// Repeats an attempt while it fails with a transient fault, as the engine does.
pub(crate) async fn persist<T, E: Classify>(attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    settled(attempt).await.unwrap_or_else(|error| panic!("{} {error}", error.code()))
}

/// As [`persist`], and returns an error that is not transient.
pub(crate) async fn settled<T, E: Classify>(mut attempt: impl AsyncFnMut() -> Result<T, E>) -> Result<T, E> {
    let mut last = String::new();
    for _ in 0..300 {
        match attempt().await {
            Err(error) if error.fault() == Fault::Transient => last = error.to_string(),
            settled => return settled,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the fault does not pass: {last}")
}

/// The contract. Nothing is stored at first. `open` makes the store of a new process.
async fn contract<S: CheckpointStore<Error: Debug>>(mut open: impl FnMut() -> S) {
    let mut store = open();
    for _ in 0..2 {
        assert_eq!(store.load().await.unwrap(), None, "there is no checkpoint, and loading does not make one");
    }
    drop(store);
    for start in 0..3 {
        let mut store = open();
        let found = persist(async || store.load().await).await;
        assert_eq!(found.map(|found| found.slice), (0 < start).then_some(start * 10), "each start loads what was saved last");
        assert_eq!(
            store.load().await.unwrap().map(|found| found.slice),
            (0 < start).then_some(start * 10),
            "a second load returns the same"
        );
        for number in 1..=10 {
            store.save(&numbered(start * 10 + number)).await.unwrap();
        }
        assert_eq!(store.load().await.unwrap(), Some(numbered(start * 10 + 10)), "the newest checkpoint, complete");
    }
    let mut store = open();
    assert!(persist(async || store.remove().await).await, "there was one");
    assert!(!store.remove().await.unwrap(), "now there is none");
    drop(store);
    let mut store = open();
    assert_eq!(persist(async || store.load().await).await, None);
    store.save(&numbered(7)).await.unwrap();
    drop(store);
    let mut store = open();
    assert_eq!(persist(async || store.load().await).await, Some(numbered(7)), "after a removal a new checkpoint is stored");
}

#[tokio::test]
async fn a_file_fulfils_the_contract() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("contract-{}.checkpoint", std::process::id()));
    contract(|| FileStore::open(&path).unwrap()).await;
    std::fs::remove_file(path).unwrap();
}

fn in_kafka(broker: &Kafka, create: bool) -> kafka::Options {
    kafka::Options {
        create_topics: create.then_some(kafka::CreateTopics { partitions: 3, replication: 1, config: BTreeMap::new() }),
        ..kafka::Options::plain(&broker.bootstrap(), &Kafka::unique("kept"))
    }
}

fn of_kafka(options: &kafka::Options) -> kafka::checkpoint::Store {
    kafka::checkpoint::Store::new(options.clone(), Metrics::new("shop").sink)
}

fn in_rabbitmq(broker: &RabbitMq) -> amqp::Options {
    crate::amqp::destination::Destination::new(broker, &["#"], lapin::types::FieldTable::default()).options()
}

fn of_rabbitmq(options: &amqp::Options) -> amqp::checkpoint::Store {
    amqp::checkpoint::Store::new(options.clone())
}

/// A broker that cannot be reached is an error, and not a first start.
#[tokio::test]
async fn an_unreachable_broker_is_never_taken_for_no_checkpoint() {
    let unused = crate::servers::port::free();
    let mut options = in_kafka(Kafka::shared(), true);
    options.bootstrap_servers = format!("127.0.0.1:{unused}");
    let error = of_kafka(&options).load().await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SinkUnreachable, Fault::Transient), "{error}");
    let mut options = in_rabbitmq(RabbitMq::shared());
    options.addresses = vec![amqp::Address { host: "127.0.0.1".to_owned(), port: unused }];
    let error = of_rabbitmq(&options).load().await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SinkUnreachable, Fault::Transient), "{error}");
}
