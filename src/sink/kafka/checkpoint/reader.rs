//! Reads the checkpoint topic to its end. Everything here blocks.

use super::error::CheckpointError;
use super::stop::StopFlag;
use super::topic::{MESSAGE_BYTES_MAX, PARTITION, is_denied, transactional_id};
use crate::checkpoint::Identity;
use crate::checkpoint::fencing::StampedCheckpoint;
use crate::sink::kafka::client_config::{self, LIMIT_BYTES_DEFAULT};
use crate::sink::kafka::context::{AuxiliaryContext, Context};
use crate::sink::kafka::describe::pending_events;
use crate::sink::kafka::error::Error;
use crate::sink::kafka::identify::identify_with;
use crate::sink::kafka::identity::KnownCluster;
use crate::sink::kafka::isolation::Isolation;
use crate::sink::kafka::options::Options;
use crate::sink::kafka::verifier;
use crate::status::metrics::SinkMetrics;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::ffi::CString;
use std::time::{Duration, Instant};

/// How long a broker has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often to check whether the caller still waits.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Reads the topic.
pub(super) struct TopicReader {
    consumer: BaseConsumer<AuxiliaryContext>,
    name: String,
    metrics: SinkMetrics,
    stop: StopFlag,
    known: Option<KnownCluster>,
}

impl TopicReader {
    /// Opens a reader. `expected` is the cluster that it must be, if known.
    pub(super) fn open(
        options: &Options,
        name: String,
        expected: &Identity,
        metrics: SinkMetrics,
        stop: &StopFlag,
    ) -> Result<Self, CheckpointError> {
        let config = consumer_config(options)?;
        let context = AuxiliaryContext(Context::new(options, metrics.clone(), Isolation::default()));
        let consumer = config.create_with_context(context).map_err(|error| Error::Configuration { reason: error.to_string() })?;
        let mut reader = Self { consumer, name, metrics, stop: stop.clone(), known: None };
        let metadata = reader.metadata()?;
        let names = vec![CString::new(reader.name.as_str()).unwrap_or_default()];
        let known = identify_with(reader.consumer.client(), reader.context(), metadata.brokers(), names, &|| reader.stop.is_set())?;
        known.check_expected(expected)?;
        reader.known = Some(known);
        Ok(reader)
    }

    /// The id of the cluster that it reads from.
    pub(super) fn cluster(&self) -> Identity {
        self.known.as_ref().map(KnownCluster::cluster_identity).unwrap_or_default()
    }

    /// The topic's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn metrics(&self) -> &SinkMetrics {
        &self.metrics
    }

    pub(super) const fn stop(&self) -> &StopFlag {
        &self.stop
    }

    pub(super) fn context(&self) -> &Context {
        &self.consumer.context().0
    }

    fn has_lost_connection(&self) -> bool {
        (0..pending_events(self.consumer.client())).for_each(|_| drop(self.consumer.poll(Duration::ZERO)));
        self.context().connections().has_lost()
    }

    /// Verifies that what was read came from the known cluster.
    fn verify_connections(&self) -> Result<(), CheckpointError> {
        let Some(known) = &self.known else { return Ok(()) };
        // Reading is over: the events are notices only.
        let poll = || drop(self.consumer.poll(Duration::ZERO));
        Ok(verifier::verify_all(self.consumer.client(), self.context(), known, poll, &|| self.stop.is_set())?)
    }

    /// Called after a failed attempt. Returns an error if there should be no further attempt.
    pub(super) fn check_retry(&self, deadline: Instant, error: &KafkaError) -> Result<(), CheckpointError> {
        if let Some(failure) = self.context().failure() {
            return Err(failure.clone().into());
        }
        if deadline <= Instant::now() || self.stop.is_set() {
            return Err(self.context().unreachable(&error.to_string()).into());
        }
        Ok(())
    }

    /// How many partitions the topic has; `None` if it does not exist.
    pub(super) fn partitions(&self) -> Result<Option<usize>, CheckpointError> {
        self.partitions_in(self.metadata()?.topics())
    }

    pub(super) fn metadata(&self) -> Result<Metadata, CheckpointError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            match self.consumer.fetch_metadata(Some(&self.name), POLL_INTERVAL) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => self.check_retry(deadline, &error)?,
            }
        }
    }

    fn partitions_in(&self, topics: &[MetadataTopic]) -> Result<Option<usize>, CheckpointError> {
        let topic = topics.iter().find(|topic| topic.name() == self.name);
        match topic.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(self.denied("topic authorization failed")),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
            Some(code) => Err(self.context().unreachable(&code.to_string()).into()),
            None => Ok(topic.map(|topic| topic.partitions().len()).filter(|count| *count != 0)),
        }
    }

    /// The error for a missing privilege.
    pub(super) fn denied(&self, reason: &str) -> CheckpointError {
        let transactional_id = transactional_id(&self.name);
        CheckpointError::Privilege { topic: self.name.clone(), transactional_id, reason: reason.to_owned() }
    }

    /// The last checkpoint in the topic. Returns `None` only if the topic was read to its end.
    pub(super) fn last(&self) -> Result<Option<StampedCheckpoint>, CheckpointError> {
        let mut found = self.read_last()?;
        // What came over a connection that ended unverified is read again.
        for _ in 0..3 {
            if !self.has_lost_connection() {
                break;
            }
            drop(self.context().connections().forget_lost());
            found = self.read_last()?;
        }
        self.verify_connections()?;
        found.map_or(Ok(None), |bytes| Ok(Some(StampedCheckpoint::read(&bytes, &self.name)?)))
    }

    fn read_last(&self) -> Result<Option<Vec<u8>>, CheckpointError> {
        let (low, high) = self.watermarks()?;
        // The end of a transaction has an offset of its own, and an aborted one leaves more of them: a few offsets are read at first.
        let mut span = 16;
        loop {
            let from = low.max(high.saturating_sub(span));
            match self.last_between(from, high)? {
                // Without a value if the checkpoint was removed.
                Some(last) => return Ok(last),
                None if from == low => return Ok(None),
                None => span = span.saturating_mul(16),
            }
        }
    }

    /// The first offset, and the one behind the last.
    fn watermarks(&self) -> Result<(i64, i64), CheckpointError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            match self.consumer.fetch_watermarks(&self.name, PARTITION, POLL_INTERVAL) {
                Ok(watermarks) => return Ok(watermarks),
                Err(error) if is_denied(&error) => return Err(self.denied(&error.to_string())),
                Err(error) => self.check_retry(deadline, &error)?,
            }
        }
    }

    /// The last record between two offsets: its value, or that it has none.
    #[expect(clippy::option_option, reason = "no record, and a record without a value, are two cases")]
    fn last_between(&self, from: i64, end: i64) -> Result<Option<Option<Vec<u8>>>, CheckpointError> {
        let unreachable = |error: KafkaError| CheckpointError::from(self.context().unreachable(&error.to_string()));
        if end <= from {
            return Ok(None);
        }
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.name, PARTITION, Offset::Offset(from)).map_err(unreachable)?;
        self.consumer.assign(&assignment).map_err(unreachable)?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut last = None;
        loop {
            match self.consumer.poll(POLL_INTERVAL) {
                Some(Ok(message)) => last = Some(message.payload().map(<[u8]>::to_vec)),
                // A leader that was just elected may not know its own end yet.
                Some(Err(end_of_partition @ KafkaError::PartitionEOF(_))) => {
                    if self.has_read_to(end).map_err(unreachable)? {
                        return Ok(last);
                    }
                    self.check_retry(deadline, &end_of_partition)?;
                }
                Some(Err(error)) if is_denied(&error) => return Err(self.denied(&error.to_string())),
                Some(Err(error)) => self.check_retry(deadline, &error)?,
                None => self.check_retry(deadline, &KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))?,
            }
        }
    }

    /// Whether everything before `end` is read.
    fn has_read_to(&self, end: i64) -> Result<bool, KafkaError> {
        let position = self.consumer.position()?;
        let position = position.find_partition(&self.name, PARTITION).map(|partition| partition.offset());
        Ok(matches!(position, Some(Offset::Offset(position)) if end <= position))
    }
}

fn consumer_config(options: &Options) -> Result<ClientConfig, Error> {
    let mut config = client_config::client(options, MESSAGE_BYTES_MAX, LIMIT_BYTES_DEFAULT)?;
    // librdkafka requires a group, which is not used: the partition is assigned by hand, and nothing is committed.
    config.set("group.id", format!("feedline-{}-checkpoint", options.pipeline)).set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("isolation.level", "read_committed").set("auto.offset.reset", "error");
    // The broker answers a fetch at the end of the topic after this time. A start waits for several such answers.
    config.set("fetch.wait.max.ms", "10");
    // With a rack, librdkafka may read from a follower, whose end may be behind the leader's (KIP-392).
    config.remove("client.rack");
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::{Options, consumer_config};
    use std::collections::BTreeMap;

    #[test]
    fn the_topic_is_not_read_from_a_follower() {
        let properties = BTreeMap::from([("client.rack".to_owned(), "a".to_owned())]);
        let options = Options { properties, ..Options::plain("broker:9092", "shop") };
        assert_eq!(consumer_config(&options).unwrap().get("client.rack"), None);
    }
}
