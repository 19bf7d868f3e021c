//! A connection to the checkpoint's queue: declarations, the write lock, the read lock, and the marker queue.

use super::error::CheckpointError;
use crate::checkpoint::fencing::StampedCheckpoint;
use crate::sink::amqp::connect::{self, ANSWER_TIMEOUT, BrokerConnection, no_answer};
use crate::sink::amqp::declare;
use crate::sink::amqp::error::{Error, Peer};
use crate::sink::amqp::lock::Lock;
use crate::sink::amqp::options::{Options, QueueType};
use crate::sink::amqp::permissions::Permissions;
use crate::sink::amqp::socket::Traffic;
use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The queue's `x-delivery-limit`. A quorum queue drops a message that was returned more often than its limit, by default 20 times from
/// version 4 on (RabbitMQ documentation, "Quorum Queues", Repeated Requeues).
const DELIVERY_LIMIT: i32 = i32::MAX;
/// How long another client may hold the checkpoint, or consume its queue, before that is an error.
pub(super) const HIDDEN_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const HIDDEN_INTERVAL: Duration = Duration::from_millis(50);

/// A connection to the checkpoint's queue, with one channel. After an error it is unusable: the next attempt opens another.
#[derive(Debug)]
pub(super) struct CheckpointQueue {
    /// Dropping it closes the connection and releases the locks.
    pub(super) connection: Connection,
    pub(super) channel: Channel,
    pub(super) name: String,
    peer: Peer,
    traffic: Traffic,
    /// The write lock, if this connection writes.
    lock: Option<Lock>,
    /// Whether the marker queue is known to exist.
    pub(super) is_marked: bool,
    /// Since when each write has found a consumer on the queue.
    pub(super) consumed_since: Option<Instant>,
    /// The messages that were in the queue when it was opened. The next write removes them.
    pub(super) stale: Vec<StampedCheckpoint>,
}

impl CheckpointQueue {
    pub(super) async fn open(options: &Options, name: &str) -> Result<Self, CheckpointError> {
        let BrokerConnection { connection, mut peer, traffic, .. } = connect::connect(options).await?;
        peer.grant = Permissions::of_events(options).keeping_checkpoint(options).command();
        let created = timeout(ANSWER_TIMEOUT, connection.create_channel()).await.map_err(|_| no_answer(&peer))?;
        let channel = created.map_err(|error| Error::of_session(&error, &peer))?;
        Ok(Self {
            connection,
            channel,
            name: name.to_owned(),
            peer,
            traffic,
            lock: None,
            is_marked: false,
            consumed_since: None,
            stale: Vec::new(),
        })
    }

    /// Waits for the broker's answer. There is no timeout while the broker blocks publishers, or bytes move over the connection.
    pub(super) async fn answer<T>(&self, request: impl Future<Output = lapin::Result<T>>) -> Result<T, CheckpointError> {
        tokio::pin!(request);
        loop {
            let bytes_before = self.traffic.bytes();
            match timeout(ANSWER_TIMEOUT, &mut request).await {
                Ok(answer) => return answer.map_err(|error| CheckpointError::of(&error, &self.name, &self.peer)),
                Err(_) if self.connection.status().blocked() || self.traffic.bytes() != bytes_before => {}
                Err(_) => return Err(no_answer(&self.peer).into()),
            }
        }
    }

    /// Takes the write lock, and declares or verifies the queue.
    pub(super) async fn take_write_lock(mut self, declare: bool) -> Result<Self, CheckpointError> {
        let lock = self.write_lock_name();
        self.declare_exclusive(&self.channel, &lock).await?;
        self.lock = Some(self.answer(Lock::watch(&self.channel, &lock)).await.map_err(CheckpointError::of_lock)?);
        self.declare(declare).await?;
        self.enable_confirms().await?;
        Ok(self)
    }

    fn write_lock_name(&self) -> String {
        format!("{}.lock", self.name)
    }

    /// The queue itself if the connection is open and the write lock still owned. A policy or an operator may delete the lock.
    pub(super) fn if_still_locked(mut self) -> Option<Self> {
        let is_locked = self.lock.as_mut().is_some_and(Lock::is_held) && self.connection.status().connected();
        is_locked.then_some(self)
    }

    /// Declares the queue, or verifies that it exists.
    pub(super) async fn declare(&self, declare: bool) -> Result<(), CheckpointError> {
        let options = QueueDeclareOptions { durable: true, passive: !declare, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(QueueType::Quorum.name().into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
        self.answer(self.channel.queue_declare(self.name.as_str().into(), options, arguments)).await.map(drop)
    }

    /// Declares another durable quorum queue.
    pub(super) async fn declare_quorum(&self, queue: &str) -> Result<(), CheckpointError> {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(QueueType::Quorum.name().into()));
        self.answer(self.channel.queue_declare(queue.into(), durable, arguments)).await.map(drop)
    }

    /// Declares an exclusive queue, which this connection owns until it closes.
    async fn declare_exclusive(&self, channel: &Channel, name: &str) -> Result<(), CheckpointError> {
        let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        match self.answer(channel.queue_declare(name.into(), exclusive, FieldTable::default())).await {
            Ok(_) => Ok(()),
            Err(CheckpointError::Broker(Error::LockHeld { address, .. })) => {
                declare::assert_lock(&self.connection, name, &self.peer).await?;
                Err(Error::LockHeld { address, lock: name.to_owned() }.into())
            }
            Err(error) => Err(error.of_lock()),
        }
    }

    /// Switches the channel to publisher confirms.
    pub(super) async fn enable_confirms(&self) -> Result<(), CheckpointError> {
        self.answer(self.channel.confirm_select(ConfirmSelectOptions::default())).await
    }

    /// Whether the queue exists. If not, the channel is closed afterwards.
    pub(super) async fn exists(&self) -> Result<bool, CheckpointError> {
        Ok(self.consumer_count(&self.channel, &self.name).await?.is_some())
    }

    /// The number of a queue's consumers. `None` if the queue does not exist; the channel is closed then.
    pub(super) async fn consumer_count(&self, channel: &Channel, queue: &str) -> Result<Option<u32>, CheckpointError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match self.answer(channel.queue_declare(queue.into(), passive, FieldTable::default())).await {
            Ok(declared) => Ok(Some(declared.consumer_count())),
            Err(CheckpointError::Queue { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until the queue has no consumer, which would take the checkpoint away.
    ///
    /// A quorum queue also counts a client that holds a message, and for a moment longer. So this is called under the read lock (see
    /// [`Self::with_read_lock`]). Beside a writer it returns at once: a writer holds messages with each write, and checks for consumers
    /// itself.
    pub(super) async fn wait_until_unconsumed(&self) -> Result<(), CheckpointError> {
        let until = Instant::now() + HIDDEN_TIMEOUT;
        loop {
            let consumers = self.consumer_count(&self.channel, &self.name).await?;
            let Some(consumers) = consumers.filter(|consumers| 0 < *consumers) else {
                return Ok(());
            };
            if self.lock.is_none() && self.has_other_writer().await? {
                return Ok(());
            }
            if until <= Instant::now() {
                return Err(CheckpointError::Consumed { queue: self.name.clone(), consumers });
            }
            sleep(HIDDEN_INTERVAL).await;
        }
    }

    /// Whether another connection owns the write lock.
    async fn has_other_writer(&self) -> Result<bool, CheckpointError> {
        let channel = self.answer(self.connection.create_channel()).await?;
        match self.consumer_count(&channel, &self.write_lock_name()).await {
            // A queue that anybody may use is not a lock. If there is no queue, the broker has closed the channel.
            Ok(found) => {
                if found.is_some() {
                    self.answer(channel.close(200, "looked".into())).await?;
                }
                Ok(false)
            }
            Err(CheckpointError::Broker(Error::LockHeld { .. })) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Does some work under the read lock. If the work fails, the lock is released with the connection.
    pub(super) async fn with_read_lock<T>(&self, work: impl Future<Output = Result<T, CheckpointError>>) -> Result<T, CheckpointError> {
        let until = Instant::now() + HIDDEN_TIMEOUT;
        let lock = loop {
            match self.try_read_lock().await? {
                Ok(lock) => break lock,
                Err(held) if until <= Instant::now() => return Err(held.into()),
                Err(_) => sleep(HIDDEN_INTERVAL).await,
            }
        };
        let done = work.await?;
        self.release_read_lock(lock).await?;
        Ok(done)
    }

    /// Takes the read lock on a channel of its own. The inner error says that another connection owns it.
    pub(super) async fn try_read_lock(&self) -> Result<Result<Channel, Error>, CheckpointError> {
        let channel = self.answer(self.connection.create_channel()).await?;
        match self.declare_exclusive(&channel, &self.read_lock_name()).await {
            Ok(()) => Ok(Ok(channel)),
            Err(CheckpointError::Broker(held @ Error::LockHeld { .. })) => Ok(Err(held)),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn release_read_lock(&self, lock: Channel) -> Result<(), CheckpointError> {
        self.answer(lock.queue_delete(self.read_lock_name().into(), QueueDeleteOptions::default()))
            .await
            .map_err(CheckpointError::of_lock)?;
        self.answer(lock.close(200, "looked".into())).await
    }

    fn read_lock_name(&self) -> String {
        format!("{}.look", self.name)
    }

    /// The queue that exists once a checkpoint was written.
    pub(super) fn marker_name(&self) -> String {
        format!("{}.written", self.name)
    }

    /// Whether a checkpoint was written, and not removed by feedline.
    pub(super) async fn was_written(&self) -> Result<bool, CheckpointError> {
        let channel = self.answer(self.connection.create_channel()).await?;
        let found = self.consumer_count(&channel, &self.marker_name()).await?;
        if found.is_some() {
            self.answer(channel.close(200, "looked".into())).await?;
        }
        Ok(found.is_some())
    }

    /// Declares the marker queue if it does not exist.
    pub(super) async fn mark_written(&mut self) -> Result<(), CheckpointError> {
        if !self.is_marked {
            if !self.was_written().await? {
                self.declare_quorum(&self.marker_name()).await?;
            }
            self.is_marked = true;
        }
        Ok(())
    }
}
