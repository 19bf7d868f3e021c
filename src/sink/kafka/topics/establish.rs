//! Verifies the pipeline's topics at a start, creates missing ones, and reads their limits.

use super::admin::{ADMIN_TIMEOUT, admin_client, create_topics, describe_configs};
use super::limits::Limits;
use super::lookup::{all_missing, partitions, wait_for_partitions};
use crate::sink::kafka::client::{ClientHandle, metadata};
use crate::sink::kafka::error::Error;
use crate::sink::kafka::hosts::all_unresolved;
use crate::sink::kafka::identity::KnownCluster;
use crate::sink::kafka::options::CreateTopics;
use rdkafka::ClientConfig;
use rdkafka::metadata::MetadataBroker;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long the topics' limits may take. A session can be opened without them.
const LIMITS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take until brokers know a topic that was created.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(15);

/// Verifies the topics, creates missing ones if `create` is set, and reads their limits. Blocks; `runtime` runs the administrative requests.
pub(crate) fn establish(
    client: &ClientHandle,
    admin: &ClientConfig,
    known: &KnownCluster,
    topics: &BTreeMap<Arc<str>, Arc<str>>,
    dead_letter: Option<&str>,
    create: Option<&CreateTopics>,
    runtime: &Handle,
) -> Result<Limits, Error> {
    let found = partitions(client, topics.keys())?;
    let missing: Vec<&Arc<str>> = topics.keys().filter(|topic| !found.contains_key(*topic)).collect();
    let admin = admin_client(admin)?;
    if !missing.is_empty() {
        let Some(create) = create else { return Err(all_missing(client, missing)) };
        let brokers = metadata(client, missing.first().map(|topic| &***topic))?;
        if let Some(name) = all_unresolved(brokers.brokers()) {
            return Err(Error::Unresolved { servers: client.context().servers().to_owned(), name: name.to_owned() });
        }
        // The administrative client has a connection of its own: checked before anything is created.
        let now = admin.inner().fetch_cluster_id(ADMIN_TIMEOUT);
        if now.is_none() && known.cluster().is_some() {
            return Err(client.context().unreachable("the cluster did not return its id"));
        }
        known.check_cluster(now.as_deref())?;
        runtime
            .block_on(create_topics(&admin, &missing, dead_letter, create, false))
            .map_err(|error| error.with_metadata(client.context().servers(), &brokers))?;
        if wait_for_partitions(client, &missing.iter().copied(), PROPAGATION_TIMEOUT)?.len() < missing.len() {
            return Err(client.context().unreachable("the topics were created, but no broker knows them yet"));
        }
    }
    let broker = first_broker(client, topics.keys().next())?;
    Ok(Limits::new(runtime.block_on(describe_configs(&admin, broker, topics.keys(), ADMIN_TIMEOUT)).found_or_logged()))
}

/// The topics' limits as they are now; `None` if the broker does not show all of them, or is not known to be of this cluster. Blocks.
pub(crate) fn read_limits(
    client: &ClientHandle,
    admin: &ClientConfig,
    topics: &[Arc<str>],
    known: &KnownCluster,
    runtime: &Handle,
) -> Result<Option<Limits>, Error> {
    let admin = admin_client(admin)?;
    let broker = first_broker(client, topics.first())?;
    let described = runtime.block_on(describe_configs(&admin, broker, topics.iter(), LIMITS_TIMEOUT));
    // The client has a connection of its own, and knows the cluster from the answers that came over it.
    let cluster = admin.inner().fetch_cluster_id(Duration::ZERO);
    let is_shown = described.refused.is_empty() && cluster.as_deref() == known.cluster();
    Ok(is_shown.then(|| Limits::new(described.found)))
}

/// Any broker of the cluster.
fn first_broker(client: &ClientHandle, topic: Option<&Arc<str>>) -> Result<Option<i32>, Error> {
    Ok(metadata(client, topic.map(|topic| &**topic))?.brokers().first().map(MetadataBroker::id))
}
