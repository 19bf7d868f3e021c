//! Declares exchanges and queues, or verifies them.

use super::error::{self, Error, Peer};
use super::options::Queue;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

/// Called after the lock could not be taken. Fails if an ordinary queue has the lock's name: a passive declaration succeeds on a
/// queue that anybody may use, and fails on another connection's lock.
pub(super) async fn assert_lock(connection: &Connection, lock: &str, peer: &Peer) -> Result<(), Error> {
    let channel = connection.create_channel().await.map_err(|error| Error::of_session(&error, peer))?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(lock.into(), passive, FieldTable::default()).await {
        Ok(_) => Err(Error::LockNameTaken { address: peer.address.clone(), queue: lock.to_owned() }),
        Err(_) => Ok(()),
    }
}

/// Declares the dead-letter exchange with its queue, or verifies the exchange. Returns the channel to go on with.
pub(super) async fn declare_dead_letters(
    connection: &Connection,
    channel: Channel,
    name: &str,
    declare: bool,
    peer: &Peer,
) -> Result<Channel, Error> {
    let channel = declare_exchange(connection, channel, (name, ExchangeKind::Fanout), declare, peer).await?;
    if declare {
        declare_and_bind(&channel, &Queue::of_dead_letters(name), name, peer).await?;
    }
    Ok(channel)
}

/// Declares an exchange, or verifies that it exists. Returns the channel to go on with.
pub(super) async fn declare_exchange(
    connection: &Connection,
    channel: Channel,
    (name, kind): (&str, ExchangeKind),
    declare: bool,
    peer: &Peer,
) -> Result<Channel, Error> {
    let options = ExchangeDeclareOptions { durable: true, passive: !declare, ..ExchangeDeclareOptions::default() };
    match channel.exchange_declare(name.into(), kind.clone(), options, FieldTable::default()).await {
        Ok(()) => Ok(channel),
        // The broker has closed the channel.
        Err(error) if differs_in_alternate_alone(&error) => {
            connection.create_channel().await.map_err(|error| Error::of_session(&error, peer))
        }
        Err(error) => Err(Error::of_exchange(&error, name, name_of(&kind), peer)),
    }
}

/// Whether an existing exchange differs from the declared one in its alternate exchange alone, which is its owner's choice.
///
/// RabbitMQ names the first difference. It compares type, durability, auto-delete and internal before the arguments, and of the
/// arguments only this one (`rabbit_exchange:assert_equivalence`).
fn differs_in_alternate_alone(error: &lapin::Error) -> bool {
    error::refusal(error).is_some_and(|(_, reason)| reason.contains("inequivalent arg 'alternate-exchange'"))
}

/// The name of an exchange type, for error messages.
pub(super) const fn name_of(kind: &ExchangeKind) -> &'static str {
    match kind {
        ExchangeKind::Fanout => "fanout",
        _ => "topic",
    }
}

/// Declares a queue. The broker compares it with an existing one.
pub(super) async fn declare_queue(channel: &Channel, queue: &Queue) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue.kind.name().into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.name.as_str().into(), durable, arguments).await.map(drop)
}

/// Declares a queue and binds it to an exchange.
pub(super) async fn declare_and_bind(channel: &Channel, queue: &Queue, exchange: &str, peer: &Peer) -> Result<(), Error> {
    let of_queue = |error: lapin::Error| Error::of_queue(&error, &queue.name, peer);
    declare_queue(channel, queue).await.map_err(of_queue)?;
    for key in &queue.keys {
        let name = queue.name.as_str().into();
        channel
            .queue_bind(name, exchange.into(), key.as_str().into(), QueueBindOptions::default(), FieldTable::default())
            .await
            .map_err(of_queue)?;
    }
    Ok(())
}
