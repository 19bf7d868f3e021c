//! The checkpoint store in a Kafka topic.

use super::{contract, in_kafka, numbered, of_kafka, persist, settled};
use crate::servers::kafka::Kafka;
use feedline::checkpoint::CheckpointStore;
use feedline::fault::{Classify, Code, Fault};
use feedline::sink::kafka;
use feedline::status::metrics::Metrics;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test]
async fn a_topic_fulfils_the_contract() {
    let options = in_kafka(Kafka::shared(), true);
    contract(|| of_kafka(&options)).await;
    let topic = format!("{}.checkpoint", options.pipeline);
    let partitions: std::collections::BTreeSet<i32> = tokio::task::spawn_blocking(move || Kafka::shared().read_topic(&topic))
        .await
        .unwrap()
        .iter()
        .map(|record| record.partition)
        .collect();
    assert_eq!(partitions, [0].into(), "one partition, although other topics have more");
}

/// A second process takes over. The first notices it with its next save, and writes nothing more.
#[tokio::test]
async fn a_process_that_opens_a_topic_fences_its_predecessor() {
    let options = in_kafka(Kafka::shared(), true);
    let (mut first, mut second) = (of_kafka(&options), of_kafka(&options));
    first.load().await.unwrap();
    first.save(&numbered(1)).await.unwrap();
    assert_eq!(second.load().await.unwrap(), Some(numbered(1)));
    second.save(&numbered(2)).await.unwrap();
    // At once, with its next save.
    let error = first.save(&numbered(99)).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::CheckpointTaken, Fault::Fatal), "{error}");
    second.save(&numbered(3)).await.unwrap();
    assert_eq!(of_kafka(&options).load().await.unwrap(), Some(numbered(3)), "nothing of the first process was stored in between");
}

/// An aborted transaction leaves offsets behind the last record. The end of the topic is known at once all the same.
#[tokio::test]
async fn a_topic_is_read_to_its_end_also_after_aborted_transactions() {
    let options = in_kafka(Kafka::shared(), true);
    let mut store = of_kafka(&options);
    store.load().await.unwrap();
    store.save(&numbered(1)).await.unwrap();
    drop(store);
    let topic = format!("{}.checkpoint", options.pipeline);
    tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", Kafka::shared().bootstrap()).set("transactional.id", &topic);
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(Duration::from_secs(30)).unwrap();
        for _ in 0..3 {
            producer.begin_transaction().unwrap();
            producer.send(BaseRecord::to(&topic).key("a key").payload("aborted")).unwrap();
            producer.flush(Duration::from_secs(10)).unwrap();
            producer.abort_transaction(Duration::from_secs(10)).unwrap();
        }
    })
    .await
    .unwrap();
    let found = timeout(Duration::from_secs(10), of_kafka(&options).load()).await.expect("the end is known").unwrap();
    assert_eq!(found, Some(numbered(1)));
}

/// After a reset the checkpoint stays removed, also if an instance was running.
#[tokio::test]
async fn a_running_instance_does_not_undo_a_reset() {
    let options = in_kafka(Kafka::shared(), true);
    let mut first = of_kafka(&options);
    first.load().await.unwrap();
    first.save(&numbered(1)).await.unwrap();
    assert!(of_kafka(&options).remove().await.unwrap());
    let taken = settled(async || first.save(&numbered(2)).await).await.unwrap_err();
    assert_eq!((taken.code(), taken.fault()), (Code::CheckpointTaken, Fault::Fatal), "{taken}");
    assert_eq!(of_kafka(&options).load().await.unwrap(), None);
}

/// A broker that is killed between and during saves loses no confirmed checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_keeps_what_it_confirmed() {
    let mut broker = tokio::task::spawn_blocking(|| Kafka::start(&[])).await.unwrap();
    let options = in_kafka(&broker, true);
    let mut store = of_kafka(&options);
    store.load().await.unwrap();
    for kill in 1..=3 {
        store.save(&numbered(kill * 2)).await.unwrap();
        broker = tokio::task::spawn_blocking(move || {
            broker.kill();
            broker.restart();
            broker
        })
        .await
        .unwrap();
        let mut other = kafka::Options { pipeline: options.pipeline.clone(), ..options.clone() };
        other.create_topics = None;
        // Readers see a transaction a moment after its commit was answered.
        let inspect = async || persist(async || kafka::checkpoint::Store::inspect(&other, Metrics::new("shop").sink).await).await;
        timeout(Duration::from_secs(30), async { while inspect().await != Some(numbered(kill * 2)) {} }).await.unwrap();
        persist(async || store.save(&numbered(kill * 2 + 1)).await).await;
    }
    drop(store);
    assert_eq!(of_kafka(&options).load().await.unwrap(), Some(numbered(7)));
}

/// A topic that could lose the checkpoint, or that contains something else, is refused with the remedy.
#[tokio::test]
async fn an_unfit_topic_is_refused() {
    let refused = async |options: &kafka::Options| of_kafka(options).load().await.unwrap_err();
    let missing = refused(&in_kafka(Kafka::shared(), false)).await;
    assert_eq!((missing.code(), missing.fault()), (Code::CheckpointStoreUnfit, Fault::Fatal));
    assert!(missing.to_string().contains("--partitions 1") && missing.to_string().contains("cleanup.policy=compact"), "{missing}");
    for (partitions, settings, said) in
        [(3, [("cleanup.policy", "compact")], "must have one"), (1, [("cleanup.policy", "compact,delete")], "cleanup.policy")]
    {
        let options = in_kafka(Kafka::shared(), true);
        let topic = format!("{}.checkpoint", options.pipeline);
        tokio::task::spawn_blocking(move || Kafka::shared().create_topic(&topic, partitions, &settings)).await.unwrap();
        let error = refused(&options).await;
        assert_eq!((error.code(), error.fault()), (Code::CheckpointStoreUnfit, Fault::Fatal), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    let options = kafka::Options { create_topics: None, ..in_kafka(Kafka::shared(), true) };
    let topic = format!("{}.checkpoint", options.pipeline);
    let made = topic.clone();
    tokio::task::spawn_blocking(move || {
        Kafka::shared().create_topic(&made, 1, &[("cleanup.policy", "compact"), ("max.message.bytes", "3000")]);
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", Kafka::shared().bootstrap()).create().unwrap();
        producer.send(BaseRecord::to(&made).key("a key").payload("hello")).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
    })
    .await
    .unwrap();
    let foreign = refused(&options).await;
    assert_eq!(foreign.code(), Code::CheckpointCorrupt, "{foreign}");
    let mut store = of_kafka(&options);
    assert!(store.remove().await.unwrap(), "what is stored is removed, readable or not");
    store.save(&numbered(1)).await.unwrap();
    let mut wide = numbered(2);
    wide.feeds = (0..100).map(|table| (format!("public.table_{table}").into(), feedline::checkpoint::FeedState::Pending)).collect();
    let error = store.save(&wide).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::CheckpointUnwritable, Fault::Fatal), "{error}");
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
}
