//! Reads topics back, for people.

use super::context::{Context, Ear};
use super::error::Error;
use super::identity::Known;
use super::isolation::Isolation;
use super::{Options, blocking, properties, prover, topics};
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

/// Which records are sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Those that come from now on.
    Coming,
    /// Those that are there, and those that come.
    All,
    /// Those that are there now.
    Present,
}

/// How long a broker has to tell of a topic.
const REACH: Duration = Duration::from_secs(10);
/// How long one look for records lasts, and so how late an end is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// Records that wait to be sender.
const WAITING_MAX: usize = 256;

/// Listens to topics, all their partitions, as no consumer group's member.
///
/// # Errors
/// Where no broker answers, a topic is missing, or reading is not allowed.
pub async fn consume(options: &Options, topics: &[Arc<str>], span: Span, on_consumed: OnConsumed<'_>) -> Result<(), Error> {
    let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
    let (options, topics) = (options.clone(), topics.to_vec());
    let reading = tokio::spawn(blocking(move || read(&options, &topics, span, &sender)));
    while let Some(event) = receiver.recv().await {
        if on_consumed(event).is_break() {
            return Ok(());
        }
    }
    reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Where the partitions end that are not read up to there, by topic.
#[derive(Default)]
struct Ends<'n>(BTreeMap<&'n str, BTreeMap<i32, i64>>);

impl Ends<'_> {
    fn is_before(&self, message: &BorrowedMessage<'_>) -> bool {
        let end = self.0.get(message.topic()).and_then(|partitions| partitions.get(&message.partition()));
        end.is_some_and(|end| message.offset() < *end)
    }

    /// A partition is read up to `next`.
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

/// Reads until the end of the span, or until nobody hears it. Blocks.
fn read(options: &Options, names: &[Arc<str>], span: Span, sender: &mpsc::Sender<Consumed>) -> Result<(), Error> {
    let mut config = properties::client(options, topics::LIMIT_BYTES_DEFAULT, topics::LIMIT_BYTES_DEFAULT)?;
    // Never used: partitions are assigned by hand, and nothing is committed.
    config.set("group.id", format!("feedline-{}-listener", options.pipeline));
    config.set("enable.auto.commit", "false").set("enable.partition.eof", "true").set("allow.auto.create.topics", "false");
    let ear = Ear(Context::new(options, Metrics::new(&options.pipeline).sink, Isolation::default()));
    let consumer: BaseConsumer<Ear> =
        config.create_with_context(ear).map_err(|error: KafkaError| Error::Configuration { reason: error.to_string() })?;
    let servers = &options.bootstrap_servers;
    let unreachable = |error: KafkaError| Error::Unreachable { servers: servers.clone(), reason: error.to_string() };
    let mut assignment = TopicPartitionList::new();
    // Where each partition ends that is to be read to its end.
    let mut ends = Ends::default();
    for name in names {
        let metadata = consumer.fetch_metadata(Some(name), REACH).map_err(unreachable)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if partitions == 0 {
            return Err(Error::TopicsMissing {
                servers: servers.clone(),
                topics: vec![name.to_string()],
                brokers: metadata.brokers().len(),
            });
        }
        let offset = if span == Span::Coming { Offset::End } else { Offset::Beginning };
        for partition in 0..partitions {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            assignment.add_partition_offset(name, partition, offset).map_err(unreachable)?;
            if span == Span::Present {
                let (first, end) = consumer.fetch_watermarks(name, partition, REACH).map_err(unreachable)?;
                if first < end {
                    ends.0.entry(name).or_default().insert(partition, end);
                }
            }
        }
    }
    let (client, context) = (consumer.client(), &consumer.context().0);
    let is_given_up = || sender.is_closed();
    let brokers = consumer.fetch_metadata(names.first().map(|name| &**name), REACH).map_err(unreachable)?;
    let topics = names.iter().filter_map(|name| CString::new(&**name).ok()).collect();
    let known = Known::ask(client, context, brokers.brokers(), topics, &is_given_up)?;
    consumer.assign(&assignment).map_err(unreachable)?;
    while !sender.is_closed() && (span != Span::Present || !ends.0.is_empty()) {
        match consumer.poll(LOOK) {
            Some(Ok(message)) => {
                // The client connects again by itself, and another cluster may stand there by then.
                prover::prove(client, context, &known, || (), &is_given_up)?;
                // What has come since is not listed.
                if span != Span::Present || ends.is_before(&message) {
                    // Nobody hears it any more where it cannot be sent; the loop sees that.
                    drop(sender.blocking_send(event(&message)));
                }
                ends.reached(message.topic(), message.partition(), message.offset() + 1);
            }
            // It does not say of which topic; and what lies at a partition's end may be no record.
            Some(Err(KafkaError::PartitionEOF(_))) => {
                for place in consumer.position().map_err(unreachable)?.elements() {
                    if let Offset::Offset(position) = place.offset() {
                        ends.reached(place.topic(), place.partition(), position);
                    }
                }
            }
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return Err(Error::Privilege { action: "read its topics".to_owned(), reason: error.to_string() });
            }
            // The client connects again by itself.
            Some(Err(error)) => tracing::debug!(%error, "while listening"),
            // Of a connection over which nothing was heard nothing is to be proven once it has ended.
            None => {
                known.expect_cluster(client.fetch_cluster_id(Duration::ZERO).as_deref())?;
                drop(context.trust().polled());
            }
        }
    }
    Ok(())
}

fn event(message: &BorrowedMessage<'_>) -> Consumed {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(text).unwrap_or_default())).collect::<Vec<_>>()
    });
    Consumed {
        place: format!("{}[{}]@{}", message.topic(), message.partition(), message.offset()),
        key: message.key().map(text),
        headers: headers.unwrap_or_default(),
        body: message.payload().map(<[u8]>::to_vec),
    }
}
