//! The topics of a pipeline: their names, whether they exist, how many partitions they have, how large their records may be.

use super::client::{Running, metadata};
use super::error::Error;
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
const ADMIN: Duration = Duration::from_secs(20);
/// How long a created topic may take until brokers know it.
const PROPAGATION: Duration = Duration::from_secs(15);

/// Each topic's largest record, as the broker counts it. Empty before they were verified.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits(BTreeMap<Arc<str>, usize>);

impl Limits {
    pub(super) fn of(&self, topic: &str) -> usize {
        self.0.get(topic).copied().unwrap_or(LIMIT_BYTES_DEFAULT)
    }

    pub(super) fn largest(&self) -> usize {
        self.0.values().copied().max().unwrap_or(LIMIT_BYTES_DEFAULT)
    }

    pub(super) fn smallest(&self) -> usize {
        self.0.values().copied().min().unwrap_or(LIMIT_BYTES_DEFAULT)
    }
}

/// The topics that these feeds use, each with one of its tables, and the topic of dead letters.
pub(super) fn of_feeds(feeds: &Feeds, dead_letter: Option<&Arc<str>>) -> BTreeMap<Arc<str>, Arc<str>> {
    let of_tables = feeds.iter().flat_map(|feed| feed.destinations.iter().map(|topic| (topic.clone(), feed.name.clone())));
    of_tables.chain(dead_letter.map(|topic| (topic.clone(), Arc::from("(dead letters)")))).collect()
}

/// Checks names against Kafka's rules (`org.apache.kafka.common.internals.Topic`).
pub(super) fn check_names(topics: &BTreeMap<Arc<str>, Arc<str>>) -> Result<(), Error> {
    let mut folded: BTreeMap<String, &str> = BTreeMap::new();
    for (topic, table) in topics {
        let broken = |rule| Err(Error::TopicName { table: table.to_string(), topic: topic.to_string(), rule });
        match &**topic {
            "" => return broken("a topic needs a name"),
            "." | ".." => return broken("\".\" and \"..\" are not allowed"),
            name if 249 < name.len() => return broken("it is longer than 249 characters"),
            name if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => {
                return broken("only letters, digits, '.', '_' and '-' of ASCII are allowed");
            }
            name => {
                if let Some(other) = folded.insert(name.replace('.', "_"), name) {
                    warn!(
                        topic = name,
                        other,
                        "two topics differ in '.' and '_' alone: Kafka's metrics cannot tell them apart, and it may refuse to create both"
                    );
                }
            }
        }
    }
    Ok(())
}

fn is_missing(topic: &MetadataTopic) -> bool {
    let code = topic.error().map(RDKafkaErrorCode::from);
    matches!(code, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))
        || (code.is_none() && topic.partitions().is_empty())
}

/// Number of partitions of each topic that exists. Blocks.
pub(super) fn partitions<'t>(
    running: &Running,
    topics: impl ExactSizeIterator<Item = &'t Arc<str>> + Clone,
) -> Result<BTreeMap<Arc<str>, u32>, Error> {
    let mut found = BTreeMap::new();
    if topics.len() <= ASKED_SINGLY_MAX {
        for topic in topics {
            if let Some(count) = count(&metadata(running, Some(topic))?, topic)? {
                found.insert(topic.clone(), count);
            }
        }
    } else {
        let all = metadata(running, None)?;
        for topic in topics {
            if let Some(count) = count(&all, topic)? {
                found.insert(topic.clone(), count);
            }
        }
    }
    Ok(found)
}

fn count(metadata: &Metadata, topic: &str) -> Result<Option<u32>, Error> {
    let Some(found) = metadata.topics().iter().find(|candidate| candidate.name() == topic) else { return Ok(None) };
    if found.error().map(RDKafkaErrorCode::from) == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
        return Err(Error::Privilege { action: format!("describe topic {topic}"), reason: "topic authorization failed".to_owned() });
    }
    Ok((!is_missing(found)).then(|| u32::try_from(found.partitions().len()).unwrap_or(u32::MAX)))
}

/// Verifies, and where wanted creates, the topics. Blocks; `runtime` drives the administrative requests.
pub(super) fn verify(
    running: &Running,
    admin: &ClientConfig,
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
        runtime.block_on(make(&admin, &missing, dead_letter, create))?;
        if await_partitions(running, &missing.iter().copied(), PROPAGATION)?.len() < missing.len() {
            return Err(running.context().unreachable("the topics were created, and no broker knows them yet"));
        }
    }
    let broker = metadata(running, topics.keys().next().map(|topic| &**topic))?.brokers().first().map(MetadataBroker::id);
    Ok(runtime.block_on(limits(&admin, broker, topics)))
}

/// The error that names these topics.
pub(super) fn all_missing<'t>(running: &Running, missing: impl IntoIterator<Item = &'t Arc<str>>) -> Error {
    Error::TopicsMissing { servers: running.context().servers().to_owned(), topics: missing.into_iter().map(ToString::to_string).collect() }
}

async fn make(
    admin: &AdminClient<DefaultClientContext>,
    topics: &[&Arc<str>],
    dead_letter: Option<&str>,
    create: &CreateTopics,
) -> Result<(), Error> {
    let mut new = Vec::with_capacity(topics.len());
    for topic in topics {
        let plain = NewTopic::new(topic, create.partitions, TopicReplication::Fixed(create.replication));
        // What is too large elsewhere comes here, and is kept.
        let is_grave = dead_letter == Some(&***topic);
        new.push(if is_grave { plain.set("max.message.bytes", DEAD_LETTER_BYTES_MAX).set("retention.ms", "-1") } else { plain });
    }
    let not_created = |topic: &str, reason: String| Error::NotCreated { topic: topic.to_owned(), reason };
    let options = AdminOptions::new().request_timeout(Some(ADMIN)).operation_timeout(Some(ADMIN));
    let results = admin
        .create_topics(&new, &options)
        .await
        .map_err(|error| not_created(&topics.iter().map(|topic| &***topic).collect::<Vec<_>>().join(", "), error.to_string()))?;
    for result in results {
        match result {
            Ok(topic) => info!(topic, partitions = create.partitions, replication = create.replication, "topic created"),
            // Somebody was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed))) => {
                return Err(Error::Privilege { action: format!("create topic {topic}"), reason: code.to_string() });
            }
            Err((topic, code)) => return Err(not_created(&topic, code.to_string())),
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

/// The topics' size limits.
async fn limits(admin: &AdminClient<DefaultClientContext>, broker: Option<i32>, topics: &BTreeMap<Arc<str>, Arc<str>>) -> Limits {
    let mut limits = Limits::default();
    for (topic, resource) in describe(admin, broker, topics.keys()).await {
        if let Some(limit) = entry(&resource, "max.message.bytes").and_then(|value| value.parse().ok()) {
            limits.0.insert(topic, limit);
        }
    }
    limits
}

/// Asks a broker for the topics' configurations. Any broker knows them: the controller, whom librdkafka would ask, need not be there.
/// What the broker does not show is left out.
pub(super) async fn describe(
    admin: &AdminClient<DefaultClientContext>,
    broker: Option<i32>,
    topics: impl Iterator<Item = &Arc<str>> + Clone,
) -> Vec<(Arc<str>, ConfigResource)> {
    let wanted: Vec<ResourceSpecifier<'_>> = topics.clone().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let options = AdminOptions::new().request_timeout(Some(ADMIN)).broker_id(broker);
    let described = match admin.describe_configs(&wanted, &options).await {
        Ok(described) => described,
        Err(error) => {
            warn!(%error, limit_bytes = LIMIT_BYTES_DEFAULT, "the broker does not show topic configurations; Kafka's default size limit is assumed");
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for (topic, resource) in topics.zip(described) {
        match resource {
            Ok(resource) => found.push((topic.clone(), resource)),
            Err(code) => {
                warn!(%topic, %code, limit_bytes = LIMIT_BYTES_DEFAULT, "a topic's configuration cannot be read (DescribeConfigs); Kafka's default size limit is assumed");
            }
        }
    }
    found
}

pub(super) fn entry<'r>(resource: &'r ConfigResource, name: &str) -> Option<&'r str> {
    resource.get(name)?.value.as_deref()
}

/// The configuration of the client for administrative requests.
pub(super) fn admin_config(options: &super::Options) -> Result<ClientConfig, Error> {
    properties::client(options, LIMIT_BYTES_DEFAULT, LIMIT_BYTES_DEFAULT)
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
