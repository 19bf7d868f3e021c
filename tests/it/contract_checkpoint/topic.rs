//! The checkpoint in a topic of Kafka.

use super::{contract, in_kafka, numbered, of_kafka, persist};
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
async fn a_topic_keeps_it() {
    let options = in_kafka(Kafka::shared(), true);
    contract(|| of_kafka(&options)).await;
    let topic = format!("{}.checkpoint", options.pipeline);
    let partitions: std::collections::BTreeSet<i32> = tokio::task::spawn_blocking(move || Kafka::shared().read_topic(&topic))
        .await
        .unwrap()
        .iter()
        .map(|record| record.partition)
        .collect();
    assert_eq!(partitions, [0].into(), "one partition, whatever other topics have");
}

/// The second process takes over from the first, which notices with its next save and writes nothing more.
#[tokio::test]
async fn who_opens_a_topic_keeps_its_predecessor_out() {
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
    assert_eq!(of_kafka(&options).load().await.unwrap(), Some(numbered(3)), "nothing of the first came between");
}

/// A transaction that was given up leaves offsets behind the last record: the end is known all the same, at once.
#[tokio::test]
async fn a_topic_is_read_to_its_end_whatever_lies_there() {
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
            producer.send(BaseRecord::to(&topic).key("a key").payload("given up")).unwrap();
            producer.flush(Duration::from_secs(10)).unwrap();
            producer.abort_transaction(Duration::from_secs(10)).unwrap();
        }
    })
    .await
    .unwrap();
    let looked = timeout(Duration::from_secs(10), of_kafka(&options).load()).await.expect("the end is known").unwrap();
    assert_eq!(looked, Some(numbered(1)));
}

/// What a person has forgotten stays forgotten, whoever ran then.
#[tokio::test]
async fn a_reset_is_not_undone_by_who_runs() {
    let options = in_kafka(Kafka::shared(), true);
    let mut first = of_kafka(&options);
    first.load().await.unwrap();
    first.save(&numbered(1)).await.unwrap();
    assert!(of_kafka(&options).remove().await.unwrap());
    let taken = loop {
        match first.save(&numbered(2)).await {
            Err(error) if error.fault() == Fault::Transient => tokio::time::sleep(Duration::from_millis(100)).await,
            other => break other.unwrap_err(),
        }
    };
    assert_eq!((taken.code(), taken.fault()), (Code::CheckpointTaken, Fault::Fatal), "{taken}");
    assert_eq!(of_kafka(&options).load().await.unwrap(), None);
}

/// A broker that dies between and during saves loses none that was confirmed.
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
        // A transaction is seen by readers a moment after its commit was answered.
        let look = async || persist(async || kafka::checkpoint::Store::inspect(&other, Metrics::new("shop").sink).await).await;
        timeout(Duration::from_secs(30), async { while look().await != Some(numbered(kill * 2)) {} }).await.unwrap();
        persist(async || store.save(&numbered(kill * 2 + 1)).await).await;
    }
    drop(store);
    assert_eq!(of_kafka(&options).load().await.unwrap(), Some(numbered(7)));
}

/// What would lose the checkpoint, or is none, is refused with the remedy.
#[tokio::test]
async fn an_unfit_topic_is_refused() {
    let refused = async |options: &kafka::Options| of_kafka(options).load().await.unwrap_err();
    let missing = refused(&in_kafka(Kafka::shared(), false)).await;
    assert_eq!((missing.code(), missing.fault()), (Code::CheckpointPlaceUnfit, Fault::Fatal));
    assert!(missing.to_string().contains("--partitions 1") && missing.to_string().contains("cleanup.policy=compact"), "{missing}");
    for (partitions, settings, said) in
        [(3, [("cleanup.policy", "compact")], "must have one"), (1, [("cleanup.policy", "compact,delete")], "cleanup.policy")]
    {
        let options = in_kafka(Kafka::shared(), true);
        let topic = format!("{}.checkpoint", options.pipeline);
        tokio::task::spawn_blocking(move || Kafka::shared().create_topic(&topic, partitions, &settings)).await.unwrap();
        let error = refused(&options).await;
        assert_eq!((error.code(), error.fault()), (Code::CheckpointPlaceUnfit, Fault::Fatal), "{error}");
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
    assert!(store.remove().await.unwrap(), "what is there is forgotten, readable or not");
    store.save(&numbered(1)).await.unwrap();
    let mut wide = numbered(2);
    wide.feeds = (0..100).map(|table| (format!("public.table_{table}").into(), feedline::checkpoint::FeedState::Pending)).collect();
    let error = store.save(&wide).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::CheckpointUnwritable, Fault::Fatal), "{error}");
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
}
