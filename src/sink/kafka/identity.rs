//! Which cluster and which topics a session belongs to, known by ids that Kafka never uses twice.

use super::describe::{Description, TopicId};
use super::error::Error;
use crate::checkpoint::Identity;
use rdkafka::types::RDKafkaErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;

/// The error codes of a broker for a topic that it does not know.
const UNKNOWN: [RDKafkaErrorCode; 2] = [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownTopic];

/// The name of the cluster's id in an [`Identity`].
const CLUSTER: &str = "kafka_cluster";

/// The name of a topic's id in an [`Identity`].
fn name_of_topic(topic: &str) -> String {
    format!("kafka_topic:{topic}")
}

/// A cluster and the topics of interest, as a broker described them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownCluster {
    cluster: Option<String>,
    /// Each topic's id; `None` if the topic does not exist, or has no id (Kafka before 2.8).
    topics: BTreeMap<String, Option<String>>,
    names: Vec<CString>,
    /// Topics that the broker does not know.
    missing: BTreeSet<String>,
    is_complete: bool,
}

/// How a broker's answer compares with a [`KnownCluster`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// It belongs to the known cluster and has the known topics.
    Same,
    /// It belongs to another cluster, or a topic is another one: the difference.
    Different(String),
    /// It does not know this topic, perhaps not yet.
    UnknownTopic(String),
}

impl KnownCluster {
    /// The cluster in a broker's answer. `names` are the topics that were asked for.
    pub(super) fn new(description: Description, names: Vec<CString>) -> Self {
        let is_complete = description.topics.values().all(Result::is_ok);
        let is_missing = |id: &TopicId| id.as_ref().is_err_and(|code| UNKNOWN.contains(code));
        let missing = description.topics.iter().filter(|(_, id)| is_missing(id)).map(|(name, _)| name.clone()).collect();
        let topics = description.topics.into_iter().map(|(name, id)| (name, id.ok().flatten())).collect();
        Self { cluster: description.cluster, topics, names, missing, is_complete }
    }

    /// Whether all topics exist.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The topics that brokers are asked for.
    pub(super) fn names(&self) -> &[CString] {
        &self.names
    }

    pub(super) fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// The ids of cluster and topics for the checkpoint. Unknown ids are left out.
    pub(super) fn identity(&self) -> Identity {
        let topics = self.topics.iter().filter_map(|(name, id)| Some((name_of_topic(name), id.clone()?)));
        self.cluster_identity().into_iter().chain(topics).collect()
    }

    /// The id of the cluster alone.
    pub(super) fn cluster_identity(&self) -> Identity {
        self.cluster.iter().map(|cluster| (CLUSTER.to_owned(), cluster.clone())).collect()
    }

    /// [`Self::identity`], and an empty id for each topic of `expected` that does not exist.
    pub(super) fn identity_with_missing(&self, expected: &Identity) -> Identity {
        let missing = self.missing.iter().map(|name| name_of_topic(name)).filter(|name| expected.contains_key(name));
        self.identity().into_iter().chain(missing.map(|name| (name, String::new()))).collect()
    }

    /// Whether the broker does not know a topic of `expected`.
    pub(super) fn lacks_any_of(&self, expected: &Identity) -> bool {
        self.missing.iter().any(|name| expected.contains_key(&name_of_topic(name)))
    }

    /// Returns an error if `now` is another cluster than this one.
    pub(super) fn check_cluster(&self, now: Option<&str>) -> Result<(), Error> {
        match (&self.cluster, now) {
            (Some(known), Some(now)) if known != now => Err(Error::Foreign { known: known.clone(), now: now.to_owned() }),
            _ => Ok(()),
        }
    }

    /// Returns an error if this is another cluster than the one in `expected`.
    pub(super) fn check_expected(&self, expected: &Identity) -> Result<(), Error> {
        match (expected.get(CLUSTER), &self.cluster) {
            (Some(known), Some(now)) if known != now => Err(Error::Foreign { known: known.clone(), now: now.clone() }),
            _ => Ok(()),
        }
    }

    /// Compares a broker's answer with this cluster and its topics.
    pub(super) fn compare(&self, description: &Description) -> Comparison {
        if let Some(known) = &self.cluster
            && description.cluster.as_ref() != Some(known)
        {
            let now = description.cluster.as_deref().unwrap_or("without an id");
            return Comparison::Different(format!("another cluster answers at this address: {now}, not {known}"));
        }
        let mut unknown = None;
        for (name, known) in &self.topics {
            match (known, description.topics.get(name)) {
                (Some(known), Some(Ok(Some(now)))) if known != now => {
                    return Comparison::Different(format!("topic {name} was deleted and created again: its id is {now}, and was {known}"));
                }
                (Some(_), Some(Err(code))) if UNKNOWN.contains(code) => unknown = Some(name),
                _ => {}
            }
        }
        unknown.map_or(Comparison::Same, |name| Comparison::UnknownTopic(name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Comparison, Description, KnownCluster};
    use rdkafka::types::RDKafkaErrorCode;
    use std::collections::BTreeMap;

    fn description(cluster: &str, topics: &[(&str, Result<Option<&str>, RDKafkaErrorCode>)]) -> Description {
        let topics = topics.iter().map(|(name, id)| ((*name).to_owned(), id.map(|id| id.map(str::to_owned))));
        Description { cluster: Some(cluster.to_owned()), topics: topics.collect() }
    }

    #[test]
    fn another_topic_and_another_cluster_differ_from_a_topic_that_is_not_known_yet() {
        let known = KnownCluster::new(description("a", &[("orders", Ok(Some("1"))), ("old", Ok(None))]), Vec::new());
        let compared = |cluster: &str, id| known.compare(&description(cluster, &[("orders", id), ("old", Ok(Some("7")))]));
        assert_eq!(compared("a", Ok(Some("1"))), Comparison::Same);
        assert_eq!(compared("a", Ok(None)), Comparison::Same, "a broker without topic ids");
        assert!(matches!(compared("b", Ok(Some("1"))), Comparison::Different(how) if how.contains("cluster")));
        assert!(matches!(compared("a", Ok(Some("2"))), Comparison::Different(how) if how.contains("orders")));
        assert_eq!(compared("a", Err(RDKafkaErrorCode::UnknownTopicOrPartition)), Comparison::UnknownTopic("orders".to_owned()));
        let identity = [("kafka_cluster", "a"), ("kafka_topic:orders", "1")].map(|(name, id)| (name.to_owned(), id.to_owned()));
        assert_eq!(known.identity(), BTreeMap::from(identity), "an unknown id is left out");
    }
}
