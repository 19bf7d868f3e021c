//! The topics of a pipeline: their names, whether they exist, how many partitions they have, how large their records may be.

use super::client::{Running, metadata};
use super::error::Error;
use super::identity::{Known, all_unresolved};
use super::{CreateTopics, properties};
use crate::feed::Feeds;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::metadata::{Metadata, MetadataBroker, MetadataTopic};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tracing::{info, warn};

/// Kafka's default of `message.max.bytes`: what is assumed where a broker does not say.
pub(super) const LIMIT_BYTES_DEFAULT: usize = 1_048_588;
/// Up to so many topics are asked for one by one; more, and all of the cluster's come in one answer.
const ASKED_SINGLY_MAX: usize = 16;
/// The largest record of a topic of dead letters that feedline makes: a request has at most 100 MiB (Kafka's default of
/// `socket.request.max.bytes`).
const DEAD_LETTER_BYTES_MAX: &str = "100000000";
/// How long an answer to an administrative request may take.
pub(super) const ADMIN: Duration = Duration::from_secs(20);
/// The same for topics' terms, without which a session can do.
const TERMS: Duration = Duration::from_secs(5);
/// How long a created topic may take until brokers know it.
const PROPAGATION: Duration = Duration::from_secs(15);

/// What a topic takes and keeps, as far as the broker shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Its largest record, as the broker counts it.
    pub(super) limit_bytes: usize,
    /// How long before the present a record's time may lie, in milliseconds.
    pub(super) before_ms: Option<i64>,
    /// How long behind it.
    pub(super) after_ms: Option<i64>,
    /// How long records are kept, counted from the time that they carry.
    pub(super) retention_ms: Option<i64>,
}

impl Default for Terms {
    /// Kafka's defaults, but for retention, of which nothing is known.
    fn default() -> Self {
        Self { limit_bytes: LIMIT_BYTES_DEFAULT, before_ms: None, after_ms: Some(3_600_000), retention_ms: None }
    }
}

impl Terms {
    /// How far the clocks of broker and feedline may differ.
    const CLOCKS_MS: i64 = 60_000;

    fn of(resource: &ConfigResource) -> Self {
        let number = |name: &str| entry(resource, name).and_then(|value| value.parse::<i64>().ok());
        let limit_bytes = number("max.message.bytes").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(LIMIT_BYTES_DEFAULT);
        if entry(resource, "message.timestamp.type") == Some("LogAppendTime") {
            // The broker writes its own time, and looks at no other.
            return Self { limit_bytes, before_ms: None, after_ms: None, retention_ms: None };
        }
        // Without bounds where it is the largest number. Before 3.6 one setting was for both directions.
        let bound =
            |name: &str| number(name).or_else(|| number("message.timestamp.difference.max.ms")).filter(|bound| *bound < i64::MAX / 2);
        let deletes = entry(resource, "cleanup.policy").is_some_and(|policy| policy.contains("delete"));
        Self {
            limit_bytes,
            before_ms: bound("message.timestamp.before.max.ms"),
            after_ms: bound("message.timestamp.after.max.ms"),
            retention_ms: number("retention.ms").filter(|retention| deletes && 0 <= *retention),
        }
    }

    /// The earliest time that a record may carry, by this clock; what is a little later may be refused too.
    pub(super) fn earliest(&self, now: i64) -> Option<i64> {
        self.before_ms.map(|before| now - before - Self::CLOCKS_MS)
    }

    /// The latest time that a record may carry, with a distance to what is refused.
    pub(super) fn latest(&self, now: i64) -> i64 {
        self.after_ms.map_or(i64::MAX, |after| now + after - Self::CLOCKS_MS.min(after / 2))
    }
}

/// The terms of each topic. Empty before they were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits(BTreeMap<Arc<str>, Terms>);

impl Limits {
    pub(super) fn of(&self, topic: &str) -> Terms {
        self.0.get(topic).cloned().unwrap_or_default()
    }

    pub(super) fn largest(&self) -> usize {
        self.0.values().map(|terms| terms.limit_bytes).max().unwrap_or(LIMIT_BYTES_DEFAULT)
    }

    pub(super) fn smallest(&self) -> usize {
        self.0.values().map(|terms| terms.limit_bytes).min().unwrap_or(LIMIT_BYTES_DEFAULT)
    }

    /// Takes what is seen now, where it is shown. Whether a client that was made before is made for other sizes.
    pub(super) fn renew(&mut self, now: Self, is_shown: bool) -> bool {
        if !is_shown {
            return false;
        }
        let before = std::mem::replace(self, now);
        (before.largest(), before.smallest()) != (self.largest(), self.smallest())
    }
}

/// The topics that these feeds use, each with one of its tables, and the topic of dead letters.
pub(super) fn of_feeds(feeds: &Feeds, dead_letter: Option<&Arc<str>>) -> BTreeMap<Arc<str>, Arc<str>> {
    let of_tables = feeds.iter().flat_map(|feed| feed.destinations_used().map(|topic| (topic.clone(), feed.name.clone())));
    of_tables.chain(dead_letter.map(|topic| (topic.clone(), Arc::from("(dead letters)")))).collect()
}

/// The first name that breaks Kafka's rules is an error.
pub(super) fn check_names(topics: &BTreeMap<Arc<str>, Arc<str>>) -> Result<(), Error> {
    broken_names(topics).into_iter().next().map_or(Ok(()), Err)
}

/// Names that break Kafka's rules (`org.apache.kafka.common.internals.Topic`).
pub(super) fn broken_names(topics: &BTreeMap<Arc<str>, Arc<str>>) -> Vec<Error> {
    let mut folded: BTreeMap<String, &str> = BTreeMap::new();
    let mut broken = Vec::new();
    for (topic, table) in topics {
        if let Some(rule) = broken_rule(topic) {
            broken.push(Error::TopicName { table: table.to_string(), topic: topic.to_string(), rule });
        } else if let Some(other) = folded.insert(topic.replace('.', "_"), topic) {
            warn!(
                %topic,
                other,
                "two topics differ in '.' and '_' alone: Kafka's metrics cannot tell them apart, and it may refuse to create both"
            );
        }
    }
    broken
}

/// The rule of Kafka that a topic's name breaks.
#[must_use]
pub fn broken_rule(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("a topic needs a name"),
        "." | ".." => Some("\".\" and \"..\" are not allowed"),
        name if 249 < name.len() => Some("it is longer than 249 characters"),
        name if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => {
            Some("only letters, digits, '.', '_' and '-' of ASCII are allowed")
        }
        _ => None,
    }
}

fn is_missing(topic: &MetadataTopic) -> bool {
    let code = topic.error().map(RDKafkaErrorCode::from);
    matches!(code, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))
        || (code.is_none() && topic.partitions().is_empty())
}

/// What a broker shows of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    There {
        partitions: u32,
        replicas: usize,
    },
    Missing,
    /// The user may not see it.
    Denied,
}

/// Looks at each topic. Blocks.
pub(super) fn look<'t>(running: &Running, topics: impl ExactSizeIterator<Item = &'t Arc<str>>) -> Result<BTreeMap<Arc<str>, Seen>, Error> {
    if topics.len() <= ASKED_SINGLY_MAX {
        topics.map(|topic| Ok((topic.clone(), seen(&metadata(running, Some(topic))?, topic)))).collect()
    } else {
        let all = metadata(running, None)?;
        Ok(topics.map(|topic| (topic.clone(), seen(&all, topic))).collect())
    }
}

fn seen(metadata: &Metadata, topic: &str) -> Seen {
    match metadata.topics().iter().find(|candidate| candidate.name() == topic) {
        Some(found) if found.error().map(RDKafkaErrorCode::from) == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Seen::Denied,
        Some(found) if !is_missing(found) => Seen::There {
            partitions: u32::try_from(found.partitions().len()).unwrap_or(u32::MAX),
            replicas: found.partitions().first().map_or(0, |partition| partition.replicas().len()),
        },
        _ => Seen::Missing,
    }
}

/// Number of partitions of each topic that exists. Blocks.
pub(super) fn partitions<'t>(
    running: &Running,
    topics: impl ExactSizeIterator<Item = &'t Arc<str>>,
) -> Result<BTreeMap<Arc<str>, u32>, Error> {
    let mut found = BTreeMap::new();
    for (topic, seen) in look(running, topics)? {
        match seen {
            Seen::There { partitions, .. } => drop(found.insert(topic, partitions)),
            Seen::Missing => {}
            Seen::Denied => return Err(denied(&topic)),
        }
    }
    Ok(found)
}

/// The error of topics that the user may not see.
pub(super) fn denied(topics: &str) -> Error {
    Error::Privilege { action: format!("describe topic {topics}"), reason: "topic authorization failed".to_owned() }
}

/// Verifies, and where wanted creates, the topics. Blocks; `runtime` drives the administrative requests.
pub(super) fn verify(
    running: &Running,
    admin: &ClientConfig,
    known: &Known,
    topics: &BTreeMap<Arc<str>, Arc<str>>,
    dead_letter: Option<&str>,
    create: Option<&CreateTopics>,
    runtime: &Handle,
) -> Result<Limits, Error> {
    let found = partitions(running, topics.keys())?;
    let missing: Vec<&Arc<str>> = topics.keys().filter(|topic| !found.contains_key(*topic)).collect();
    let admin: AdminClient<DefaultClientContext> =
        admin.create().map_err(|error: KafkaError| Error::Configuration { reason: error.to_string() })?;
    if !missing.is_empty() {
        let Some(create) = create else { return Err(all_missing(running, missing)) };
        let brokers = metadata(running, missing.first().map(|topic| &***topic))?;
        if let Some(name) = all_unresolved(brokers.brokers()) {
            return Err(Error::Unresolved { servers: running.context().servers().to_owned(), name: name.to_owned() });
        }
        // It has a connection of its own.
        let now = admin.inner().fetch_cluster_id(ADMIN);
        if now.is_none() && known.cluster().is_some() {
            return Err(running.context().unreachable("the cluster did not tell its id"));
        }
        known.expect_cluster(now.as_deref())?;
        runtime
            .block_on(make(&admin, &missing, dead_letter, create, false))
            .map_err(|error| error.of_brokers(running.context().servers(), &brokers))?;
        if await_partitions(running, &missing.iter().copied(), PROPAGATION)?.len() < missing.len() {
            return Err(running.context().unreachable("the topics were created, and no broker knows them yet"));
        }
    }
    let broker = metadata(running, topics.keys().next().map(|topic| &**topic))?.brokers().first().map(MetadataBroker::id);
    Ok(limits_of(runtime.block_on(describe(&admin, broker, topics.keys(), ADMIN)).logged()))
}

/// The topics' terms as they are now, and whether the broker shows them, which must be of this cluster. Blocks.
pub(super) fn look_at_limits(
    running: &Running,
    admin: &ClientConfig,
    topics: &[Arc<str>],
    known: &Known,
    runtime: &Handle,
) -> Result<(Limits, bool), Error> {
    let admin: AdminClient<DefaultClientContext> =
        admin.create().map_err(|error: KafkaError| Error::Configuration { reason: error.to_string() })?;
    let broker = metadata(running, topics.first().map(|topic| &**topic))?.brokers().first().map(MetadataBroker::id);
    let described = runtime.block_on(describe(&admin, broker, topics.iter(), TERMS));
    // Known by the answers that it has had: it connects by itself.
    let cluster = admin.inner().fetch_cluster_id(Duration::ZERO);
    let is_shown = described.refused.is_empty() && cluster.as_deref() == known.cluster();
    Ok((limits_of(described.found), is_shown))
}

fn limits_of(found: Vec<(Arc<str>, ConfigResource)>) -> Limits {
    Limits(found.into_iter().map(|(topic, resource)| (topic, Terms::of(&resource))).collect())
}

/// The error that names these topics.
pub(super) fn all_missing<'t>(running: &Running, missing: impl IntoIterator<Item = &'t Arc<str>>) -> Error {
    let context = running.context();
    let topics = missing.into_iter().map(ToString::to_string).collect();
    Error::TopicsMissing { servers: context.servers().to_owned(), topics, brokers: context.brokers() }
}

/// Makes topics; a trial has the cluster say whether it would.
pub(super) async fn make(
    admin: &AdminClient<DefaultClientContext>,
    topics: &[&Arc<str>],
    dead_letter: Option<&str>,
    create: &CreateTopics,
    is_trial: bool,
) -> Result<(), Error> {
    let mut new = Vec::with_capacity(topics.len());
    for topic in topics {
        let plain = NewTopic::new(topic, create.partitions, TopicReplication::Fixed(create.replication));
        // What is too large elsewhere comes here, and is kept. It carries the time of its arrival.
        let is_grave = dead_letter == Some(&***topic);
        new.push(if is_grave {
            plain.set("max.message.bytes", DEAD_LETTER_BYTES_MAX).set("retention.ms", "-1")
        } else {
            create.config.iter().fold(plain, |topic, (name, value)| topic.set(name, value))
        });
    }
    let options = AdminOptions::new().request_timeout(Some(ADMIN)).operation_timeout(Some(ADMIN)).validate_only(is_trial);
    let all = topics.iter().map(|topic| &***topic).collect::<Vec<_>>().join(", ");
    let results = admin.create_topics(&new, &options).await.map_err(|error| {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        Error::of_creation(code, &all, create.replication, error.to_string())
    })?;
    for result in results {
        match result {
            Ok(_) if is_trial => {}
            Ok(topic) => info!(topic, partitions = create.partitions, replication = create.replication, "topic created"),
            // Somebody was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Error::of_creation(code, &topic, create.replication, code.to_string())),
        }
    }
    Ok(())
}

/// Number of partitions of each topic, after waiting for those that are not known yet: a broker that has just started, and one
/// that did not make a topic, learn of topics in their own time. What is still missing then is not in the answer. Blocks.
pub(super) fn await_partitions<'t>(
    running: &Running,
    topics: &(impl ExactSizeIterator<Item = &'t Arc<str>> + Clone),
    patience: Duration,
) -> Result<BTreeMap<Arc<str>, u32>, Error> {
    let deadline = Instant::now() + patience;
    loop {
        let found = partitions(running, topics.clone())?;
        if found.len() == topics.len() || deadline <= Instant::now() || running.is_told_to_stop() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a broker shows of configurations.
pub(super) struct Described {
    pub(super) found: Vec<(Arc<str>, ConfigResource)>,
    /// Why it does not show the others.
    pub(super) refused: Vec<String>,
}

impl Described {
    /// What was found; what was not is logged.
    pub(super) fn logged(self) -> Vec<(Arc<str>, ConfigResource)> {
        for reason in &self.refused {
            warn!(
                reason,
                limit_bytes = LIMIT_BYTES_DEFAULT,
                "a topic's configuration is not shown (DescribeConfigs); Kafka's defaults are assumed"
            );
        }
        self.found
    }
}

/// Asks a broker for the topics' configurations. Any broker knows them: the controller, whom librdkafka would ask, need not be there.
pub(super) async fn describe(
    admin: &AdminClient<DefaultClientContext>,
    broker: Option<i32>,
    topics: impl Iterator<Item = &Arc<str>> + Clone,
    patience: Duration,
) -> Described {
    let wanted: Vec<ResourceSpecifier<'_>> = topics.clone().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let mut described = Described { found: Vec::new(), refused: Vec::new() };
    if wanted.is_empty() {
        return described;
    }
    let options = AdminOptions::new().request_timeout(Some(patience)).broker_id(broker);
    match admin.describe_configs(&wanted, &options).await {
        Ok(answers) => {
            for (topic, answer) in topics.zip(answers) {
                match answer {
                    // Where a user may not ask the broker says so, and the client library hands over a resource without entries.
                    Ok(resource) if resource.entries.is_empty() => described.refused.push(format!("{topic}: it shows nothing")),
                    Ok(resource) => described.found.push((topic.clone(), resource)),
                    Err(code) => described.refused.push(format!("{topic}: {code}")),
                }
            }
        }
        Err(error) => described.refused.push(error.to_string()),
    }
    described
}

/// The defaults of topics that the broker makes, where it shows them.
pub(super) async fn broker_settings(admin: &AdminClient<DefaultClientContext>, broker: Option<i32>) -> Option<ConfigResource> {
    let options = AdminOptions::new().request_timeout(Some(ADMIN)).broker_id(broker);
    let described = admin.describe_configs(&[ResourceSpecifier::Broker(broker?)], &options).await;
    described.ok()?.into_iter().next()?.ok()
}

pub(super) fn entry<'r>(resource: &'r ConfigResource, name: &str) -> Option<&'r str> {
    resource.get(name)?.value.as_deref()
}

/// The configuration of the client for administrative requests, of whose connections nobody keeps count.
pub(super) fn admin_config(options: &super::Options) -> Result<ClientConfig, Error> {
    let mut config = properties::client(options, LIMIT_BYTES_DEFAULT, LIMIT_BYTES_DEFAULT)?;
    config.remove("debug");
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::{Error, check_names};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn check(name: &str) -> Result<(), Error> {
        check_names(&BTreeMap::from([(Arc::from(name), Arc::from("public.orders"))]))
    }

    #[test]
    fn names_follow_kafkas_rules() {
        for name in ["shop.public.orders", "A-b_c.9", "...", &"x".repeat(249)] {
            assert_eq!(check(name), Ok(()));
        }
        for name in ["", ".", "..", "shop.public.naïve", "a b", "a/b", &"x".repeat(250)] {
            let error = check(name).unwrap_err().to_string();
            assert!(error.contains("public.orders") && error.contains("`topic`"), "{error}");
        }
    }
}
