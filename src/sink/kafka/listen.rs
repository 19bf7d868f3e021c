//! Reads topics back, for people.

use super::error::Error;
use super::{Options, blocking, properties, topics};
use crate::sink::{Hear, Heard};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Which records are heard.
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
/// Records that wait to be heard.
const WAITING_MAX: usize = 256;

/// Listens to topics, all their partitions, as no consumer group's member.
///
/// # Errors
/// Where no broker answers, a topic is missing, or reading is not allowed.
pub async fn listen(options: &Options, topics: &[Arc<str>], span: Span, hear: Hear<'_>) -> Result<(), Error> {
    let (heard, mut hearing) = mpsc::channel(WAITING_MAX);
    let (options, topics) = (options.clone(), topics.to_vec());
    let reading = tokio::spawn(blocking(move || read(&options, &topics, span, &heard)));
    while let Some(event) = hearing.recv().await {
        if hear(event).is_break() {
            return Ok(());
        }
    }
    reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Reads until the end of the span, or until nobody hears it. Blocks.
fn read(options: &Options, names: &[Arc<str>], span: Span, heard: &mpsc::Sender<Heard>) -> Result<(), Error> {
    let mut config = properties::client(options, topics::LIMIT_BYTES_DEFAULT, topics::LIMIT_BYTES_DEFAULT)?;
    // Never used: partitions are assigned by hand, and nothing is committed.
    config.set("group.id", format!("feedline-{}-listener", options.pipeline));
    config.set("enable.auto.commit", "false").set("enable.partition.eof", "true").set("allow.auto.create.topics", "false");
    let consumer: BaseConsumer = config.create().map_err(|error: KafkaError| Error::Configuration { reason: error.to_string() })?;
    let servers = &options.bootstrap_servers;
    let unreachable = |error: KafkaError| Error::Unreachable { servers: servers.clone(), reason: error.to_string() };
    let mut assignment = TopicPartitionList::new();
    let mut open = 0;
    for name in names {
        let metadata = consumer.fetch_metadata(Some(name), REACH).map_err(unreachable)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if partitions == 0 {
            return Err(Error::TopicsMissing { servers: servers.clone(), topics: vec![name.to_string()] });
        }
        let offset = if span == Span::Coming { Offset::End } else { Offset::Beginning };
        for partition in 0..partitions {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            assignment.add_partition_offset(name, partition, offset).map_err(unreachable)?;
        }
        open += partitions;
    }
    consumer.assign(&assignment).map_err(unreachable)?;
    while !heard.is_closed() && (span != Span::Present || open != 0) {
        match consumer.poll(LOOK) {
            // Nobody hears it any more where it cannot be sent; the loop sees that.
            Some(Ok(message)) => drop(heard.blocking_send(event(&message))),
            Some(Err(KafkaError::PartitionEOF(_))) => open = open.saturating_sub(1),
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return Err(Error::Privilege { action: "read its topics".to_owned(), reason: error.to_string() });
            }
            // The client connects again by itself.
            Some(Err(error)) => tracing::debug!(%error, "while listening"),
            None => {}
        }
    }
    Ok(())
}

fn event(message: &BorrowedMessage<'_>) -> Heard {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(text).unwrap_or_default())).collect::<Vec<_>>()
    });
    Heard {
        place: format!("{}[{}]@{}", message.topic(), message.partition(), message.offset()),
        key: message.key().map(text),
        headers: headers.unwrap_or_default(),
        body: message.payload().map(<[u8]>::to_vec),
    }
}
