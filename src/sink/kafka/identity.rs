//! Who a cluster is, and which its topics are: by ids that are given once.

use super::client::{Running, metadata};
use super::context::Context;
use super::describe::{Described, Question, TopicId};
use super::error::Error;
use crate::checkpoint::Identity;
use rdkafka::client::{Client, ClientContext};
use rdkafka::metadata::MetadataBroker;
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaErrorCode;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long all brokers together have to say who they are.
const REACH: Duration = Duration::from_secs(10);
/// How long each of them has at least.
const EACH: Duration = Duration::from_secs(3);
/// How often it is looked whether anybody still waits.
const SLICE: Duration = Duration::from_millis(100);

/// What a broker says of a topic that it does not know.
const UNKNOWN: [RDKafkaErrorCode; 2] = [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownTopic];

/// The name of a cluster's id in an identity.
const CLUSTER: &str = "kafka_cluster";

/// The name of a topic's id in an identity.
fn part_of(topic: &str) -> String {
    format!("kafka_topic:{topic}")
}

/// A cluster, and the topics that are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    cluster: Option<String>,
    /// Each topic's id; `None` where there is no such topic, or the broker gives it none (Kafka before 2.8).
    topics: BTreeMap<String, Option<String>>,
    names: Vec<CString>,
    /// Those that the broker does not know.
    missing: BTreeSet<String>,
    is_complete: bool,
}

/// What a look at a broker says of whom it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// To the known one.
    Same,
    /// To somebody else, or a topic is another: how it differs.
    Another(String),
    /// It does not know this topic, or not yet.
    Unknown(String),
}

impl Known {
    /// Asks brokers until one says who it is. Blocks.
    pub(super) fn look<'t>(running: &Running, topics: impl IntoIterator<Item = &'t Arc<str>>) -> Result<Self, Error> {
        // No name of a topic holds a zero: `topics::check_names`.
        let names: Vec<CString> = topics.into_iter().filter_map(|topic| CString::new(&**topic).ok()).collect();
        let asked = names.first().and_then(|name| name.to_str().ok());
        let brokers = metadata(running, asked)?;
        Self::ask(running.client().client(), running.context(), brokers.brokers(), names, &|| running.is_told_to_stop())
    }

    /// The same, of these brokers.
    pub(super) fn ask<C: ClientContext>(
        client: &Client<C>,
        context: &Context,
        brokers: &[MetadataBroker],
        names: Vec<CString>,
        is_given_up: &dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        if names.is_empty() {
            // Nothing will be sent there.
            let cluster = client.fetch_cluster_id(REACH).ok_or_else(|| context.unreachable("the cluster did not tell its id"))?;
            return Ok(Self::of(Described { cluster: Some(cluster), ..Described::default() }, names));
        }
        let each = (REACH / u32::try_from(brokers.len().max(1)).unwrap_or(1)).max(EACH);
        let mut last = "no broker is there".to_owned();
        for broker in brokers {
            let mut question = Question::ask(client, broker.id(), &names, each);
            let until = Instant::now() + each;
            while Instant::now() < until {
                match question.answer(SLICE) {
                    Some(Ok(described)) => return Ok(Self::of(described, names)),
                    Some(Err(code)) => {
                        last = format!("{}:{}: {code}", broker.host(), broker.port());
                        break;
                    }
                    None => {}
                }
                if let Some(failure) = context.failure() {
                    return Err(failure.clone());
                }
                if is_given_up() {
                    break;
                }
            }
        }
        Err(match unresolved(brokers) {
            Some(name) => Error::Unresolved { servers: context.servers().to_owned(), name: name.to_owned() },
            None => context.unreachable(&format!("no broker says who it is: {last}")),
        })
    }

    fn of(described: Described, names: Vec<CString>) -> Self {
        let is_complete = described.topics.values().all(Result::is_ok);
        let is_missing = |id: &TopicId| id.as_ref().is_err_and(|code| UNKNOWN.contains(code));
        let missing = described.topics.iter().filter(|(_, id)| is_missing(id)).map(|(name, _)| name.clone()).collect();
        let topics = described.topics.into_iter().map(|(name, id)| (name, id.ok().flatten())).collect();
        Self { cluster: described.cluster, topics, names, missing, is_complete }
    }

    /// Whether all topics are there.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The topics that are looked at.
    pub(super) fn names(&self) -> &[CString] {
        &self.names
    }

    pub(super) fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// As a checkpoint keeps it. What is not known is left out.
    pub(super) fn identity(&self) -> Identity {
        let topics = self.topics.iter().filter_map(|(name, id)| Some((part_of(name), id.clone()?)));
        self.cluster_alone().into_iter().chain(topics).collect()
    }

    /// The same without topics.
    pub(super) fn cluster_alone(&self) -> Identity {
        self.cluster.iter().map(|cluster| (CLUSTER.to_owned(), cluster.clone())).collect()
    }

    /// The same, with topics of these that are not there.
    pub(super) fn seen_by(&self, expected: &Identity) -> Identity {
        let missing = self.missing.iter().map(|name| part_of(name)).filter(|part| expected.contains_key(part));
        self.identity().into_iter().chain(missing.map(|part| (part, String::new()))).collect()
    }

    /// Whether a topic of these is not there, or is not known there yet.
    pub(super) fn lacks_any_of(&self, expected: &Identity) -> bool {
        self.missing.iter().any(|name| expected.contains_key(&part_of(name)))
    }

    /// Refuses this cluster where it is another one.
    pub(super) fn expect_cluster(&self, now: Option<&str>) -> Result<(), Error> {
        match (&self.cluster, now) {
            (Some(known), Some(now)) if known != now => Err(Error::Foreign { known: known.clone(), now: now.to_owned() }),
            _ => Ok(()),
        }
    }

    /// Refuses to be another one than this.
    pub(super) fn expect(&self, known: &Identity) -> Result<(), Error> {
        match (known.get(CLUSTER), &self.cluster) {
            (Some(known), Some(now)) if known != now => Err(Error::Foreign { known: known.clone(), now: now.clone() }),
            _ => Ok(()),
        }
    }

    /// Whether a broker is of this cluster, and has these topics.
    pub(super) fn judge(&self, described: &Described) -> Verdict {
        if let Some(known) = &self.cluster
            && described.cluster.as_ref() != Some(known)
        {
            let now = described.cluster.as_deref().unwrap_or("without an id");
            return Verdict::Another(format!("another cluster stands behind the address: {now}, and not {known}"));
        }
        let mut unknown = None;
        for (name, known) in &self.topics {
            match (known, described.topics.get(name)) {
                (Some(known), Some(Ok(Some(now)))) if known != now => {
                    return Verdict::Another(format!("topic {name} was made anew: its id is {now}, and was {known}"));
                }
                (Some(_), Some(Err(code))) if UNKNOWN.contains(code) => unknown = Some(name),
                _ => {}
            }
        }
        unknown.map_or(Verdict::Same, |name| Verdict::Unknown(name.clone()))
    }
}

/// The first of the brokers' names that leads to no address.
pub(super) fn unresolved(brokers: &[MetadataBroker]) -> Option<&str> {
    brokers.iter().find(|broker| !is_resolved(broker)).map(MetadataBroker::host)
}

/// Such a name, where none of them leads to one.
pub(super) fn all_unresolved(brokers: &[MetadataBroker]) -> Option<&str> {
    if brokers.iter().any(is_resolved) { None } else { brokers.first().map(MetadataBroker::host) }
}

fn is_resolved(broker: &MetadataBroker) -> bool {
    (broker.host(), u16::try_from(broker.port()).unwrap_or(0)).to_socket_addrs().is_ok()
}

#[cfg(test)]
mod tests {
    use super::{Described, Known, Verdict};
    use rdkafka::types::RDKafkaErrorCode;
    use std::collections::BTreeMap;

    fn described(cluster: &str, topics: &[(&str, Result<Option<&str>, RDKafkaErrorCode>)]) -> Described {
        let topics = topics.iter().map(|(name, id)| ((*name).to_owned(), id.map(|id| id.map(str::to_owned))));
        Described { cluster: Some(cluster.to_owned()), topics: topics.collect() }
    }

    #[test]
    fn a_topic_made_anew_and_another_cluster_are_told_from_a_broker_that_has_not_heard_yet() {
        let known = Known::of(described("a", &[("orders", Ok(Some("1"))), ("old", Ok(None))]), Vec::new());
        let judged = |cluster: &str, id| known.judge(&described(cluster, &[("orders", id), ("old", Ok(Some("7")))]));
        assert_eq!(judged("a", Ok(Some("1"))), Verdict::Same);
        assert_eq!(judged("a", Ok(None)), Verdict::Same, "a broker that gives no ids");
        assert!(matches!(judged("b", Ok(Some("1"))), Verdict::Another(how) if how.contains("cluster")));
        assert!(matches!(judged("a", Ok(Some("2"))), Verdict::Another(how) if how.contains("orders")));
        assert_eq!(judged("a", Err(RDKafkaErrorCode::UnknownTopicOrPartition)), Verdict::Unknown("orders".to_owned()));
        let identity = [("kafka_cluster", "a"), ("kafka_topic:orders", "1")].map(|(name, id)| (name.to_owned(), id.to_owned()));
        assert_eq!(known.identity(), BTreeMap::from(identity), "what is not known is left out");
    }
}
