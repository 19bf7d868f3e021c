//! Reads an exchange, or the dead letters, back, for people.

use super::Options;
use super::error::{Error, Party};
use super::link;
use super::permissions::Permissions;
use crate::sink::{Hear, Heard};
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long it may be silent until all dead letters are taken for read.
const SILENCE: Duration = Duration::from_secs(1);
/// As many dead letters are read at most: none is taken away, so that the broker sends no more than this.
pub const LETTERS_MAX: u16 = u16::MAX;

/// Listens to what is published to the exchange from now on, on a queue of its own that goes with the connection.
///
/// # Errors
/// Where no broker answers, or the user may not make a queue and bind it.
pub async fn listen(options: &Options, keys: &[Arc<str>], hear: Hear<'_>) -> Result<(), Error> {
    let (connection, mut party, _) = link::connect(options).await?;
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
    let without_acks = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut consumer = consume(&channel, queue.name().as_str(), without_acks, FieldTable::default(), &party).await?;
    while let Some(delivery) = consumer.next().await {
        if hear(event(&delivery.map_err(of_session)?)).is_break() {
            return Ok(());
        }
    }
    Err(Error::Unconfirmed { reason: "the connection ended".to_owned() })
}

/// Reads the queue of dead letters from its beginning to its end. What is read stays.
///
/// # Errors
/// Where no broker answers, or there is no such queue, or the user may not read it.
pub async fn dead_letters(options: &Options, queue: &str, hear: Hear<'_>) -> Result<(), Error> {
    let (connection, mut party, _) = link::connect(options).await?;
    party.grant = Permissions::of(options).reading(queue).command();
    let channel = connection.create_channel().await.map_err(|error| Error::of_session(&error, &party))?;
    channel.basic_qos(LETTERS_MAX, BasicQosOptions::default()).await.map_err(|error| Error::of_session(&error, &party))?;
    let mut from = FieldTable::default();
    from.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let mut consumer = consume(&channel, queue, BasicConsumeOptions::default(), from, &party).await?;
    while let Ok(Some(delivery)) = timeout(SILENCE, consumer.next()).await {
        let delivery = delivery.map_err(|error| Error::of_session(&error, &party))?;
        if hear(event(&delivery)).is_break() {
            break;
        }
    }
    Ok(())
}

async fn consume(
    channel: &Channel,
    queue: &str,
    options: BasicConsumeOptions,
    arguments: FieldTable,
    party: &Party,
) -> Result<Consumer, Error> {
    let consuming = channel.basic_consume(queue.into(), "".into(), options, arguments).await;
    consuming.map_err(|error| Error::of_queue(&error, queue, party))
}

fn event(delivery: &Delivery) -> Heard {
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
    Heard { place: delivery.routing_key.to_string(), key, headers, body: Some(delivery.data.clone()) }
}
