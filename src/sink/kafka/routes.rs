//! Maps each record to its topic, and checks whether the topic accepts a record of its size.

use super::client::ClientHandle;
use super::error::Error;
use super::options::Options;
use super::produce::Topic;
use super::topics::{self, Limits, TopicLimits};
use crate::batch::Record;
use crate::event::Operation;
use crate::feed::Feeds;
use crate::format::{Headers, Protocol};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A topic that records are sent to.
pub(super) struct Destination {
    pub(super) topic: Topic,
    pub(super) name: Arc<str>,
    pub(super) limits: TopicLimits,
    pub(super) is_dead_letter: bool,
}

impl Destination {
    /// Checks the size of a record with this many bytes of headers against the topic's limit.
    pub(super) fn check_size(&self, record: &Record<'_>, table: &str, header_bytes: usize) -> Result<(), Error> {
        let size_bytes = size(record) + header_bytes;
        let limit_bytes = self.limits.record_bytes;
        if size_bytes <= limit_bytes {
            return Ok(());
        }
        Err(Error::TooLarge {
            topic: self.name.to_string(),
            table: table.to_owned(),
            id: String::from_utf8_lossy(record.id).into_owned(),
            size_bytes,
            limit_bytes,
        })
    }
}

/// The largest size that a record can have on the wire and in the log: a batch of its own (61 bytes, KIP-98), its fields with their lengths
/// as variable integers, and the lengths of its headers.
fn size(record: &Record<'_>) -> usize {
    const BATCH: usize = 61;
    const FIELDS: usize = 40;
    const HEADER_LENGTHS: usize = 100;
    BATCH + FIELDS + HEADER_LENGTHS + record.key.len() + record.body.map_or(0, <[u8]>::len)
}

/// A topic among the destinations of [`Routes`].
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicIndex(usize);

/// The topics of all feeds.
pub(super) struct Routes {
    destinations: Vec<Destination>,
    /// For each feed and operation, an index into `destinations`.
    indexes: Vec<[Option<TopicIndex>; Operation::ALL.len()]>,
    /// The index of the dead-letter topic.
    dead_letter: Option<TopicIndex>,
    feeds: Arc<Feeds>,
    headers: Headers,
}

impl Routes {
    /// The routes of these feeds. `partitions` are the topics that exist.
    ///
    /// # Errors
    /// If a topic does not exist, or the client refuses its name.
    pub(super) fn new(
        client: &ClientHandle,
        options: &Options,
        feeds: &Arc<Feeds>,
        limits: &Limits,
        partitions: &BTreeMap<Arc<str>, u32>,
    ) -> Result<Self, Error> {
        let topics = topics::of_feeds(feeds, options.dead_letter.as_ref());
        if partitions.len() < topics.len() {
            return Err(topics::all_missing(client, topics.keys().filter(|name| !partitions.contains_key(*name))));
        }
        let mut destinations = Vec::new();
        let mut by_name = BTreeMap::new();
        for (name, table) in topics {
            let topic = Topic::open(client.client(), &name).ok_or_else(|| Error::TopicName {
                table: table.to_string(),
                topic: name.to_string(),
                rule: "the client refuses it",
            })?;
            by_name.insert(name.clone(), TopicIndex(destinations.len()));
            let is_dead_letter = options.dead_letter.as_ref() == Some(&name);
            destinations.push(Destination { topic, limits: limits.of(&name), name, is_dead_letter });
        }
        let indexes = feeds.iter().map(|feed| Operation::ALL.map(|operation| by_name.get(feed.destination(operation)).copied())).collect();
        let dead_letter = options.dead_letter.as_ref().map(|name| by_name[name]);
        let headers = options.format.headers(Protocol::Kafka, feeds);
        Ok(Self { destinations, indexes, dead_letter, feeds: Arc::clone(feeds), headers })
    }

    /// The record's topic.
    pub(super) fn topic_of(&self, record: &Record<'_>) -> TopicIndex {
        self.indexes[record.head.feed.index()][record.head.operation as usize].expect("a feed sends only its own operations")
    }

    /// The destination with this index.
    pub(super) fn destination(&self, topic: TopicIndex) -> &Destination {
        &self.destinations[topic.0]
    }

    /// The dead-letter topic, if there is one.
    pub(super) fn dead_letter(&self) -> Option<&Destination> {
        self.dead_letter.map(|topic| self.destination(topic))
    }

    /// The headers of the records.
    pub(super) const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// `schema.table` of the record.
    pub(super) fn table(&self, record: &Record<'_>) -> &str {
        &self.feeds.get(record.head.feed).name
    }

    /// The shortest time for which any topic keeps records.
    pub(super) fn shortest_retention_ms(&self) -> Option<i64> {
        self.destinations.iter().filter_map(|destination| destination.limits.retention_ms).min()
    }
}
