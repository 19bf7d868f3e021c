//! Reads an exchange, or the dead letters, back, for people.

use super::Options;
use super::error::{Error, Party};
use super::link::{self, ANSWER_TIMEOUT, Connected, silent};
use super::permissions::Permissions;
use crate::sink::{Consumed, OnConsumed};
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// As many events are on their way to a listener: the rest waits at the broker, however slowly they are read.
const UNREAD_MAX: u16 = 256;
/// How long a queue that counts no message may take to send one.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
/// The last events of a stream come together: after so long a silence that was all.
const LAST_SILENCE: Duration = Duration::from_millis(500);

/// Listens to what is published to the exchange from now on, on a queue of its own that goes with the connection.
///
/// # Errors
/// Where no broker answers, or the user may not make a queue and bind it.
pub async fn consume(options: &Options, keys: &[Arc<str>], on_consumed: OnConsumed<'_>) -> Result<(), Error> {
    let Connected { connection, mut party, .. } = link::connect(options).await?;
    party.grant = Permissions::of(options).listening(&options.exchange).command();
    let of_session = |error: lapin::Error| Error::of_session(&error, &party);
    let channel = connection.create_channel().await.map_err(of_session)?;
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), own, FieldTable::default()).await.map_err(of_session)?;
    for key in keys {
        let (exchange, bound) = (party.exchange.as_str().into(), QueueBindOptions::default());
        channel
            .queue_bind(queue.name().clone(), exchange, (&**key).into(), bound, FieldTable::default())
            .await
            .map_err(|error| Error::of_exchange(&error, &party.exchange, "topic", &party))?;
    }
    let mut consumer = consumer(&channel, queue.name().as_str(), FieldTable::default(), &party).await?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.map_err(of_session)?;
        if on_consumed(event(&delivery)).is_break() {
            return Ok(());
        }
        delivery.acker.ack(BasicAckOptions::default()).await.map_err(of_session)?;
    }
    Err(Error::Unconfirmed { reason: "the connection ended".to_owned() })
}

/// Reads the queue of dead letters from its beginning to its end, as it is when this begins. What is read stays.
///
/// # Errors
/// Where no broker answers, or there is no such queue, or the user may not read it, or it falls silent before its end.
pub async fn dead_letters(options: &Options, queue: &str, on_consumed: OnConsumed<'_>) -> Result<(), Error> {
    let Connected { connection, mut party, .. } = link::connect(options).await?;
    party.grant = Permissions::of(options).reading(queue).command();
    let channel = async || connection.create_channel().await.map_err(|error| Error::of_session(&error, &party));
    match last(&channel().await?, queue, &party).await? {
        Last::None => Ok(()),
        Last::Offset(end) => stream(&channel().await?, queue, end, on_consumed, &party).await,
        Last::NoStream => taken(&channel().await?, queue, on_consumed, &party).await,
    }
}

/// The end of a queue.
enum Last {
    /// It is empty.
    None,
    /// It is a stream, and this is the offset of its last message.
    Offset(i64),
    /// It is a queue from which messages are taken.
    NoStream,
}

/// Looks at the last messages of a queue.
async fn last(channel: &Channel, queue: &str, party: &Party) -> Result<Last, Error> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
    let count = declared.map_err(|error| Error::of_queue(&error, queue, party))?.message_count();
    // A stream counts now and then only.
    let mut confirm_timeout = if count == 0 { FIRST_PATIENCE } else { ANSWER_TIMEOUT };
    let mut consumer = consumer(channel, queue, from("last"), party).await?;
    let mut end = None;
    while let Ok(Some(delivery)) = timeout(confirm_timeout, consumer.next()).await {
        let delivery = delivery.map_err(|error| Error::of_session(&error, party))?;
        let Some(offset) = offset(&delivery) else { return Ok(Last::NoStream) };
        if end.is_none_or(|end| end < offset) {
            end = Some(offset);
        }
        delivery.acker.ack(BasicAckOptions::default()).await.map_err(|error| Error::of_session(&error, party))?;
        confirm_timeout = LAST_SILENCE;
    }
    match end {
        Some(end) => Ok(Last::Offset(end)),
        None if count == 0 => Ok(Last::None),
        None => Err(silent(party)),
    }
}

/// Reads a stream up to an offset. To acknowledge there is to ask for more: nothing goes by it.
async fn stream(channel: &Channel, queue: &str, end: i64, on_consumed: OnConsumed<'_>, party: &Party) -> Result<(), Error> {
    let of_session = |error: lapin::Error| Error::of_session(&error, party);
    let mut consumer = consumer(channel, queue, from("first"), party).await?;
    loop {
        let Ok(Some(delivery)) = timeout(ANSWER_TIMEOUT, consumer.next()).await else { return Err(silent(party)) };
        let delivery = delivery.map_err(of_session)?;
        if on_consumed(event(&delivery)).is_break() || offset(&delivery).is_none_or(|offset| end <= offset) {
            return Ok(());
        }
        delivery.acker.ack(BasicAckOptions::default()).await.map_err(of_session)?;
    }
}

/// Reads a queue that somebody else made, message by message; all go back when the connection ends.
async fn taken(channel: &Channel, queue: &str, on_consumed: OnConsumed<'_>, party: &Party) -> Result<(), Error> {
    loop {
        let got = timeout(ANSWER_TIMEOUT, channel.basic_get(queue.into(), BasicGetOptions::default())).await;
        let got = got.map_err(|_| silent(party))?.map_err(|error| Error::of_queue(&error, queue, party))?;
        let Some(message) = got else { return Ok(()) };
        if on_consumed(event(&message.delivery)).is_break() {
            return Ok(());
        }
    }
}

fn from(place: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString(place.into()));
    arguments
}

/// The place of a message in its stream.
fn offset(delivery: &Delivery) -> Option<i64> {
    match delivery.properties.headers().as_ref()?.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => Some(*offset),
        _ => None,
    }
}

/// Consumes, a bounded number of messages ahead of the acknowledgements.
async fn consumer(channel: &Channel, queue: &str, arguments: FieldTable, party: &Party) -> Result<Consumer, Error> {
    let bounded = channel.basic_qos(UNREAD_MAX, BasicQosOptions::default()).await;
    bounded.map_err(|error| Error::of_session(&error, party))?;
    let consuming = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments).await;
    consuming.map_err(|error| Error::of_queue(&error, queue, party))
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
    let key = headers.iter().find(|(name, _)| name == "feedline-key").map(|(_, key)| key.clone());
    Consumed { address: delivery.routing_key.to_string(), key, headers, body: Some(delivery.data.clone()) }
}
