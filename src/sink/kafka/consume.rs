//! Reads topics, for `feedline tail` and `feedline dead-letters`.

use super::blocking::blocking;
use super::client_config::{self, LIMIT_BYTES_DEFAULT};
use super::context::{AuxiliaryContext, Context};
use super::error::Error;
use super::identify::identify_with;
use super::isolation::Isolation;
use super::options::Options;
use super::verifier;
use crate::format::{Part, carried};
use crate::sink::{Consumed, OnConsumed};
use crate::status::metrics::Metrics;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Which records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// New records, without end.
    Coming,
    /// Existing records, then new ones without end.
    All,
    /// Existing records only.
    Present,
}

/// How long a broker has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one poll lasts, and so how late a caller that has gone is noticed.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How many records may wait for the caller.
const QUEUE_MAX: usize = 256;

/// Reads all partitions of these topics, without a consumer group.
///
/// # Errors
/// If no broker answers, a topic is missing, or reading is not allowed.
pub async fn consume(options: &Options, topics: &[Arc<str>], span: Span, on_consumed: OnConsumed<'_>) -> Result<(), Error> {
    let (sender, mut receiver) = mpsc::channel(QUEUE_MAX);
    let (options, topics) = (options.clone(), topics.to_vec());
    let reading = tokio::spawn(blocking(move || read(&options, &topics, span, &sender)));
    while let Some(consumed) = receiver.recv().await {
        if on_consumed(consumed).is_break() {
            return Ok(());
        }
    }
    reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The ends of the partitions that are not read to their end yet, by topic.
#[derive(Default)]
struct Ends<'n>(BTreeMap<&'n str, BTreeMap<i32, i64>>);

impl Ends<'_> {
    /// Whether the message existed when reading began.
    fn is_before_end(&self, message: &BorrowedMessage<'_>) -> bool {
        let end = self.0.get(message.topic()).and_then(|partitions| partitions.get(&message.partition()));
        end.is_some_and(|end| message.offset() < *end)
    }

    /// Everything before the offset `next` of a partition is read.
    fn reached(&mut self, topic: &str, partition: i32, next: i64) {
        let Some(partitions) = self.0.get_mut(topic) else { return };
        if partitions.get(&partition).is_some_and(|end| *end <= next) {
            partitions.remove(&partition);
        }
        if partitions.is_empty() {
            self.0.remove(topic);
        }
    }
}

/// Reads until the end of the span, or until the receiver is dropped. Blocks.
fn read(options: &Options, names: &[Arc<str>], span: Span, sender: &mpsc::Sender<Consumed>) -> Result<(), Error> {
    let consumer = open(options)?;
    let unreachable = |error| unreachable(options, &error);
    let (assignment, mut ends) = assign(&consumer, options, names, span)?;
    let (client, context) = (consumer.client(), &consumer.context().0);
    let is_given_up = || sender.is_closed();
    let metadata = consumer.fetch_metadata(names.first().map(|name| &**name), ANSWER_TIMEOUT).map_err(unreachable)?;
    let topics = names.iter().filter_map(|name| CString::new(&**name).ok()).collect();
    let known = identify_with(client, context, metadata.brokers(), topics, &is_given_up)?;
    consumer.assign(&assignment).map_err(unreachable)?;
    while !sender.is_closed() && (span != Span::Present || !ends.0.is_empty()) {
        match consumer.poll(POLL_INTERVAL) {
            Some(Ok(message)) => {
                // The client reconnects by itself, and another cluster may answer at the address by then.
                verifier::verify_all(client, context, &known, || (), &is_given_up)?;
                // Records that have arrived since reading began are left out.
                if span != Span::Present || ends.is_before_end(&message) {
                    // If the receiver was dropped, the loop ends.
                    drop(sender.blocking_send(to_consumed(&message)));
                }
                ends.reached(message.topic(), message.partition(), message.offset() + 1);
            }
            // The error does not name the topic, and the last offset of a partition may be a transaction's end.
            Some(Err(KafkaError::PartitionEOF(_))) => {
                for partition in consumer.position().map_err(unreachable)?.elements() {
                    if let Offset::Offset(next) = partition.offset() {
                        ends.reached(partition.topic(), partition.partition(), next);
                    }
                }
            }
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return Err(Error::Privilege { action: "read its topics".to_owned(), reason: error.to_string() });
            }
            // The client reconnects by itself.
            Some(Err(error)) => tracing::debug!(%error, "reading topics"),
            // Connections that ended without bringing a record need no verification.
            None => {
                known.check_cluster(client.fetch_cluster_id(Duration::ZERO).as_deref())?;
                drop(context.connections().forget_lost());
            }
        }
    }
    Ok(())
}

fn open(options: &Options) -> Result<BaseConsumer<AuxiliaryContext>, Error> {
    let mut config = client_config::client(options, LIMIT_BYTES_DEFAULT, LIMIT_BYTES_DEFAULT)?;
    // librdkafka requires a group, which is not used: partitions are assigned by hand, and nothing is committed.
    config.set("group.id", format!("feedline-{}-listener", options.pipeline));
    config.set("enable.auto.commit", "false").set("enable.partition.eof", "true").set("allow.auto.create.topics", "false");
    let context = AuxiliaryContext(Context::new(options, Metrics::new(&options.pipeline).sink, Isolation::default()));
    config.create_with_context(context).map_err(|error: KafkaError| Error::Configuration { reason: error.to_string() })
}

/// The offsets to begin at, and where the partitions end now if only existing records are read.
fn assign<'n>(
    consumer: &BaseConsumer<AuxiliaryContext>,
    options: &Options,
    names: &'n [Arc<str>],
    span: Span,
) -> Result<(TopicPartitionList, Ends<'n>), Error> {
    let unreachable = |error| unreachable(options, &error);
    let (mut assignment, mut ends) = (TopicPartitionList::new(), Ends::default());
    for name in names {
        let metadata = consumer.fetch_metadata(Some(name), ANSWER_TIMEOUT).map_err(unreachable)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if partitions == 0 {
            return Err(Error::TopicsMissing {
                servers: options.bootstrap_servers.clone(),
                topics: vec![name.to_string()],
                brokers: metadata.brokers().len(),
            });
        }
        let offset = if span == Span::Coming { Offset::End } else { Offset::Beginning };
        for partition in 0..partitions {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            assignment.add_partition_offset(name, partition, offset).map_err(unreachable)?;
            if span == Span::Present {
                let (first, end) = consumer.fetch_watermarks(name, partition, ANSWER_TIMEOUT).map_err(unreachable)?;
                if first < end {
                    ends.0.entry(name).or_default().insert(partition, end);
                }
            }
        }
    }
    Ok((assignment, ends))
}

fn unreachable(options: &Options, error: &KafkaError) -> Error {
    Error::Unreachable { servers: options.bootstrap_servers.clone(), reason: error.to_string() }
}

fn to_consumed(message: &BorrowedMessage<'_>) -> Consumed {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(text).unwrap_or_default())).collect::<Vec<_>>()
    });
    let headers = headers.unwrap_or_default();
    Consumed {
        address: format!("{}[{}]@{}", message.topic(), message.partition(), message.offset()),
        key: message.key().map(text),
        content_type: carried(&headers, Part::ContentType).map(str::to_owned),
        headers,
        body: message.payload().map(<[u8]>::to_vec),
    }
}
