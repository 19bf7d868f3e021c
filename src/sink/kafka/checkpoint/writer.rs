//! Writes the checkpoint topic in transactions. Everything here blocks.

use super::error::CheckpointError;
use super::reader::TopicReader;
use super::stop::StopFlag;
use super::topic::{PARTITION, is_denied, transactional_id};
use crate::sink::kafka::client_config;
use crate::sink::kafka::context::{AuxiliaryContext, Context, poll_all};
use crate::sink::kafka::error::Error;
use crate::sink::kafka::isolation::Isolation;
use crate::sink::kafka::options::Options;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use std::time::{Duration, Instant};

/// Size of a record beside the checkpoint: batch, fields and key.
const RECORD_BYTES: usize = 512;
/// How long a broker has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often to check whether the caller still waits.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long, in milliseconds, a transaction of a process that has ended makes readers wait.
const TRANSACTION_TIMEOUT_MS: &str = "30000";

/// The topic, open for writing. Opening it fences every producer that had it open before.
pub(super) struct TopicWriter {
    producer: BaseProducer<AuxiliaryContext>,
    name: String,
    limit_bytes: usize,
    stop: StopFlag,
}

impl TopicWriter {
    pub(super) fn open(reader: &TopicReader, options: &Options, limit_bytes: usize) -> Result<Self, CheckpointError> {
        let mut config = client_config::client(options, limit_bytes, limit_bytes)?;
        config.set("transactional.id", transactional_id(reader.name())).set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);
        // A record that takes longer is given up with its transaction.
        config.set("message.timeout.ms", TRANSACTION_TIMEOUT_MS).set("linger.ms", "0");
        let context = AuxiliaryContext(Context::new(options, reader.metrics().clone(), Isolation::default()));
        let producer: BaseProducer<AuxiliaryContext> =
            config.create_with_context(context).map_err(|error| Error::Configuration { reason: error.to_string() })?;
        let writer = Self { producer, name: reader.name().to_owned(), limit_bytes, stop: reader.stop().clone() };
        writer.wait_for_broker(|producer| producer.init_transactions(POLL_INTERVAL))?;
        Ok(writer)
    }

    /// Writes one record in a transaction of its own. A record without a value says that there is no checkpoint.
    pub(super) fn write(&self, bytes: Option<&[u8]>) -> Result<(), CheckpointError> {
        let size_bytes = bytes.map_or(0, <[u8]>::len) + RECORD_BYTES;
        if self.limit_bytes < size_bytes {
            return Err(CheckpointError::TooLarge { topic: self.name.clone(), bytes: size_bytes, limit_bytes: self.limit_bytes });
        }
        self.producer.begin_transaction().map_err(|error| self.explain(&error))?;
        let record = BaseRecord::to(&self.name).partition(PARTITION).key(self.name.as_bytes());
        let record = match bytes {
            Some(bytes) => record.payload(bytes),
            None => record,
        };
        self.producer.send(record).map_err(|(error, _)| self.explain(&error))?;
        self.wait_for_broker(|producer| producer.commit_transaction(POLL_INTERVAL))
    }

    /// How many connections were made so far.
    pub(super) fn connection_count(&self) -> u64 {
        poll_all(&self.producer);
        self.producer.context().0.connection_count()
    }

    /// Repeats a request until it is answered. The client continues the request that is under way.
    fn wait_for_broker(&self, request: impl Fn(&BaseProducer<AuxiliaryContext>) -> Result<(), KafkaError>) -> Result<(), CheckpointError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let Err(error) = request(&self.producer) else { return Ok(()) };
            let is_pending = match &error {
                KafkaError::Transaction(error) => error.is_retriable(),
                KafkaError::Flush(_) => true,
                _ => false,
            };
            if let Some(failure) = self.producer.context().0.failure() {
                return Err(failure.clone().into());
            }
            if !is_pending || deadline <= Instant::now() || self.stop.is_set() {
                return Err(self.explain(&error));
            }
        }
    }

    fn explain(&self, error: &KafkaError) -> CheckpointError {
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
