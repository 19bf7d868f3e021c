//! Looks up topics in the cluster's metadata.

use crate::sink::kafka::client::{ClientHandle, metadata};
use crate::sink::kafka::error::Error;
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Up to this many topics are asked for one by one; for more, all topics of the cluster are asked for in one request.
const SINGLE_REQUESTS_MAX: usize = 16;

/// What the cluster's metadata say about a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicState {
    Present {
        partitions: u32,
        replicas: usize,
    },
    Missing,
    /// The user may not see it.
    Denied,
}

impl TopicState {
    fn of(metadata: &Metadata, topic: &str) -> Self {
        match metadata.topics().iter().find(|candidate| candidate.name() == topic) {
            Some(found) if found.error().map(RDKafkaErrorCode::from) == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Self::Denied,
            Some(found) if !is_missing(found) => Self::Present {
                partitions: u32::try_from(found.partitions().len()).unwrap_or(u32::MAX),
                replicas: found.partitions().first().map_or(0, |partition| partition.replicas().len()),
            },
            _ => Self::Missing,
        }
    }
}

fn is_missing(topic: &MetadataTopic) -> bool {
    let code = topic.error().map(RDKafkaErrorCode::from);
    matches!(code, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))
        || (code.is_none() && topic.partitions().is_empty())
}

/// The state of each topic. Blocks.
pub(crate) fn look_up<'t>(
    client: &ClientHandle,
    topics: impl ExactSizeIterator<Item = &'t Arc<str>>,
) -> Result<BTreeMap<Arc<str>, TopicState>, Error> {
    if topics.len() <= SINGLE_REQUESTS_MAX {
        topics.map(|topic| Ok((topic.clone(), TopicState::of(&metadata(client, Some(topic))?, topic)))).collect()
    } else {
        let all = metadata(client, None)?;
        Ok(topics.map(|topic| (topic.clone(), TopicState::of(&all, topic))).collect())
    }
}

/// The number of partitions of each topic that exists. Blocks.
pub(crate) fn partitions<'t>(
    client: &ClientHandle,
    topics: impl ExactSizeIterator<Item = &'t Arc<str>>,
) -> Result<BTreeMap<Arc<str>, u32>, Error> {
    let mut found = BTreeMap::new();
    for (topic, state) in look_up(client, topics)? {
        match state {
            TopicState::Present { partitions, .. } => drop(found.insert(topic, partitions)),
            TopicState::Missing => {}
            TopicState::Denied => return Err(denied(&topic)),
        }
    }
    Ok(found)
}

/// As [`partitions`], after waiting up to `timeout` for topics that are not known yet: a broker that has just started, and one that did
/// not create a topic itself, learn of topics with a delay. Topics that are still missing then are left out. Blocks.
pub(crate) fn wait_for_partitions<'t>(
    client: &ClientHandle,
    topics: &(impl ExactSizeIterator<Item = &'t Arc<str>> + Clone),
    timeout: Duration,
) -> Result<BTreeMap<Arc<str>, u32>, Error> {
    let deadline = Instant::now() + timeout;
    loop {
        let found = partitions(client, topics.clone())?;
        if found.len() == topics.len() || deadline <= Instant::now() || client.is_stopping() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The error for topics that the user may not see.
pub(crate) fn denied(topics: &str) -> Error {
    Error::Privilege { action: format!("describe topic {topics}"), reason: "topic authorization failed".to_owned() }
}

/// The error for missing topics.
pub(crate) fn all_missing<'t>(client: &ClientHandle, missing: impl IntoIterator<Item = &'t Arc<str>>) -> Error {
    let context = client.context();
    let topics = missing.into_iter().map(ToString::to_string).collect();
    Error::TopicsMissing { servers: context.servers().to_owned(), topics, brokers: context.broker_count() }
}
