//! Reads events or dead letters back from the broker, for `feedline tail` and `feedline dead-letters`.

use super::connect::{self, ANSWER_TIMEOUT, BrokerConnection, no_answer};
use super::error::{Error, Peer};
use super::options::Options;
use super::permissions::Permissions;
use crate::format::{Part, carried};
use crate::sink::{Consumed, OnConsumed};
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How many messages the broker sends ahead of the acknowledgements. The rest wait at the broker, however slow the reader is.
const UNREAD_MAX: u16 = 256;
/// How long to wait for the first message of a queue that reports none.
const FIRST_TIMEOUT: Duration = Duration::from_secs(2);
/// The last messages of a stream arrive together: after so long without one, there are no more.
const LAST_TIMEOUT: Duration = Duration::from_millis(500);

/// Reads the events that are published to the exchange from now on, through a temporary queue.
///
/// # Errors
/// If no broker answers, or the user may not declare and bind a queue.
pub async fn consume(options: &Options, keys: &[Arc<str>], on_consumed: OnConsumed<'_>) -> Result<(), Error> {
    let BrokerConnection { connection, mut peer, .. } = connect::connect(options).await?;
    peer.grant = Permissions::of(options).consuming_exchange(&options.exchange).command();
    let of_session = |error: lapin::Error| Error::of_session(&error, &peer);
    let channel = connection.create_channel().await.map_err(of_session)?;
    let temporary = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), temporary, FieldTable::default()).await.map_err(of_session)?;
    for key in keys {
        let (exchange, bound) = (peer.exchange.as_str().into(), QueueBindOptions::default());
        channel
            .queue_bind(queue.name().clone(), exchange, (&**key).into(), bound, FieldTable::default())
            .await
            .map_err(|error| Error::of_exchange(&error, &peer.exchange, "topic", &peer))?;
    }
    let mut consumer = consumer(&channel, queue.name().as_str(), FieldTable::default(), &peer).await?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.map_err(of_session)?;
        if on_consumed(event(&delivery)).is_break() {
            return Ok(());
        }
        delivery.acker.ack(BasicAckOptions::default()).await.map_err(of_session)?;
    }
    Err(Error::Unconfirmed { reason: "the connection ended".to_owned() })
}

/// Reads the dead letters that are in their queue now, and leaves them there.
///
/// # Errors
/// If no broker answers, the queue does not exist, the user may not read it, or the broker stops sending before the end.
pub async fn dead_letters(options: &Options, queue: &str, on_consumed: OnConsumed<'_>) -> Result<(), Error> {
    let BrokerConnection { connection, mut peer, .. } = connect::connect(options).await?;
    peer.grant = Permissions::of(options).reading_queue(queue).command();
    let channel = async || connection.create_channel().await.map_err(|error| Error::of_session(&error, &peer));
    match queue_end(&channel().await?, queue, &peer).await? {
        QueueEnd::Empty => Ok(()),
        QueueEnd::Offset(end) => read_stream(&channel().await?, queue, end, on_consumed, &peer).await,
        QueueEnd::NotAStream => read_queue(&channel().await?, queue, on_consumed, &peer).await,
    }
}

/// The end of a queue.
enum QueueEnd {
    Empty,
    /// The offset of a stream's last message.
    Offset(i64),
    NotAStream,
}

/// Finds the end of a queue by reading its last messages.
async fn queue_end(channel: &Channel, queue: &str, peer: &Peer) -> Result<QueueEnd, Error> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
    let count = declared.map_err(|error| Error::of_queue(&error, queue, peer))?.message_count();
    // The message count of a stream is updated only from time to time.
    let mut message_timeout = if count == 0 { FIRST_TIMEOUT } else { ANSWER_TIMEOUT };
    let mut consumer = consumer(channel, queue, stream_offset("last"), peer).await?;
    let mut end = None;
    while let Ok(Some(delivery)) = timeout(message_timeout, consumer.next()).await {
        let delivery = delivery.map_err(|error| Error::of_session(&error, peer))?;
        let Some(offset) = offset(&delivery) else { return Ok(QueueEnd::NotAStream) };
        if end.is_none_or(|end| end < offset) {
            end = Some(offset);
        }
        delivery.acker.ack(BasicAckOptions::default()).await.map_err(|error| Error::of_session(&error, peer))?;
        message_timeout = LAST_TIMEOUT;
    }
    match end {
        Some(end) => Ok(QueueEnd::Offset(end)),
        None if count == 0 => Ok(QueueEnd::Empty),
        None => Err(no_answer(peer)),
    }
}

/// Reads a stream up to an offset. Acknowledging a stream's message only asks for more; it removes nothing.
async fn read_stream(channel: &Channel, queue: &str, end: i64, on_consumed: OnConsumed<'_>, peer: &Peer) -> Result<(), Error> {
    let of_session = |error: lapin::Error| Error::of_session(&error, peer);
    let mut consumer = consumer(channel, queue, stream_offset("first"), peer).await?;
    loop {
        let Ok(Some(delivery)) = timeout(ANSWER_TIMEOUT, consumer.next()).await else { return Err(no_answer(peer)) };
        let delivery = delivery.map_err(of_session)?;
        if on_consumed(event(&delivery)).is_break() || offset(&delivery).is_none_or(|offset| end <= offset) {
            return Ok(());
        }
        delivery.acker.ack(BasicAckOptions::default()).await.map_err(of_session)?;
    }
}

/// Reads an ordinary queue message by message. All messages return to it when the connection ends.
async fn read_queue(channel: &Channel, queue: &str, on_consumed: OnConsumed<'_>, peer: &Peer) -> Result<(), Error> {
    loop {
        let got = timeout(ANSWER_TIMEOUT, channel.basic_get(queue.into(), BasicGetOptions::default())).await;
        let got = got.map_err(|_| no_answer(peer))?.map_err(|error| Error::of_queue(&error, queue, peer))?;
        let Some(message) = got else { return Ok(()) };
        if on_consumed(event(&message.delivery)).is_break() {
            return Ok(());
        }
    }
}

/// The consumer argument for reading a stream from here on.
fn stream_offset(start: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString(start.into()));
    arguments
}

/// The offset of a message in its stream; `None` if the queue is not a stream.
fn offset(delivery: &Delivery) -> Option<i64> {
    match delivery.properties.headers().as_ref()?.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => Some(*offset),
        _ => None,
    }
}

/// Consumes a queue with at most [`UNREAD_MAX`] unacknowledged messages.
async fn consumer(channel: &Channel, queue: &str, arguments: FieldTable, peer: &Peer) -> Result<Consumer, Error> {
    let bounded = channel.basic_qos(UNREAD_MAX, BasicQosOptions::default()).await;
    bounded.map_err(|error| Error::of_session(&error, peer))?;
    let consuming = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments).await;
    consuming.map_err(|error| Error::of_queue(&error, queue, peer))
}

fn event(delivery: &Delivery) -> Consumed {
    let properties = &delivery.properties;
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => text.to_string(),
        other => format!("{other:?}"),
    };
    let headers = properties.headers().iter().flat_map(|headers| headers.inner().iter());
    let mut headers: Vec<(String, String)> = headers.map(|(name, value)| (name.to_string(), text(value))).collect();
    for (name, value) in [("feedline-id", properties.message_id()), ("feedline-op", properties.kind())] {
        headers.extend(value.as_ref().map(|value| (name.to_owned(), value.to_string())));
    }
    let key = carried(&headers, Part::Key).or_else(|| carried(&headers, Part::PartitionKey)).map(str::to_owned);
    let content_type = properties.content_type().as_ref().map(ToString::to_string);
    Consumed { address: delivery.routing_key.to_string(), key, headers, content_type, body: Some(delivery.data.clone()) }
}
