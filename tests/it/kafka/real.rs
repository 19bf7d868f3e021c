//! A real broker: what mock brokers do not support, and brokers that are killed or hang.

use super::{TOPIC, connector, options, submit, text};
use crate::contract_sink::{Builder, DEADLINE, Settling, Spec, Subject, contract, feed, feeds, open};
use crate::servers::kafka::Kafka;
use feedline::event::{Operation, Timestamp};
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::Feeds;
use feedline::sink::kafka::consume::{Span, consume};
use feedline::sink::kafka::{Connector, CreateTopics, Options, Session};
use feedline::sink::{Consumed, Sink, SinkConnector};
use feedline::status::metrics::{DeadLetter, Metrics};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Runs `work` on another thread: it drives a tokio runtime of its own.
pub(super) fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// A new topic of the shared broker.
pub(super) struct Real {
    pub(super) topic: String,
}

impl Real {
    pub(super) fn new(partitions: i32, settings: &[(&str, &str)]) -> Self {
        let topic = Kafka::unique("sink.orders");
        aside(|| Kafka::shared().create_topic(&topic, partitions, settings));
        Self { topic }
    }

    /// A verified session.
    async fn session(&self, options: Options) -> (Connector, Session) {
        let mut connector = connector(options, self.feeds());
        timeout(DEADLINE, connector.establish()).await.unwrap().unwrap();
        let session = open(&mut connector).await;
        (connector, session)
    }

    pub(super) fn bodies(&self) -> Vec<String> {
        Kafka::shared().read_topic(&self.topic).into_iter().filter_map(|record| record.value).map(|value| text(&value)).collect()
    }
}

impl Subject for Real {
    type Connector = Connector;

    fn connector(&self) -> Connector {
        Connector::new(options(&Kafka::shared().bootstrap()), Metrics::new("shop").sink)
    }

    fn feeds(&self) -> Arc<Feeds> {
        Arc::new(Feeds::new(vec![feed("orders", &self.topic)]))
    }

    fn read_back(&self) -> Vec<(String, String)> {
        let records = Kafka::shared().read_topic(&self.topic).into_iter();
        records.map(|record| (text(&record.key.unwrap()), text(&record.value.unwrap()))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_broker_keeps_the_contract() {
    contract(Real::new(4, &[]), Real::new(4, &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_if_configured_and_the_cluster_is_known_by_its_id() {
    let kafka = Kafka::shared();
    let topics = [Kafka::unique("made."), Kafka::unique("made.")];
    let feeds = Arc::new(Feeds::new(topics.iter().map(|topic| feed("orders", topic)).collect()));
    let create_topics = Some(CreateTopics { partitions: 3, replication: 1, config: BTreeMap::new() });
    let mut connector = connector(Options { create_topics, ..options(&kafka.bootstrap()) }, feeds);
    for _ in 0..2 {
        let identity = timeout(DEADLINE, connector.establish()).await.unwrap().unwrap();
        assert_eq!(identity.get("kafka_cluster").map(String::as_str), Some(kafka.cluster_id()));
    }
    let existing = kafka.topics();
    assert!(topics.iter().all(|topic| existing.contains(topic)), "{existing:?}");
    let mut sink = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let truncate = Spec { operation: Operation::Truncate, ..Spec::insert("shop/1", "null", "{}") };
    submit(&mut sink, &mut builder, &settling, &[truncate]).await.unwrap();
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
    assert!(settling.next().await.confirmed);
    let partitions: Vec<i32> = kafka.read_topic(&topics[0]).iter().map(|record| record.partition).collect();
    assert_eq!(partitions, [0, 1, 2], "one copy for each configured partition");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_needs_more_brokers_is_a_transient_error() {
    let topic = Kafka::unique("unmade.");
    let feeds = Arc::new(Feeds::new(vec![feed("orders", &topic)]));
    let create_topics = Some(CreateTopics { partitions: 3, replication: 3, config: BTreeMap::new() });
    let mut connector = connector(Options { create_topics, ..options(&Kafka::shared().bootstrap()) }, feeds);
    let error = connector.establish().await.unwrap_err();
    assert_eq!((error.fault(), error.code()), (Fault::Transient, Code::TopicNotCreated));
    let words = [topic.as_str(), "3 replicas", "1 are there"];
    assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
    let findings = connector.preflight().await.unwrap();
    assert!(findings.refusals.iter().any(|refusal| words.iter().all(|word| refusal.message.contains(word))), "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_topics_own_size_limit_counts() {
    let (small, large) = (Real::new(1, &[("max.message.bytes", "5000")]), Real::new(1, &[("max.message.bytes", "3000000")]));
    let feeds = Arc::new(Feeds::new(vec![feed("small", &small.topic), feed("large", &large.topic)]));
    let mut connector = connector(options(&Kafka::shared().bootstrap()), feeds);
    connector.establish().await.unwrap();
    let mut sink = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    // Together the records exceed the limit by far; a request must not.
    let body = "x".repeat(1000);
    submit(&mut sink, &mut builder, &settling, &vec![Spec::insert("shop/1", "{}", &body); 500]).await.unwrap();
    assert!(settling.next().await.confirmed);
    assert_eq!(small.bodies().len(), 500);
    let error = submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/2", "{}", &"x".repeat(5000))]).await.unwrap_err();
    assert!(error.to_string().contains("accepts 5000"), "{error}");
    assert_eq!(error.code(), Code::RecordTooLarge);
    // The bound is tight: a record just below it is accepted.
    let slack = 400;
    submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/3", "{}", &"x".repeat(5000 - slack))]).await.unwrap();
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
    assert!(!settling.next().await.confirmed);
    assert!(settling.next().await.confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_while_running_are_noticed() {
    let (real, mut builder, settling) = (Real::new(1, &[]), Builder::new(), Settling::new());
    let kafka = Kafka::shared();
    let metrics = Metrics::new("shop");
    let properties = BTreeMap::from([("topic.metadata.refresh.interval.ms".to_owned(), "200".to_owned())]);
    let mut connector = Connector::new(Options { properties, ..options(&kafka.bootstrap()) }, metrics.sink.clone());
    connector.select(real.feeds());
    let mut sink = open(&mut connector).await;
    submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/1", "{}", "1")]).await.unwrap();
    assert_eq!(metrics.sink.partitions_changed.get(), 0);
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
    admin.create_partitions([&NewPartitions::new(&real.topic, 3)], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while metrics.sink.partitions_changed.get() == 0 {
        assert!(Instant::now() < deadline, "the change is noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sink.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_or_hangs_loses_nothing_and_repeats_nothing() {
    let mut own = Kafka::start(&[]);
    aside(|| own.create_topic(TOPIC, 4, &[]));
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let mut connector = connector(options(&own.bootstrap()), feeds(&["orders"]));
    let mut sink = open(&mut connector).await;
    let mut next = 0;
    for round in 0..3 {
        for _ in 0..20 {
            let (id, body) = (format!("shop/{next}"), next.to_string());
            submit(&mut sink, &mut builder, &settling, &[Spec::insert(&id, "{\"id\":1}", &body)]).await.unwrap();
            next += 1;
            match (round, next % 20) {
                (1, 7) => own.kill(),
                (2, 7) => own.pause(),
                _ => {}
            }
        }
        match round {
            1 => own.restart(),
            2 => own.resume(),
            _ => {}
        }
        assert!(settling.take(20).await.values().all(|confirmed| *confirmed));
    }
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
    let bodies: Vec<String> = own.read_topic(TOPIC).into_iter().map(|record| text(&record.value.unwrap())).collect();
    assert_eq!(bodies, (0..next).map(|n: u32| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_ends_the_session_and_is_named() {
    let (real, mut builder, mut settling) = (Real::new(1, &[]), Builder::new(), Settling::new());
    let properties = [("topic.metadata.refresh.interval.ms", "200"), ("topic.metadata.propagation.max.ms", "500")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let (mut connector, mut sink) = real.session(Options { properties, ..options(&Kafka::shared().bootstrap()) }).await;
    submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/1", "{}", "1")]).await.unwrap();
    assert!(settling.next().await.confirmed);
    aside(|| Kafka::shared().delete_topics(&[&real.topic]));
    // The broker may confirm a few records until the deletion is complete; then the session ends.
    let deadline = Instant::now() + DEADLINE;
    let mut failure = loop {
        assert!(Instant::now() < deadline, "the session ends");
        if let Err(error) = submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/2", "{}", "2")]).await {
            break error;
        }
        if !settling.next().await.confirmed {
            break sink.failure();
        }
    };
    drop(sink);
    // A missing partition may be a transient error; the next session finds the topic missing.
    if failure.fault() == Fault::Transient {
        failure = connector.connect().await.err().unwrap();
    }
    assert_eq!((failure.fault(), failure.code()), (Fault::Fatal, Code::TopicMissing), "{failure}");
    assert!(failure.to_string().contains(&real.topic), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_becomes_a_dead_letter_if_configured() {
    let small = Real::new(1, &[("max.message.bytes", "5000")]);
    let dead_letter: Arc<str> = format!("{}.dead", small.topic).into();
    let create_topics = Some(CreateTopics { partitions: 1, replication: 1, config: BTreeMap::new() });
    let options = Options { create_topics, dead_letter: Some(Arc::clone(&dead_letter)), ..options(&Kafka::shared().bootstrap()) };
    let metrics = Metrics::new("shop").sink;
    let mut connector = Connector::new(options.clone(), metrics.clone());
    connector.select(small.feeds());
    timeout(DEADLINE, connector.establish()).await.unwrap().unwrap();
    let mut sink = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let large = "x".repeat(3_000_000);
    let records = [Spec::insert("shop/1", "1", "a"), Spec::insert("shop/2", "2", &large), Spec::insert("shop/3", "3", "b")];
    submit(&mut sink, &mut builder, &settling, &records).await.unwrap();
    assert!(settling.next().await.confirmed);
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
    assert_eq!(small.bodies(), ["a", "b"]);
    assert_eq!(metrics.dead_letters(DeadLetter::TooLarge), 1);
    let mut letters = Vec::new();
    let mut on_consumed = |event: Consumed| {
        letters.push(event);
        ControlFlow::Continue(())
    };
    consume(&options, &[dead_letter], Span::Present, &mut on_consumed).await.unwrap();
    let [letter] = letters.as_slice() else { panic!("{} letters", letters.len()) };
    let header = |name: &str| letter.headers.iter().find(|(header, _)| header == name).unwrap().1.as_str();
    assert_eq!((header("feedline-id"), header("feedline-destination")), ("shop/2", small.topic.as_str()));
    assert!(header("feedline-error").starts_with("FL3007 "));
    assert_eq!((letter.key.as_deref(), letter.body.as_ref().map(Vec::len)), (Some("2"), Some(3_000_000)));
}

/// A broker refuses the whole request and does not say which records are to blame. They are found, one per session, and the others
/// arrive. A delete and its tombstone have the same id, and are two records.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_becomes_a_dead_letter_if_configured() {
    let young = Real::new(1, &[("message.timestamp.before.max.ms", "3600000")]);
    let dead_letter: Arc<str> = format!("{}.dead", young.topic).into();
    let create_topics = Some(CreateTopics { partitions: 1, replication: 1, config: BTreeMap::new() });
    let options = Options { create_topics, dead_letter: Some(Arc::clone(&dead_letter)), ..options(&Kafka::shared().bootstrap()) };
    let metrics = Metrics::new("shop").sink;
    let mut connector = Connector::new(options.clone(), metrics.clone());
    connector.select(young.feeds());
    timeout(DEADLINE, connector.establish()).await.unwrap().unwrap();
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let now = |id, body| Spec { committed: Timestamp::now(), ..Spec::insert(id, "1", body) };
    let old = |id, body| Spec::insert(id, "2", body);
    let first = builder.batch(&[now("shop/1", "a"), now("shop/2", "b")]).await;
    let gone = Spec { operation: Operation::Delete, tombstone: true, ..old("shop/6", "gone") };
    let second = [now("shop/3", "c"), old("shop/4", "old"), now("shop/5", "d"), gone, old("shop/7", "older"), now("shop/8", "e")];
    let second = builder.batch(&second).await;
    let third = builder.batch(&[now("shop/9", "f"), old("shop/10", "oldest")]).await;

    let mut unconfirmed = std::collections::VecDeque::from([first, second, third]);
    let mut failures = Vec::new();
    let mut attempt = 0;
    let mut sink = 'sessions: loop {
        attempt += 1;
        let mut sink = open(&mut connector).await;
        for batch in unconfirmed.clone() {
            if sink.submit(Arc::clone(&batch), settling.ack(&batch, attempt)).await.is_err() || !settling.next().await.confirmed {
                failures.push(sink.failure().fault());
                assert!(sink.has_learnt(), "the next session handles the refusal");
                assert!(attempt < 10, "there are too many sessions: {failures:?}");
                drop(sink);
                settling = Settling::new();
                continue 'sessions;
            }
            unconfirmed.pop_front();
        }
        break sink;
    };
    // One session meets the first five, and four sessions find one each; two more sessions meet and find the last two.
    assert!(failures.len() <= 7 && failures.iter().all(|fault| *fault == Fault::Transient), "{failures:?}");
    assert_eq!(young.bodies(), ["a", "b", "c", "d", "e", "f"], "all others, in order, none twice");
    assert_eq!(metrics.dead_letters(DeadLetter::Refused), 5);
    let mut letters = Vec::new();
    let mut on_consumed = |event: Consumed| {
        letters.push(event);
        ControlFlow::Continue(())
    };
    consume(&options, &[dead_letter], Span::Present, &mut on_consumed).await.unwrap();
    let header = |letter: &Consumed, name: &str| letter.headers.iter().find(|(header, _)| header == name).unwrap().1.clone();
    let found: Vec<_> = letters.iter().map(|letter| (header(letter, "feedline-id"), letter.body.as_deref().map(text))).collect();
    let expected = [("4", Some("old")), ("6", Some("gone")), ("6", None), ("7", Some("older")), ("10", Some("oldest"))];
    assert_eq!(found, expected.map(|(id, body)| (format!("shop/{id}"), body.map(str::to_owned))), "each once");
    assert!(letters.iter().all(|letter| header(letter, "feedline-destination") == young.topic));
    assert!(letters.iter().all(|letter| header(letter, "feedline-error").starts_with("FL3008 ")));
    // Later batches are sent as usual.
    let last = builder.batch(&[now("shop/11", "g")]).await;
    sink.submit(Arc::clone(&last), settling.ack(&last, 1)).await.unwrap();
    assert!(settling.next().await.confirmed);
    timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
}
