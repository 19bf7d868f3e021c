//! What a look at a real broker finds before anything is sent.

use super::{connector, options};
use crate::contract_sink::{feed, feeds, open};
use crate::servers::kafka::Kafka;
use feedline::change::Operations;
use feedline::fault::{Classify, Code, Fault};
use feedline::feed::{Feed, Feeds};
use feedline::foresight::Foresight;
use feedline::secret::Secret;
use feedline::sink::SinkConnector;
use feedline::sink::kafka::{CreateTopics, Options};
use std::sync::{Arc, OnceLock};

/// A topic of its own on the shared broker.
fn topic(partitions: i32, settings: &[(&str, &str)]) -> String {
    let topic = Kafka::unique("foreseen.orders");
    std::thread::scope(|scope| scope.spawn(|| Kafka::shared().create_topic(&topic, partitions, settings)).join().unwrap());
    topic
}

async fn foresee(options: Options, feeds: Vec<Feed>) -> Foresight {
    connector(options, Arc::new(Feeds::new(feeds))).foresee().await.unwrap()
}

fn warns(foresight: &Foresight, code: Code, words: &[&str]) -> bool {
    foresight.warnings.iter().any(|warning| warning.code == code && words.iter().all(|word| warning.message.contains(word)))
}

fn refuses(foresight: &Foresight, code: Code, words: &[&str]) -> bool {
    foresight.refusals.iter().any(|refusal| refusal.code == code && words.iter().all(|word| refusal.message.contains(word)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_ahead_says_what_is_made_and_what_topics_forget() {
    let compacted = topic(2, &[("cleanup.policy", "compact"), ("unclean.leader.election.enable", "true"), ("max.message.bytes", "5000")]);
    let forgetting = topic(1, &[("retention.ms", "7200000")]);
    let missing = Kafka::unique("missing");
    let with = |create_topics| Options { create_topics, ..options(&Kafka::shared().bootstrap()) };
    let create = Some(CreateTopics { partitions: 3, replication: 1 });
    let partial = Feed { leaves_values_out: true, ..feed("a", &compacted) };
    let looked = foresee(with(create), vec![partial.clone(), feed("b", &forgetting), feed("c", &missing)]).await;
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
    let looked = foresee(with(create), vec![whole]).await;
    assert!(!warns(&looked, Code::TopicForgets, &["unchanged"]) && !warns(&looked, Code::TopicForgets, &["truncates"]), "{looked:#?}");
    let looked = foresee(Options { tombstones: false, ..with(create) }, vec![feed("a", &compacted)]).await;
    assert!(warns(&looked, Code::TopicForgets, &["tombstones"]), "{looked:#?}");

    // A look made nothing; and what is missing is no reason not to look at the rest.
    let looked = foresee(with(None), vec![feed("b", &forgetting), feed("c", &missing), feed("d", "a b"), feed("e", "c d")]).await;
    assert!(refuses(&looked, Code::TopicMissing, &[&missing, "sink.create_topics"]), "{looked:#?}");
    assert!(refuses(&looked, Code::DestinationInvalid, &["a b"]) && refuses(&looked, Code::DestinationInvalid, &["c d"]), "{looked:#?}");
    assert!(warns(&looked, Code::TopicForgets, &[&forgetting]), "{looked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_reached_although_no_topic_is_asked_for() {
    let looked = foresee(options(&Kafka::shared().bootstrap()), Vec::new()).await;
    assert!(looked.actions.is_empty() && looked.refusals.is_empty(), "{looked:#?}");
    let nowhere = options(&format!("127.0.0.1:{}", crate::servers::port::free()));
    let error = connector(nowhere, feeds(&[])).foresee().await.unwrap_err();
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
    let looked = foresee(as_poor(kafka), list()).await;
    assert!(refuses(&looked, Code::SinkPrivilege, &[&topic, "guarded.other", "authorization failed", "grant Describe"]), "{looked:#?}");
    let error = connector(as_poor(kafka), Arc::new(Feeds::new(list()))).verify().await.unwrap_err();
    assert_eq!((error.code(), error.fault()), (Code::SinkPrivilege, Fault::Fatal), "{error}");

    let wrong = Options { sasl_password: Some(Secret::new("wrong".to_owned())), ..as_poor(kafka) };
    let error = connector(wrong, feeds(&[])).foresee().await.unwrap_err();
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
    let looked = foresee(as_poor(kafka), vec![feed("orders", &topic)]).await;
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
