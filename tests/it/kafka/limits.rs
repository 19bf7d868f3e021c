//! Limits of topics: record size, timestamps and partitions, also if they change while a session is open.

use super::preflight::{as_poor, guarded};
use super::real::{Real, aside};
use super::{connector, options, submit, text};
use crate::contract_sink::{Builder, DEADLINE, Settling, Spec, Subject as _, feed, open};
use crate::servers::kafka::Kafka;
use feedline::batch::Batch;
use feedline::event::{Operation, Timestamp};
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::Feeds;
use feedline::sink::kafka::{Connector, CreateTopics, Options, Stamp};
use feedline::sink::{Sink, SinkConnector};
use feedline::status::metrics::{DeadLetter, Metrics};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long it may take until a host name is known not to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_mins(2);

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", Kafka::shared().bootstrap()).create().unwrap()
}

async fn set(topic: &str, name: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
    admin().alter_configs([&change], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}

/// Sends batches in as many sessions as it takes. Returns how many of them failed, all with a transient error.
async fn deliver(connector: &mut Connector, batches: &[Arc<Batch>]) -> usize {
    let mut unconfirmed: Vec<_> = batches.to_vec();
    for failures in 0..25 {
        let (mut sink, mut settling) = (open(connector).await, Settling::new());
        let mut is_complete = true;
        for batch in unconfirmed.clone() {
            let submitted = timeout(DEADLINE, sink.submit(Arc::clone(&batch), settling.ack(&batch, 1))).await.unwrap();
            if submitted.is_err() || !settling.next().await.confirmed {
                is_complete = false;
                break;
            }
            unconfirmed.remove(0);
        }
        if is_complete {
            timeout(DEADLINE, sink.close()).await.unwrap().unwrap();
            return failures;
        }
        let failure = sink.failure();
        assert!(failure.fault() == Fault::Transient && sink.has_learnt(), "{failure}");
    }
    panic!("the batches are never confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_lowered_while_running_is_read_again_and_every_record_that_fits_is_sent() {
    let real = Real::new(1, &[]);
    let dead_letter: Arc<str> = format!("{}.dead", real.topic).into();
    let create_topics = Some(CreateTopics { partitions: 1, replication: 1, config: BTreeMap::new() });
    let options = Options { create_topics, dead_letter: Some(dead_letter), ..options(&Kafka::shared().bootstrap()) };
    let metrics = Metrics::new("shop").sink;
    let mut connector = Connector::new(options, metrics.clone());
    connector.select(real.feeds());
    connector.establish().await.unwrap();
    set(&real.topic, "max.message.bytes", "5000").await;
    let (mut builder, body) = (Builder::new(), "x".repeat(1000));
    let batch = builder.batch(&vec![Spec::insert("shop/1", "{}", &body); 500]).await;
    let failures = deliver(&mut connector, &[batch]).await;
    assert!(failures <= 1, "{failures} sessions");
    assert_eq!(real.bodies().len(), 500, "each once");
    assert_eq!(metrics.dead_letters(DeadLetter::Refused) + metrics.dead_letters(DeadLetter::TooLarge), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_made_smaller_before_a_record_counts_as_refused_if_no_limit_is_shown() {
    let kafka = guarded();
    let topic = Kafka::unique("unshown.orders");
    aside(|| {
        kafka.create_topic(&topic, 1, &[("max.message.bytes", "5000")]);
        kafka.grant("poor", &["Describe", "Write"], &topic);
    });
    let mut connector = connector(as_poor(kafka), Arc::new(Feeds::new(vec![feed("orders", &topic)])));
    let (mut builder, body) = (Builder::new(), "x".repeat(1000));
    let batches = [builder.batch(&vec![Spec::insert("shop/1", "{}", &body); 300]).await];
    assert!(deliver(&mut connector, &batches).await <= 10);
    let sent = aside(|| kafka.read_topic(&topic)).len();
    assert_eq!(sent, 300, "each once");
    // A record that does not fit is refused.
    let large = builder.batch(&[Spec::insert("shop/2", "{}", &"x".repeat(6000))]).await;
    for _ in 0..15 {
        let (mut sink, mut settling) = (open(&mut connector).await, Settling::new());
        sink.submit(Arc::clone(&large), settling.ack(&large, 1)).await.ok();
        assert!(!settling.next().await.confirmed);
        let failure = sink.failure();
        if failure.fault() == Fault::Fatal {
            assert_eq!(failure.code(), Code::RecordRefused, "{failure}");
            return;
        }
    }
    panic!("the record never counts as refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_fits_when_compressed_is_sent_and_one_that_does_not_is_named() {
    let small = Real::new(1, &[("max.message.bytes", "5000")]);
    let properties = BTreeMap::from([("compression.type".to_owned(), "zstd".to_owned())]);
    let mut connector = connector(Options { properties, ..options(&Kafka::shared().bootstrap()) }, small.feeds());
    connector.establish().await.unwrap();
    let mut sink = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let fits = "x".repeat(3_000_000);
    let records = [Spec::insert("shop/1", "1", "a"), Spec::insert("shop/2", "2", &fits), Spec::insert("shop/3", "3", "b")];
    submit(&mut sink, &mut builder, &settling, &records).await.unwrap();
    assert!(settling.next().await.confirmed);
    let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(20_000).collect();
    let error = submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/4", "4", &noise)]).await.unwrap_err();
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::RecordTooLarge), "{error}");
    assert!(error.to_string().contains("shop/4") && error.to_string().contains("5000"), "{error}");
    let lengths: Vec<usize> = small.bodies().iter().map(String::len).collect();
    assert_eq!(lengths, [1, 3_000_000, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_commit_time_is_ahead_is_sent_with_the_present_time() {
    let real = Real::new(1, &[("message.timestamp.after.max.ms", "3600000")]);
    let mut connector = connector(options(&Kafka::shared().bootstrap()), real.feeds());
    connector.establish().await.unwrap();
    let mut sink = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let now = Timestamp::now().millis();
    let at = |seconds: i64| Timestamp((now + seconds * 1000) * 1000);
    let records = [(60, "a"), (7200, "ahead"), (-60, "b")]
        .map(|(seconds, body)| Spec { committed: at(seconds), ..Spec::insert("shop/1", "1", body) });
    submit(&mut sink, &mut builder, &settling, &records).await.unwrap();
    assert!(settling.next().await.confirmed);
    sink.close().await.unwrap();
    let records = aside(|| Kafka::shared().read_topic(&real.topic));
    let times: Vec<i64> = records.iter().map(|record| record.timestamp.unwrap()).collect();
    assert_eq!((times[0], times[2]), (now + 60_000, now - 60_000));
    assert!((now..now + 120_000).contains(&times[1]), "{times:?} at {now}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_old_is_named_and_is_accepted_with_the_present_time() {
    let young = Real::new(1, &[("message.timestamp.before.max.ms", "3600000")]);
    let with = |stamp| connector(Options { stamp, ..options(&Kafka::shared().bootstrap()) }, young.feeds());
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let mut connector = with(Stamp::Commit);
    connector.establish().await.unwrap();
    let mut sink = open(&mut connector).await;
    let error = submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/1", "1", "a")]).await.unwrap_err();
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::RecordRefused), "{error}");
    for part in ["shop/1", "public.orders", &young.topic, "3600000", "message.timestamp.before.max.ms", "sink.timestamp = \"append\""] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert!(!settling.next().await.confirmed);
    drop(sink);
    // The remedy in the message works.
    let mut connector = with(Stamp::Append);
    connector.establish().await.unwrap();
    let mut sink = open(&mut connector).await;
    let now = Timestamp::now().millis();
    submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/1", "1", "a")]).await.unwrap();
    assert!(settling.next().await.confirmed);
    let times: Vec<_> = aside(|| Kafka::shared().read_topic(&young.topic)).iter().map(|record| record.timestamp.unwrap()).collect();
    assert!(matches!(times[..], [time] if now <= time), "{times:?} at {now}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_reaches_partitions_that_were_just_added() {
    let (real, mut builder, mut settling) = (Real::new(1, &[]), Builder::new(), Settling::new());
    let mut connector = connector(options(&Kafka::shared().bootstrap()), real.feeds());
    let mut sink = open(&mut connector).await;
    let truncate = |id| Spec { operation: Operation::Truncate, ..Spec::insert(id, "null", id) };
    submit(&mut sink, &mut builder, &settling, &[truncate("shop/1")]).await.unwrap();
    assert!(settling.next().await.confirmed);
    admin().create_partitions([&NewPartitions::new(&real.topic, 3)], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    submit(&mut sink, &mut builder, &settling, &[truncate("shop/2")]).await.unwrap();
    assert!(settling.next().await.confirmed);
    sink.close().await.unwrap();
    let found: Vec<_> = aside(|| Kafka::shared().read_topic(&real.topic))
        .into_iter()
        .map(|record| (record.partition, text(&record.value.unwrap())))
        .collect();
    assert_eq!(found, [(0, "shop/1"), (0, "shop/2"), (1, "shop/2"), (2, "shop/2")].map(|(partition, id)| (partition, id.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_whose_host_name_does_not_resolve_are_named() {
    let kafka = aside(|| Kafka::start(&[("advertised.listeners", "PLAINTEXT://no-such-broker.invalid:9092")]));
    let create_topics = Some(CreateTopics { partitions: 1, replication: 1, config: BTreeMap::new() });
    let mut connector =
        connector(Options { create_topics, ..options(&kafka.bootstrap()) }, Arc::new(Feeds::new(vec![feed("orders", "orders")])));
    let findings = timeout(RESOLVE_TIMEOUT, connector.preflight()).await.unwrap().unwrap();
    let is_named = |code, message: &str| code == Code::SinkUnreachable && message.contains("no-such-broker.invalid");
    assert!(findings.refusals.iter().any(|refusal| is_named(refusal.code, &refusal.message)), "{findings:#?}");
    let error = timeout(RESOLVE_TIMEOUT, connector.establish()).await.unwrap().unwrap_err();
    assert!(error.fault() == Fault::Transient && is_named(error.code(), &error.to_string()), "{error}");
}
