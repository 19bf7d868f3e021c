//! Settings of the Kafka sink.

use crate::format::{Envelope, Format};
use crate::net::secret::Secret;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How missing topics are created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopics {
    /// Partitions of each topic.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication: i32,
    /// Settings of each topic, checked by [`super::properties::check_topic`]. Not used for the checkpoint's topic and the dead-letter topic.
    pub config: BTreeMap<String, String>,
}

/// The timestamp of a record, from which its topic's retention counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// The commit time.
    Commit,
    /// The time at which the record is sent.
    Append,
}

/// Settings of the Kafka sink.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// The pipeline's name, used in the client's id.
    pub pipeline: Arc<str>,
    /// The format of the records, which names their headers.
    pub format: Format,
    /// Whether records carry headers.
    pub headers: bool,
    /// How missing topics are created; `None` refuses to start without them.
    pub create_topics: Option<CreateTopics>,
    /// The dead-letter topic, for records that their own topic does not accept; `None` stops at the first such record.
    pub dead_letter: Option<Arc<str>>,
    /// Whether a delete is followed by a tombstone, which compaction needs.
    pub tombstones: bool,
    /// The timestamp of records.
    pub stamp: Stamp,
    /// Settings for librdkafka, checked by [`super::properties::check`].
    pub properties: BTreeMap<String, String>,
    /// Memory for the client's own queue. Record bodies are not part of it: they stay in their batches.
    pub queue_bytes: usize,
    /// The password for the property `sasl.username`.
    pub sasl_password: Option<Secret>,
    /// The password of the private key in the property `ssl.key.location`.
    pub ssl_key_password: Option<Secret>,
}

impl Options {
    /// Options for brokers that are reached in plain text, with defaults for everything else.
    #[must_use]
    pub fn plain(bootstrap_servers: &str, pipeline: &str) -> Self {
        let envelope = Envelope { name: pipeline.into(), backend: "", database: "".into(), tombstones: true };
        Self {
            bootstrap_servers: bootstrap_servers.to_owned(),
            pipeline: pipeline.into(),
            format: Format::Json(Arc::new(envelope)),
            headers: true,
            create_topics: None,
            dead_letter: None,
            tombstones: true,
            stamp: Stamp::Commit,
            properties: BTreeMap::new(),
            queue_bytes: 32 << 20,
            sasl_password: None,
            ssl_key_password: None,
        }
    }

    /// How long a record waits in the client for others: 0 unless the property `linger.ms` is set.
    pub(super) fn linger(&self) -> Duration {
        let milliseconds = self.properties.get("linger.ms").and_then(|text| text.parse().ok());
        milliseconds.and_then(|milliseconds: f64| Duration::try_from_secs_f64(milliseconds / 1000.0).ok()).unwrap_or_default()
    }

    /// Whether the client compresses records. The broker then counts fewer bytes than the records have.
    pub(super) fn is_compressed(&self) -> bool {
        let codec = ["compression.type", "compression.codec"].iter().find_map(|name| self.properties.get(*name));
        codec.is_some_and(|codec| !codec.eq_ignore_ascii_case("none"))
    }
}
