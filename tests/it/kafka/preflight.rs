//! What a look at a real broker finds before anything is sent.

use super::{connector, options};
use crate::contract_sink::{feed, feeds, open};
use crate::servers::kafka::Kafka;
use feedline::event::{Operation, Operations};
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::{Feed, Feeds};
use feedline::net::secret::Secret;
use feedline::preflight::Findings;
use feedline::sink::SinkConnector;
use feedline::sink::kafka::{CreateTopics, Options};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// A topic of its own on the shared broker.
fn topic(partitions: i32, settings: &[(&str, &str)]) -> String {
    let topic = Kafka::unique("foreseen.orders");
    std::thread::scope(|scope| scope.spawn(|| Kafka::shared().create_topic(&topic, partitions, settings)).join().unwrap());
    topic
}

async fn preflight(options: Options, feeds: Vec<Feed>) -> Findings {
    connector(options, Arc::new(Feeds::new(feeds))).preflight().await.unwrap()
}

fn warns(findings: &Findings, code: Code, words: &[&str]) -> bool {
    findings.warnings.iter().any(|warning| warning.code == code && words.iter().all(|word| warning.message.contains(word)))
}

fn refuses(findings: &Findings, code: Code, words: &[&str]) -> bool {
    findings.refusals.iter().any(|refusal| refusal.code == code && words.iter().all(|word| refusal.message.contains(word)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_ahead_says_what_is_made_and_what_topics_forget() {
    let compacted = topic(2, &[("cleanup.policy", "compact"), ("unclean.leader.election.enable", "true"), ("max.message.bytes", "5000")]);
    let forgetting = topic(1, &[("retention.ms", "7200000")]);
    let missing = Kafka::unique("missing");
    let with = |create_topics| Options { create_topics, ..options(&Kafka::shared().bootstrap()) };
    let create = Some(CreateTopics { partitions: 3, replication: 1, config: BTreeMap::new() });
    let partial = Feed { leaves_values_out: true, ..feed("a", &compacted) };
    let looked = preflight(with(create.clone()), vec![partial.clone(), feed("b", &forgetting), feed("c", &missing)]).await;
    for action in
        [["3 partitions", missing.as_str()], ["2 partitions, max.message.bytes 5000", &compacted], ["1 partition, max", &forgetting]]
    {
        let is_said = looked.actions.iter().any(|said| action.iter().all(|word| said.contains(word)));
        assert!(is_said, "{action:?} in {looked:#?}");
    }
    for (code, words) in [
        (Code::TopicForgets, [compacted.as_str(), "unchanged"]),
        (Code::TopicForgets, [compacted.as_str(), "truncates"]),
        (Code::TopicForgets, [forgetting.as_str(), "2 hours"]),
        (Code::TopicForgets, [missing.as_str(), "168 hours"]),
        (Code::TopicFragile, [compacted.as_str(), "unclean.leader.election.enable"]),
    ] {
        assert!(warns(&looked, code, &words), "{code} {words:?} in {looked:#?}");
    }
    assert!(looked.refusals.is_empty(), "{looked:#?}");

    // The advice depends on the feed.
    let whole = Feed { operations: Operations::from_bits(1).unwrap(), ..partial };
    let looked = preflight(with(create.clone()), vec![whole]).await;
    assert!(!warns(&looked, Code::TopicForgets, &["unchanged"]) && !warns(&looked, Code::TopicForgets, &["truncates"]), "{looked:#?}");
    let looked = preflight(Options { tombstones: false, ..with(create) }, vec![feed("a", &compacted)]).await;
    assert!(warns(&looked, Code::TopicForgets, &["tombstones"]), "{looked:#?}");

    // A look made nothing; and what is missing is no reason not to look at the rest.
    let looked = preflight(with(None), vec![feed("b", &forgetting), feed("c", &missing), feed("d", "a b"), feed("e", "c d")]).await;
    assert!(refuses(&looked, Code::TopicMissing, &[&missing, "sink.create_topics"]), "{looked:#?}");
    assert!(refuses(&looked, Code::DestinationInvalid, &["a b"]) && refuses(&looked, Code::DestinationInvalid, &["c d"]), "{looked:#?}");
    assert!(warns(&looked, Code::TopicForgets, &[&forgetting]), "{looked:#?}");
}

/// A feed with a topic for each operation.
fn parted(name: &str, operations: u8) -> Feed {
    let destinations = Operation::ALL.map(|operation| format!("{name}.{}", operation.name()).into());
    Feed { operations: Operations::from_bits(operations).unwrap(), destinations, ..feed("t", name) }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_for_the_operations_that_come_and_as_they_are_configured() {
    let kafka = Kafka::shared();
    let config = [("cleanup.policy", "compact"), ("min.insync.replicas", "1"), ("retention.ms", "-1")];
    let config: BTreeMap<String, String> = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let with = |config: BTreeMap<String, String>| Options {
        create_topics: Some(CreateTopics { partitions: 1, replication: 1, config }),
        ..options(&kafka.bootstrap())
    };
    for (operations, expected) in [(1, &["insert", "read", "reset"][..]), (4, &["delete", "insert", "read", "reset", "update"])] {
        let name = Kafka::unique("parted");
        let looked = preflight(with(config.clone()), vec![parted(&name, operations)]).await;
        assert_eq!(warns(&looked, Code::TopicsParted, &["{operation}"]), 1 < operations, "{looked:#?}");
        // Compaction was chosen: nothing is told of the broker's retention.
        assert!(!warns(&looked, Code::TopicForgets, &["hours"]), "{looked:#?}");
        assert!(looked.actions.iter().any(|action| action.contains("cleanup.policy=compact")), "{looked:#?}");
        let mut connector = connector(with(config.clone()), Arc::new(Feeds::new(vec![parted(&name, operations)])));
        connector.verify().await.unwrap();
        let made = std::thread::scope(|scope| scope.spawn(|| kafka.topics()).join().unwrap());
        let mut made: Vec<_> = made.iter().filter_map(|topic| topic.strip_prefix(&format!("{name}."))).collect();
        made.sort_unstable();
        assert_eq!(made, expected);
        drop(open(&mut connector).await);
        let looked = preflight(with(BTreeMap::new()), vec![parted(&name, operations)]).await;
        assert!(!warns(&looked, Code::TopicForgets, &["retention.ms"]), "as they were made: {looked:#?}");
    }
    // Few replicas for what was chosen, and what the cluster refuses, are found before anything is made.
    let looked =
        preflight(with(BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())])), vec![feed("t", "few.replicas")]).await;
    assert!(refuses(&looked, Code::TopicFragile, &["few.replicas", "min.insync.replicas is 2"]), "{looked:#?}");
    let looked =
        preflight(with(BTreeMap::from([("min.cleanable.dirty.ratio".to_owned(), "7".to_owned())])), vec![feed("t", "odd.ratio")]).await;
    assert!(refuses(&looked, Code::TopicNotCreated, &["odd.ratio", "sink.create_topics"]), "{looked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_advised_as_many_replicas_as_there_are_brokers() {
    let looked = preflight(options(&Kafka::shared().bootstrap()), vec![feed("t", "nobody.made.it")]).await;
    assert!(refuses(&looked, Code::TopicMissing, &["--topic nobody.made.it --partitions 3 --replication-factor 1"]), "{looked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_reached_although_no_topic_is_asked_for() {
    let looked = preflight(options(&Kafka::shared().bootstrap()), Vec::new()).await;
    assert!(looked.actions.is_empty() && looked.refusals.is_empty(), "{looked:#?}");
    let nowhere = options(&format!("127.0.0.1:{}", crate::servers::port::free()));
    let error = connector(nowhere, feeds(&[])).preflight().await.unwrap_err();
    assert_eq!(error.code(), Code::SinkUnreachable);
}

/// A broker that asks for users, and knows `poor`, to whom nothing is granted at first.
pub(super) fn guarded() -> &'static Kafka {
    static GUARDED: OnceLock<Kafka> = OnceLock::new();
    GUARDED.get_or_init(Kafka::start_guarded)
}

pub(super) fn as_poor(kafka: &Kafka) -> Options {
    let properties = [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "PLAIN"), ("sasl.username", "poor")];
    Options {
        properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        sasl_password: Some(Secret::new("secret".to_owned())),
        ..options(&kafka.guarded_bootstrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_to_whom_nothing_is_granted_is_refused_by_name() {
    let kafka = guarded();
    let topic = Kafka::unique("guarded.orders");
    std::thread::scope(|scope| scope.spawn(|| kafka.create_topic(&topic, 1, &[])).join().unwrap());
    let list = || vec![feed("orders", &topic), feed("other", "guarded.other")];
    let looked = preflight(as_poor(kafka), list()).await;
    assert!(refuses(&looked, Code::SinkPrivilege, &[&topic, "guarded.other", "authorization failed", "grant Describe"]), "{looked:#?}");
    let error = connector(as_poor(kafka), Arc::new(Feeds::new(list()))).verify().await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SinkPrivilege, Fault::Fatal), "{error}");

    let wrong = Options { sasl_password: Some(Secret::new("wrong".to_owned())), ..as_poor(kafka) };
    let error = connector(wrong, feeds(&[])).preflight().await.unwrap_err();
    assert_eq!(error.code(), Code::SinkAuthentication, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_look_and_not_write_is_refused_by_the_first_record() {
    use crate::contract_sink::{Builder, DEADLINE, Settling, Spec};
    use feedline::sink::Sink as _;
    let kafka = guarded();
    let topic = Kafka::unique("described.orders");
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            kafka.create_topic(&topic, 1, &[]);
            kafka.grant("poor", &["Describe"], &topic);
        });
        made.join().unwrap();
    });
    let looked = preflight(as_poor(kafka), vec![feed("orders", &topic)]).await;
    assert!(looked.refusals.is_empty(), "writing cannot be asked about without writing: {looked:#?}");
    assert!(warns(&looked, Code::SinkPrivilege, &["DescribeConfigs", "were not looked at"]), "{looked:#?}");
    assert!(looked.actions.iter().any(|action| action.contains("max.message.bytes not shown")), "{looked:#?}");

    let mut connector = connector(as_poor(kafka), Arc::new(Feeds::new(vec![feed("orders", &topic)])));
    connector.verify().await.unwrap();
    let mut sink = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    // A client that learns of it at once refuses the batch itself.
    let submitted = super::submit(&mut sink, &mut builder, &settling, &[Spec::insert("shop/1", "1", "a")]).await;
    let failure = if let Err(error) = submitted {
        error
    } else {
        assert!(!tokio::time::timeout(DEADLINE, settling.next()).await.unwrap().confirmed);
        sink.failure()
    };
    assert_eq!((failure.code(), failure.fault()), (Code::SinkPrivilege, Fault::Fatal), "{failure}");
    assert!(failure.to_string().contains("grant Describe and Write"), "{failure}");
}
