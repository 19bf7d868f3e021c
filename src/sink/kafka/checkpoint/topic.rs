//! The checkpoint's topic: made, verified, read to its end, written in transactions. Everything here blocks.

use super::{CheckpointError, Gone};
use crate::checkpoint::Identity;
use crate::checkpoint::fencing::StampedCheckpoint;
use crate::sink::kafka::context::{Context, Ear, poll_all};
use crate::sink::kafka::describe::waiting;
use crate::sink::kafka::error::Error;
use crate::sink::kafka::identity::Known;
use crate::sink::kafka::isolation::Isolation;
use crate::sink::kafka::{Options, properties, prover, topics};
use crate::status::metrics::SinkMetrics;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::ffi::CString;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// The only partition.
const PARTITION: i32 = 0;
/// A log of so many bytes at most is read or compacted at once: the newest record alone counts.
pub(super) const SEGMENT_BYTES: usize = 32 << 20;
/// The largest record of a topic that feedline makes: tens of thousands of tables.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// What a record takes beside the checkpoint: batch, fields and key.
const RECORD_BYTES: usize = 512;
/// How long a broker has to answer.
const REACH: Duration = Duration::from_secs(15);
/// How often it is looked whether anybody still waits.
const SLICE: Duration = Duration::from_millis(250);
/// How long a transaction whose process is gone keeps readers waiting.
const TRANSACTION: &str = "30000";

/// Reads the topic.
pub(super) struct Reader {
    consumer: BaseConsumer<Ear>,
    name: String,
    metrics: SinkMetrics,
    gone: Gone,
    known: Option<Known>,
}

impl Reader {
    /// A reader of the topic, in this cluster where one is known.
    pub(super) fn open(
        options: &Options,
        name: String,
        expected: &Identity,
        metrics: SinkMetrics,
        gone: &Gone,
    ) -> Result<Self, CheckpointError> {
        let config = reading(options)?;
        let ear = Ear(Context::new(options, metrics.clone(), Isolation::default()));
        let consumer = config.create_with_context(ear).map_err(|error| Error::Configuration { reason: error.to_string() })?;
        let mut reader = Self { consumer, name, metrics, gone: gone.clone(), known: None };
        let metadata = reader.metadata()?;
        let names = vec![CString::new(reader.name.as_str()).unwrap_or_default()];
        let known = Known::ask(reader.consumer.client(), reader.context(), metadata.brokers(), names, &|| reader.gone.is_told())?;
        known.expect(expected)?;
        reader.known = Some(known);
        Ok(reader)
    }

    /// The cluster that it reads from.
    pub(super) fn cluster(&self) -> Identity {
        self.known.as_ref().map(Known::cluster_alone).unwrap_or_default()
    }

    fn has_lost(&self) -> bool {
        (0..waiting(self.consumer.client())).for_each(|_| drop(self.consumer.poll(Duration::ZERO)));
        self.context().trust().has_lost()
    }

    /// Proves that what was read came from that cluster.
    fn prove(&self) -> Result<(), CheckpointError> {
        let Some(known) = &self.known else { return Ok(()) };
        // Nothing is read any more: what is polled here are notices.
        let poll = || drop(self.consumer.poll(Duration::ZERO));
        Ok(prover::prove(self.consumer.client(), self.context(), known, poll, &|| self.gone.is_told())?)
    }

    fn context(&self) -> &Context {
        &self.consumer.context().0
    }

    /// Whether to go on after an attempt that failed, and why not.
    fn persist(&self, deadline: Instant, error: &KafkaError) -> Result<(), CheckpointError> {
        if let Some(failure) = self.context().failure() {
            return Err(failure.clone().into());
        }
        if deadline <= Instant::now() || self.gone.is_told() {
            return Err(self.context().unreachable(&error.to_string()).into());
        }
        Ok(())
    }

    /// How many partitions the topic has; `None` where it does not exist.
    pub(super) fn partitions(&self) -> Result<Option<usize>, CheckpointError> {
        self.count(self.metadata()?.topics())
    }

    pub(super) fn metadata(&self) -> Result<Metadata, CheckpointError> {
        let deadline = Instant::now() + REACH;
        loop {
            match self.consumer.fetch_metadata(Some(&self.name), SLICE) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => self.persist(deadline, &error)?,
            }
        }
    }

    fn count(&self, topics: &[MetadataTopic]) -> Result<Option<usize>, CheckpointError> {
        let topic = topics.iter().find(|topic| topic.name() == self.name);
        match topic.and_then(MetadataTopic::error).map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(self.refused("topic authorization failed")),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
            Some(code) => Err(self.context().unreachable(&code.to_string()).into()),
            None => Ok(topic.map(|topic| topic.partitions().len()).filter(|count| *count != 0)),
        }
    }

    fn refused(&self, reason: &str) -> CheckpointError {
        let transactional_id = transactional_id(&self.name);
        CheckpointError::Privilege { topic: self.name.clone(), transactional_id, reason: reason.to_owned() }
    }

    /// What the topic says last; `None` only once it was read up to its end.
    pub(super) fn last(&self) -> Result<Option<StampedCheckpoint>, CheckpointError> {
        let mut found = self.read_last()?;
        // What came over a connection that ended before its proof is read again.
        for _ in 0..3 {
            if !self.has_lost() {
                break;
            }
            drop(self.context().trust().polled());
            found = self.read_last()?;
        }
        self.prove()?;
        found.map_or(Ok(None), |bytes| Ok(Some(StampedCheckpoint::read(&bytes, &self.name)?)))
    }

    fn read_last(&self) -> Result<Option<Vec<u8>>, CheckpointError> {
        let (low, high) = self.bounds()?;
        // The end of a transaction takes an offset of its own, and one that was given up leaves more: a few are read at first.
        let mut span = 16;
        loop {
            let from = low.max(high.saturating_sub(span));
            match self.newest(from, high)? {
                // Without a value where it was forgotten.
                Some(last) => return Ok(last),
                None if from == low => return Ok(None),
                None => span = span.saturating_mul(16),
            }
        }
    }

    /// The first offset, and the one after the last.
    fn bounds(&self) -> Result<(i64, i64), CheckpointError> {
        let deadline = Instant::now() + REACH;
        loop {
            match self.consumer.fetch_watermarks(&self.name, PARTITION, SLICE) {
                Ok(bounds) => return Ok(bounds),
                Err(error) if is_denied(&error) => return Err(self.refused(&error.to_string())),
                Err(error) => self.persist(deadline, &error)?,
            }
        }
    }

    /// The last record in a span of offsets: its bytes, or that it has none.
    #[expect(clippy::option_option, reason = "no record, and a record without a value, are two things")]
    fn newest(&self, from: i64, end: i64) -> Result<Option<Option<Vec<u8>>>, CheckpointError> {
        let unreadable = |error: KafkaError| CheckpointError::from(self.context().unreachable(&error.to_string()));
        if end <= from {
            return Ok(None);
        }
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.name, PARTITION, Offset::Offset(from)).map_err(unreadable)?;
        self.consumer.assign(&assignment).map_err(unreadable)?;
        let deadline = Instant::now() + REACH;
        let mut newest = None;
        loop {
            match self.consumer.poll(SLICE) {
                Some(Ok(message)) => newest = Some(message.payload().map(<[u8]>::to_vec)),
                // A leader that was elected just now may not know its own end yet.
                Some(Err(end_of_partition @ KafkaError::PartitionEOF(_))) => {
                    if self.has_reached(end).map_err(unreadable)? {
                        return Ok(newest);
                    }
                    self.persist(deadline, &end_of_partition)?;
                }
                Some(Err(error)) if is_denied(&error) => return Err(self.refused(&error.to_string())),
                Some(Err(error)) => self.persist(deadline, &error)?,
                None => self.persist(deadline, &KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))?,
            }
        }
    }

    /// Whether all before `end` is read.
    fn has_reached(&self, end: i64) -> Result<bool, KafkaError> {
        let position = self.consumer.position()?;
        let position = position.find_partition(&self.name, PARTITION).map(|partition| partition.offset());
        Ok(matches!(position, Some(Offset::Offset(position)) if end <= position))
    }
}

/// How a reader is configured.
fn reading(options: &Options) -> Result<ClientConfig, Error> {
    let mut config = properties::client(options, MESSAGE_BYTES_MAX, topics::LIMIT_BYTES_DEFAULT)?;
    // Never used: the partition is assigned by hand, and nothing is committed.
    config.set("group.id", format!("feedline-{}-checkpoint", options.pipeline)).set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("isolation.level", "read_committed").set("auto.offset.reset", "error");
    // Only the leader's end is the end: a follower nearby may lag behind it (KIP-392).
    config.remove("client.rack");
    Ok(config)
}

fn is_denied(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
        )
    )
}

fn transactional_id(topic: &str) -> String {
    format!("feedline.{topic}")
}

fn admin(options: &Options) -> Result<AdminClient<DefaultClientContext>, CheckpointError> {
    let admin = topics::admin_config(options)?.create();
    Ok(admin.map_err(|error: KafkaError| Error::Configuration { reason: error.to_string() })?)
}

/// Makes the topic where it is missing and that is wanted.
pub(super) fn ensure(reader: &Reader, options: &Options, runtime: &Handle) -> Result<(), CheckpointError> {
    if reader.partitions()?.is_some() {
        return Ok(());
    }
    let Some(create) = &options.create_topics else {
        let brokers = reader.metadata()?.brokers().len();
        return Err(CheckpointError::Missing { servers: options.bootstrap_servers.clone(), topic: reader.name.clone(), brokers });
    };
    let (segment_bytes, message_bytes) = (SEGMENT_BYTES.to_string(), MESSAGE_BYTES_MAX.to_string());
    let mut topic = NewTopic::new(&reader.name, 1, TopicReplication::Fixed(create.replication))
        .set("cleanup.policy", "compact")
        .set("segment.bytes", &segment_bytes)
        .set("max.message.bytes", &message_bytes)
        .set("min.cleanable.dirty.ratio", "0.1");
    if 3 <= create.replication {
        topic = topic.set("min.insync.replicas", "2");
    }
    let asked = AdminOptions::new().request_timeout(Some(REACH)).operation_timeout(Some(REACH));
    let admin = admin(options)?;
    let results = runtime.block_on(admin.create_topics([&topic], &asked));
    let brokers = reader.metadata()?;
    let not_created =
        |code, reason| Error::of_creation(code, &reader.name, create.replication, reason).of_brokers(&options.bootstrap_servers, &brokers);
    for result in results.map_err(|error| not_created(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), error.to_string()))? {
        match result {
            Ok(topic) => tracing::info!(topic, "topic created for the checkpoint"),
            // Somebody was faster.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed))) => {
                return Err(reader.refused(&format!("create the topic: {code}")));
            }
            Err((_, code)) => return Err(not_created(code, code.to_string()).into()),
        }
    }
    let deadline = Instant::now() + REACH;
    while reader.partitions()?.is_none() {
        reader.persist(deadline, &KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition))?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Verifies that the topic keeps what is written to it, and says how large a record may be.
pub(super) fn verify(reader: &Reader, options: &Options, runtime: &Handle) -> Result<usize, CheckpointError> {
    let unfit = |reason: String| CheckpointError::Topic { topic: reader.name.clone(), reason };
    match reader.partitions()? {
        Some(1) => {}
        Some(count) => return Err(unfit(format!("it has {count} partitions, and must have one: delete it and make it anew"))),
        None => return Err(reader.context().unreachable("the topic is gone").into()),
    }
    let name = std::sync::Arc::from(reader.name.as_str());
    let admin = admin(options)?;
    // Where the broker does not show a configuration that is logged, and the topic is taken for what feedline makes.
    let described = runtime.block_on(topics::describe(&admin, None, std::iter::once(&name), topics::ADMIN)).logged();
    let Some((_, resource)) = described.first() else { return Ok(topics::LIMIT_BYTES_DEFAULT) };
    if let Some(policy) = topics::entry(resource, "cleanup.policy")
        && policy != "compact"
    {
        let reason = format!("its cleanup.policy is {policy}, which would delete the checkpoint of a quiet time; set it to compact");
        return Err(unfit(reason));
    }
    let limit = topics::entry(resource, "max.message.bytes").and_then(|value| value.parse().ok());
    Ok(limit.unwrap_or(topics::LIMIT_BYTES_DEFAULT))
}

/// The topic, open for writing: whoever had it open before is kept out.
pub(super) struct Topic {
    producer: BaseProducer<Ear>,
    name: String,
    limit_bytes: usize,
    gone: Gone,
}

impl Topic {
    pub(super) fn open(reader: &Reader, options: &Options, limit_bytes: usize) -> Result<Self, CheckpointError> {
        let mut config = properties::client(options, limit_bytes, limit_bytes)?;
        config.set("transactional.id", transactional_id(&reader.name)).set("transaction.timeout.ms", TRANSACTION);
        // A record that takes longer is given up with its transaction.
        config.set("message.timeout.ms", TRANSACTION).set("linger.ms", "0");
        let ear = Ear(Context::new(options, reader.metrics.clone(), Isolation::default()));
        let producer: BaseProducer<Ear> =
            config.create_with_context(ear).map_err(|error| Error::Configuration { reason: error.to_string() })?;
        let topic = Self { producer, name: reader.name.clone(), limit_bytes, gone: reader.gone.clone() };
        topic.await_broker(|producer| producer.init_transactions(SLICE))?;
        Ok(topic)
    }

    /// Writes one record in a transaction of its own; without a value it says that there is no checkpoint.
    pub(super) fn write(&self, bytes: Option<&[u8]>) -> Result<(), CheckpointError> {
        let size_bytes = bytes.map_or(0, <[u8]>::len) + RECORD_BYTES;
        if self.limit_bytes < size_bytes {
            return Err(CheckpointError::TooLarge { topic: self.name.clone(), bytes: size_bytes, limit_bytes: self.limit_bytes });
        }
        self.producer.begin_transaction().map_err(|error| self.sort(&error))?;
        let record = BaseRecord::to(&self.name).partition(PARTITION).key(self.name.as_bytes());
        let record = match bytes {
            Some(bytes) => record.payload(bytes),
            None => record,
        };
        self.producer.send(record).map_err(|(error, _)| self.sort(&error))?;
        self.await_broker(|producer| producer.commit_transaction(SLICE))
    }

    /// How many connections there were so far.
    pub(super) fn connections(&self) -> u64 {
        poll_all(&self.producer);
        self.producer.context().0.connections()
    }

    /// Asks again while there is no answer: the client goes on with what it was asked for.
    fn await_broker(&self, ask: impl Fn(&BaseProducer<Ear>) -> Result<(), KafkaError>) -> Result<(), CheckpointError> {
        let deadline = Instant::now() + REACH;
        loop {
            let Err(error) = ask(&self.producer) else { return Ok(()) };
            let is_pending = match &error {
                KafkaError::Transaction(error) => error.is_retriable(),
                KafkaError::Flush(_) => true,
                _ => false,
            };
            if let Some(failure) = self.producer.context().0.failure() {
                return Err(failure.clone().into());
            }
            if !is_pending || deadline <= Instant::now() || self.gone.is_told() {
                return Err(self.sort(&error));
            }
        }
    }

    fn sort(&self, error: &KafkaError) -> CheckpointError {
        let context = &self.producer.context().0;
        if is_denied(error) {
            let transactional_id = transactional_id(&self.name);
            return CheckpointError::Privilege { topic: self.name.clone(), transactional_id, reason: error.to_string() };
        }
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::InvalidProducerIdMapping,
            ) => CheckpointError::Fenced { topic: self.name.clone(), reason: error.to_string() },
            Some(RDKafkaErrorCode::OperationTimedOut) => context.unreachable("it does not answer").into(),
            Some(code) => Error::of_delivery(code, &self.name).into(),
            None => Error::Unconfirmed { reason: error.to_string() }.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, reading};
    use std::collections::BTreeMap;

    #[test]
    fn no_follower_is_read_from() {
        let properties = BTreeMap::from([("client.rack".to_owned(), "a".to_owned())]);
        let options = Options { properties, ..Options::plain("broker:9092", "shop") };
        assert_eq!(reading(&options).unwrap().get("client.rack"), None);
    }
}
