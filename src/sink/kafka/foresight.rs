//! What a start will do to the cluster, and what somebody may regret; nothing is changed to find out.

use super::client::{Running, metadata};
use super::error::Error;
use super::{Options, topics};
use crate::fault::Code;
use crate::foresight::{self, Foresight, Warning};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, ConfigResource};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataBroker;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Looks ahead. Blocks; `runtime` drives the administrative requests.
pub(super) fn foresee(
    running: &Running,
    admin: &ClientConfig,
    options: &Options,
    topics: &BTreeMap<Arc<str>, Arc<str>>,
    runtime: &Handle,
) -> Result<Foresight, Error> {
    let found = topics::partitions(running, topics.keys())?;
    let missing: Vec<&Arc<str>> = topics.keys().filter(|topic| !found.contains_key(*topic)).collect();
    let mut foresight = Foresight::default();
    if !missing.is_empty() {
        let Some(create) = options.create_topics else { return Err(topics::all_missing(running, missing)) };
        let (count, replicas, names) = (create.partitions, create.replication, named(missing));
        foresight.actions.push(format!("make topics ({count} partitions, replication factor {replicas}): {names}"));
    }
    if found.is_empty() {
        return Ok(foresight);
    }
    let broker = metadata(running, found.keys().next().map(|topic| &**topic))?.brokers().first().map(MetadataBroker::id);
    let admin: AdminClient<DefaultClientContext> =
        admin.create().map_err(|error: KafkaError| Error::Configuration { reason: error.to_string() })?;
    let described = runtime.block_on(topics::describe(&admin, broker, found.keys()));
    foresight.actions.push(format!("write to topics as they are: {}", named(found.keys())));
    foresight.warnings.extend(doubts(&described, running)?);
    Ok(foresight)
}

/// What the topics' configurations leave to be regretted.
fn doubts(described: &[(Arc<str>, ConfigResource)], running: &Running) -> Result<Vec<Warning>, Error> {
    let with =
        |name: &'static str, is: fn(&str) -> bool| move |entry: &&(Arc<str>, ConfigResource)| topics::entry(&entry.1, name).is_some_and(is);
    let of = |entries: Vec<&(Arc<str>, ConfigResource)>| named(entries.iter().map(|entry| &entry.0));
    let mut warnings = Vec::new();
    let mut warn = |code, message| warnings.push(Warning { code, message });
    let compacted: Vec<_> = described.iter().filter(with("cleanup.policy", |policy| policy.contains("compact"))).collect();
    if !compacted.is_empty() {
        let message = format!(
            "{}: compaction keeps the last event of a key alone, and an update may leave values out (`unchanged`): where readers rebuild rows from the \
             topic, give such tables REPLICA IDENTITY FULL, or set cleanup.policy=delete",
            of(compacted)
        );
        warn(Code::TopicForgets, message);
    }
    let is_kept = |entry: &&(Arc<str>, ConfigResource)| {
        let (policy, time) = (topics::entry(&entry.1, "cleanup.policy"), topics::entry(&entry.1, "retention.ms"));
        policy.is_some_and(|policy| policy.contains("delete")) && time.is_some_and(|time| time != "-1")
    };
    let forgetting: Vec<_> = described.iter().filter(is_kept).collect();
    if let Some((_, first)) = forgetting.first() {
        let hours = topics::entry(first, "retention.ms").and_then(|time| time.parse::<u64>().ok()).unwrap_or(0) / 3_600_000;
        let message = format!(
            "{}: events older than {hours} hours are deleted (retention.ms), existing rows among them: a reader that comes later, or stays away for longer, \
             has a hole; set retention.ms=-1, or cleanup.policy=compact",
            of(forgetting)
        );
        warn(Code::TopicForgets, message);
    }
    let alone: Vec<_> = described.iter().filter(with("min.insync.replicas", |count| count == "1")).collect();
    let replicated: Vec<_> = alone.into_iter().map(|entry| Ok((entry, replicas(running, &entry.0)?))).collect::<Result<_, Error>>()?;
    let fragile: Vec<_> = replicated.into_iter().filter(|(_, replicas)| 1 < *replicas).map(|(entry, _)| entry).collect();
    if !fragile.is_empty() {
        let message = format!(
            "{}: min.insync.replicas is 1: an event that one replica alone has is confirmed, and lost with that broker; set it to 2",
            of(fragile)
        );
        warn(Code::TopicFragile, message);
    }
    let unclean: Vec<_> = described.iter().filter(with("unclean.leader.election.enable", |is| is == "true")).collect();
    if !unclean.is_empty() {
        let message = format!(
            "{}: unclean.leader.election.enable is true: a replica that lacks confirmed events may become the leader; set it to false",
            of(unclean)
        );
        warn(Code::TopicFragile, message);
    }
    Ok(warnings)
}

fn replicas(running: &Running, topic: &str) -> Result<usize, Error> {
    let metadata = metadata(running, Some(topic))?;
    let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
    Ok(partitions.first().map_or(0, |partition| partition.replicas().len()))
}

fn named<'t>(topics: impl IntoIterator<Item = &'t Arc<str>>) -> String {
    foresight::named(topics.into_iter().map(ToString::to_string))
}
