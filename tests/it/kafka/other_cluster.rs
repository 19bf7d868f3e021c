//! Another cluster answers at the same address, or a topic of the same name was created again, while a session is open.

use super::real::{Real, aside};
use super::{connector, options, submit, text};
use crate::contract_checkpoint::persist;
use crate::contract_sink::{Builder, DEADLINE, Settling, Spec, Subject as _, feed, open};
use crate::servers::forwarder::Forwarder;
use crate::servers::kafka::Kafka;
use feedline::checkpoint::{Checkpoint, CheckpointStore, Identity, ResumeToken};
use feedline::event::Timestamp;
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::Feeds;
use feedline::sink::kafka::checkpoint::Store;
use feedline::sink::kafka::consume::{Span, consume};
use feedline::sink::kafka::{CreateTopics, Options};
use feedline::sink::{Consumed, Sink, SinkConnector};
use feedline::status::metrics::Metrics;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Two clusters that advertise the same address. A forwarder leads to one of them at a time.
struct Clusters {
    forwarder: Forwarder,
    ours: Kafka,
    other: Kafka,
}

impl Clusters {
    /// Locks the clusters for one test. The address leads to ours.
    async fn take() -> MutexGuard<'static, Self> {
        static CLUSTERS: OnceLock<Mutex<Clusters>> = OnceLock::new();
        let clusters = aside(|| {
            CLUSTERS.get_or_init(|| {
                let forwarder = Forwarder::start();
                let (ours, other) = (Kafka::start_behind(forwarder.port()), Kafka::start_behind(forwarder.port()));
                Mutex::new(Self { forwarder, ours, other })
            })
        });
        let clusters = clusters.lock().await;
        clusters.forwarder.lead_to(clusters.ours.outside_port());
        clusters
    }

    fn options(&self) -> Options {
        Options::plain(&format!("127.0.0.1:{}", self.forwarder.port()), "shop")
    }

    /// Creates a topic in both clusters.
    fn topic(&self) -> String {
        let topic = Kafka::unique("behind.orders");
        aside(|| [&self.ours, &self.other].map(|cluster| cluster.create_topic(&topic, 3, &[])));
        topic
    }

    fn lead_to_other(&self) {
        self.forwarder.lead_to(self.other.outside_port());
    }
}

/// A record with the present time: Kafka would delete one that is as old as other tests' records while the tests run.
fn insert<'s>(id: &'s str, key: &'s str, body: &'s str) -> Spec<'s> {
    Spec { committed: Timestamp::now(), ..Spec::insert(id, key, body) }
}

fn bodies(kafka: &Kafka, topic: &str) -> Vec<String> {
    let mut bodies: Vec<_> = aside(|| kafka.read_topic(topic)).into_iter().map(|record| text(&record.value.unwrap())).collect();
    bodies.sort();
    bodies
}

/// The session ends, and the next one names the other cluster.
#[tokio::test(flavor = "multi_thread")]
async fn confirmations_of_another_cluster_at_the_same_address_do_not_count() {
    let clusters = Clusters::take().await;
    let topic = clusters.topic();
    let mut connector = connector(clusters.options(), Arc::new(Feeds::new(vec![feed("orders", &topic)])));
    connector.establish().await.unwrap();
    let (mut sink, known) = timeout(DEADLINE, connector.connect()).await.unwrap().unwrap();
    assert_eq!(known.get("kafka_cluster").map(String::as_str), Some(clusters.ours.cluster_id()));
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    submit(&mut sink, &mut builder, &settling, &[insert("shop/1", "{}", "1")]).await.unwrap();
    assert!(settling.next().await.confirmed);

    clusters.lead_to_other();
    let mut batches = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    let failure = loop {
        assert!(Instant::now() < deadline, "the session ends");
        let (id, body) = (format!("shop/{}", batches.len() + 2), format!("{}", batches.len() + 2));
        let batch = builder.batch(&[insert(&id, "{}", &body)]).await;
        batches.push(Arc::clone(&batch));
        let submitted = timeout(DEADLINE, sink.submit(Arc::clone(&batch), settling.ack(&batch, 1))).await.unwrap();
        assert!(settling.so_far().iter().all(|settled| !settled.confirmed), "a confirmation of the other cluster counts");
        match submitted {
            Err(error) => break error,
            Ok(()) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(failure.fault(), Fault::Transient, "{failure}");
    assert!(failure.to_string().contains(clusters.other.cluster_id()), "{failure}");
    drop(sink);
    assert!(settling.so_far().iter().all(|settled| !settled.confirmed));

    // The next connect returns the error, also if the other cluster lacks the topics.
    let error = timeout(DEADLINE, connector.connect()).await.unwrap().err().unwrap();
    assert_eq!((error.fault(), error.code()), (Fault::Gap, Code::SinkForeign), "{error}");

    clusters.forwarder.lead_to(clusters.ours.outside_port());
    let mut settling = Settling::new();
    let mut sink = open(&mut connector).await;
    for batch in &batches {
        sink.submit(Arc::clone(batch), settling.ack(batch, 2)).await.unwrap();
    }
    assert!(settling.take(batches.len()).await.values().all(|confirmed| *confirmed));
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
    let mut expected: Vec<String> = (1..=batches.len() + 1).map(|n| n.to_string()).collect();
    expected.sort();
    assert_eq!(bodies(&clusters.ours, &topic), expected, "each once");
    assert!(!bodies(&clusters.other, &topic).is_empty(), "the other cluster received records");
}

/// Reconnecting to the same cluster repeats no record.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_after_reconnecting_to_the_same_cluster() {
    let clusters = Clusters::take().await;
    let topic = clusters.topic();
    let mut connector = connector(clusters.options(), Arc::new(Feeds::new(vec![feed("orders", &topic)])));
    let mut sink = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    for round in 0..5 {
        for n in 0..20 {
            let (id, body) = (format!("shop/{round}/{n}"), format!("{round}-{n:02}"));
            submit(&mut sink, &mut builder, &settling, &[insert(&id, "{}", &body)]).await.unwrap();
        }
        assert!(settling.take(20).await.values().all(|confirmed| *confirmed));
        clusters.forwarder.lead_to(clusters.ours.outside_port());
    }
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
    let expected: Vec<String> = (0..5).flat_map(|round| (0..20).map(move |n| format!("{round}-{n:02}"))).collect();
    assert_eq!(bodies(&clusters.ours, &topic), expected, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_another_cluster_confirmed_is_not_durable() {
    let clusters = Clusters::take().await;
    let create_topics = Some(CreateTopics { partitions: 1, replication: 1, config: BTreeMap::new() });
    let options = Options { create_topics, pipeline: Kafka::unique("behind").into(), ..clusters.options() };
    let mut store = Store::new(options.clone(), Metrics::new("shop").sink);
    assert_eq!(store.load().await.unwrap(), None);
    let mut checkpoint = Checkpoint::intent("shop", "instance".to_owned(), Identity::new(), "hash".to_owned());
    store.save(&checkpoint).await.unwrap();
    checkpoint.token = Some(ResumeToken("1".into()));
    store.save(&checkpoint).await.unwrap();
    let saved = checkpoint.clone();
    // The other cluster has such a topic too, and a producer with the same id.
    clusters.lead_to_other();
    let mut there = Store::new(options.clone(), Metrics::new("shop").sink);
    assert_eq!(persist(async || there.load().await).await, None);
    there.save(&saved).await.unwrap();
    checkpoint.token = Some(ResumeToken("2".into()));
    let deadline = Instant::now() + DEADLINE;
    loop {
        let error = store.save(&checkpoint).await.expect_err("a confirmation of the other cluster counts");
        if error.fault() != Fault::Transient {
            assert_eq!(error.code(), Code::SinkForeign, "{error}");
            break;
        }
        assert!(Instant::now() < deadline, "{error}");
    }
    clusters.forwarder.lead_to(clusters.ours.outside_port());
    let mut back = Store::new(options, Metrics::new("shop").sink);
    assert_eq!(persist(async || back.load().await).await, Some(saved));
}

#[tokio::test(flavor = "multi_thread")]
async fn consume_returns_no_records_of_another_cluster() {
    let clusters = Clusters::take().await;
    let topic: Arc<str> = clusters.topic().into();
    let mut connector = connector(clusters.options(), Arc::new(Feeds::new(vec![feed("orders", &topic)])));
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    // One record here, and two there.
    for (cluster, body) in [(&clusters.ours, "ours"), (&clusters.other, "theirs")] {
        clusters.forwarder.lead_to(cluster.outside_port());
        let mut sink = open(&mut connector).await;
        submit(&mut sink, &mut builder, &settling, &[insert("shop/1", "{}", body), insert("shop/2", "{}", body)]).await.unwrap();
        assert!(settling.next().await.confirmed);
        sink.close().await.unwrap();
    }
    clusters.forwarder.lead_to(clusters.ours.outside_port());
    let mut consumed = Vec::new();
    let mut on_consumed = |event: Consumed| {
        consumed.push(text(&event.body.unwrap()));
        clusters.lead_to_other();
        // All records of ours are consumed. Now records are added at the end of the other cluster's partitions.
        if consumed.len() == 2 {
            let producer: rdkafka::producer::BaseProducer =
                rdkafka::ClientConfig::new().set("bootstrap.servers", clusters.other.bootstrap()).create().unwrap();
            for partition in 0..3 {
                let record = rdkafka::producer::BaseRecord::to(&topic).key("k").payload("theirs").partition(partition);
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
            rdkafka::producer::Producer::flush(&producer, DEADLINE).unwrap();
        }
        ControlFlow::Continue(())
    };
    let error =
        timeout(DEADLINE, consume(&clusters.options(), &[Arc::clone(&topic)], Span::All, &mut on_consumed)).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::SinkForeign, "{error}");
    assert_eq!(consumed, ["ours", "ours"]);
}

/// No connection breaks, but the topic has another id.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_is_another_topic() {
    let (real, mut builder, mut settling) = (Real::new(1, &[]), Builder::new(), Settling::new());
    let kafka = Kafka::shared();
    let mut connector = connector(options(&kafka.bootstrap()), real.feeds());
    let before = connector.establish().await.unwrap();
    let (mut sink, same) = connector.connect().await.unwrap();
    assert_eq!(before, same);
    let id = |identity: &Identity| identity.get(&format!("kafka_topic:{}", real.topic)).cloned().expect("a topic has an id");
    submit(&mut sink, &mut builder, &settling, &[insert("shop/1", "{}", "1")]).await.unwrap();
    assert!(settling.next().await.confirmed);
    aside(|| {
        kafka.delete_topics(&[&real.topic]);
        kafka.create_topic(&real.topic, 1, &[]);
    });
    // No record is sent meanwhile.
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "the session ends");
        if submit(&mut sink, &mut builder, &settling, &[]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let failure = sink.failure();
    assert!(failure.fault() == Fault::Transient && failure.to_string().contains(&real.topic), "{failure}");
    drop(sink);
    let (_, after) = connector.connect().await.unwrap();
    assert_ne!(id(&before), id(&after));
    let checked = feedline::pipeline::agreement::check_sink(
        &Checkpoint { sink: before, ..Checkpoint::intent("shop", String::new(), Identity::new(), String::new()) },
        &after,
    );
    assert_eq!(checked.unwrap_err().code(), Code::DestinationAnew);
}
