//! Preflight against a real broker.

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

/// Creates a new topic on the shared broker.
fn topic(partitions: i32, settings: &[(&str, &str)]) -> String {
    let topic = Kafka::unique("preflight.orders");
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
async fn preflight_reports_new_topics_and_topics_that_delete_events() {
    let compacted = topic(2, &[("cleanup.policy", "compact"), ("unclean.leader.election.enable", "true"), ("max.message.bytes", "5000")]);
    let forgetting = topic(1, &[("retention.ms", "7200000")]);
    let missing = Kafka::unique("missing");
    let with = |create_topics| Options { create_topics, ..options(&Kafka::shared().bootstrap()) };
    let create = Some(CreateTopics { partitions: 3, replication: 1, config: BTreeMap::new() });
    let partial = Feed { leaves_values_out: true, ..feed("a", &compacted) };
    let findings = preflight(with(create.clone()), vec![partial.clone(), feed("b", &forgetting), feed("c", &missing)]).await;
    for action in
        [["3 partitions", missing.as_str()], ["2 partitions, max.message.bytes 5000", &compacted], ["1 partition, max", &forgetting]]
    {
        let is_reported = findings.actions.iter().any(|reported| action.iter().all(|word| reported.contains(word)));
        assert!(is_reported, "{action:?} in {findings:#?}");
    }
    for (code, words) in [
        (Code::TopicForgets, [compacted.as_str(), "unchanged"]),
        (Code::TopicForgets, [compacted.as_str(), "truncates"]),
        (Code::TopicForgets, [forgetting.as_str(), "2 hours"]),
        (Code::TopicForgets, [missing.as_str(), "168 hours"]),
        (Code::TopicFragile, [compacted.as_str(), "unclean.leader.election.enable"]),
    ] {
        assert!(warns(&findings, code, &words), "{code} {words:?} in {findings:#?}");
    }
    assert!(findings.refusals.is_empty(), "{findings:#?}");

    // The warnings depend on the feed.
    let whole = Feed { operations: Operations::from_bits(1).unwrap(), ..partial };
    let findings = preflight(with(create.clone()), vec![whole]).await;
    assert!(
        !warns(&findings, Code::TopicForgets, &["unchanged"]) && !warns(&findings, Code::TopicForgets, &["truncates"]),
        "{findings:#?}"
    );
    let findings = preflight(Options { tombstones: false, ..with(create) }, vec![feed("a", &compacted)]).await;
    assert!(warns(&findings, Code::TopicForgets, &["tombstones"]), "{findings:#?}");

    // Preflight created no topic, and a missing topic does not keep it from judging the others.
    let findings = preflight(with(None), vec![feed("b", &forgetting), feed("c", &missing), feed("d", "a b"), feed("e", "c d")]).await;
    assert!(refuses(&findings, Code::TopicMissing, &[&missing, "sink.create_topics"]), "{findings:#?}");
    assert!(
        refuses(&findings, Code::DestinationInvalid, &["a b"]) && refuses(&findings, Code::DestinationInvalid, &["c d"]),
        "{findings:#?}"
    );
    assert!(warns(&findings, Code::TopicForgets, &[&forgetting]), "{findings:#?}");
}

/// A feed with a topic for each operation.
fn parted(name: &str, operations: u8) -> Feed {
    let destinations = Operation::ALL.map(|operation| format!("{name}.{}", operation.name()).into());
    Feed { operations: Operations::from_bits(operations).unwrap(), destinations, ..feed("t", name) }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_for_the_feeds_operations_and_as_configured() {
    let kafka = Kafka::shared();
    let config = [("cleanup.policy", "compact"), ("min.insync.replicas", "1"), ("retention.ms", "-1")];
    let config: BTreeMap<String, String> = config.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let with = |config: BTreeMap<String, String>| Options {
        create_topics: Some(CreateTopics { partitions: 1, replication: 1, config }),
        ..options(&kafka.bootstrap())
    };
    for (operations, expected) in [(1, &["insert", "read", "reset"][..]), (4, &["delete", "insert", "read", "reset", "update"])] {
        let name = Kafka::unique("parted");
        let findings = preflight(with(config.clone()), vec![parted(&name, operations)]).await;
        assert_eq!(warns(&findings, Code::TopicsParted, &["{operation}"]), 1 < operations, "{findings:#?}");
        // Compaction is configured: the broker's retention does not matter.
        assert!(!warns(&findings, Code::TopicForgets, &["hours"]), "{findings:#?}");
        assert!(findings.actions.iter().any(|action| action.contains("cleanup.policy=compact")), "{findings:#?}");
        let mut connector = connector(with(config.clone()), Arc::new(Feeds::new(vec![parted(&name, operations)])));
        connector.establish().await.unwrap();
        let made = std::thread::scope(|scope| scope.spawn(|| kafka.topics()).join().unwrap());
        let mut made: Vec<_> = made.iter().filter_map(|topic| topic.strip_prefix(&format!("{name}."))).collect();
        made.sort_unstable();
        assert_eq!(made, expected);
        drop(open(&mut connector).await);
        let findings = preflight(with(BTreeMap::new()), vec![parted(&name, operations)]).await;
        assert!(!warns(&findings, Code::TopicForgets, &["retention.ms"]), "as they were created: {findings:#?}");
    }
    // Too few replicas, and settings that the cluster refuses, are found before a topic is created.
    let findings =
        preflight(with(BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())])), vec![feed("t", "few.replicas")]).await;
    assert!(refuses(&findings, Code::TopicFragile, &["few.replicas", "min.insync.replicas is 2"]), "{findings:#?}");
    let findings =
        preflight(with(BTreeMap::from([("min.cleanable.dirty.ratio".to_owned(), "7".to_owned())])), vec![feed("t", "odd.ratio")]).await;
    assert!(refuses(&findings, Code::TopicNotCreated, &["odd.ratio", "sink.create_topics"]), "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_for_a_missing_topic_has_as_many_replicas_as_there_are_brokers() {
    let findings = preflight(options(&Kafka::shared().bootstrap()), vec![feed("t", "nobody.made.it")]).await;
    assert!(refuses(&findings, Code::TopicMissing, &["--topic nobody.made.it --partitions 3 --replication-factor 1"]), "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_must_be_reachable_even_without_topics() {
    let findings = preflight(options(&Kafka::shared().bootstrap()), Vec::new()).await;
    assert!(findings.actions.is_empty() && findings.refusals.is_empty(), "{findings:#?}");
    let nowhere = options(&format!("127.0.0.1:{}", crate::servers::port::free()));
    let error = connector(nowhere, feeds(&[])).preflight().await.unwrap_err();
    assert_eq!(error.code(), Code::SinkUnreachable);
}

/// A broker with authentication. Its user `poor` has no privileges at first.
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
async fn a_user_without_privileges_is_refused() {
    let kafka = guarded();
    let topic = Kafka::unique("guarded.orders");
    std::thread::scope(|scope| scope.spawn(|| kafka.create_topic(&topic, 1, &[])).join().unwrap());
    let list = || vec![feed("orders", &topic), feed("other", "guarded.other")];
    let findings = preflight(as_poor(kafka), list()).await;
    assert!(refuses(&findings, Code::SinkPrivilege, &[&topic, "guarded.other", "authorization failed", "grant Describe"]), "{findings:#?}");
    let error = connector(as_poor(kafka), Arc::new(Feeds::new(list()))).establish().await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SinkPrivilege, Fault::Fatal), "{error}");

    let wrong = Options { sasl_password: Some(Secret::new("wrong".to_owned())), ..as_poor(kafka) };
    let error = connector(wrong, feeds(&[])).preflight().await.unwrap_err();
    assert_eq!(error.code(), Code::SinkAuthentication, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_privilege_to_write_is_refused_at_the_first_record() {
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
    let findings = preflight(as_poor(kafka), vec![feed("orders", &topic)]).await;
    assert!(findings.refusals.is_empty(), "the privilege to write shows only by writing: {findings:#?}");
    assert!(warns(&findings, Code::SinkPrivilege, &["DescribeConfigs", "were not checked"]), "{findings:#?}");
    assert!(findings.actions.iter().any(|action| action.contains("max.message.bytes not shown")), "{findings:#?}");

    let mut connector = connector(as_poor(kafka), Arc::new(Feeds::new(vec![feed("orders", &topic)])));
    connector.establish().await.unwrap();
    let mut sink = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    // A client that learns of the refusal at once returns it for the batch itself.
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
