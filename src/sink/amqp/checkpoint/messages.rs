//! Reads, replaces and removes the messages in the checkpoint's queue.

use super::error::CheckpointError;
use super::queue::{CheckpointQueue, HIDDEN_INTERVAL, HIDDEN_TIMEOUT};
use crate::checkpoint::fencing::{CheckpointWriter, StampedCheckpoint};
use crate::sink::amqp::error::Error;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::{BasicProperties, Confirmation};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The most messages that a write reads. A client that fills the queue faster does not hold it up.
const MESSAGES_MAX: usize = 1_000;
/// How often to check whether the broker blocks publishers.
const BLOCKED_INTERVAL: Duration = Duration::from_millis(100);

impl CheckpointQueue {
    /// Like [`Self::newest`], but if a checkpoint was written and the queue does not show it, reads again until it does.
    pub(super) async fn wait_until_shown(&self) -> Result<(Option<StampedCheckpoint>, Vec<StampedCheckpoint>), CheckpointError> {
        let until = Instant::now() + HIDDEN_TIMEOUT;
        loop {
            let found = self.newest().await?;
            if found.0.is_some() || !self.was_written().await? {
                return Ok(found);
            }
            if until <= Instant::now() {
                return Err(CheckpointError::Hidden { queue: self.name.clone() });
            }
            sleep(HIDDEN_INTERVAL).await;
        }
    }

    /// Reads the newest checkpoint in the queue, and all checkpoints. They stay in the queue.
    pub(super) async fn newest(&self) -> Result<(Option<StampedCheckpoint>, Vec<StampedCheckpoint>), CheckpointError> {
        let read = async {
            self.wait_until_unconsumed().await?;
            let (mut checkpoints, mut stray) = (Vec::new(), None);
            // The last message to return to the queue. The newest checkpoint is not returned.
            let mut last_tag = None;
            let mut newest: Option<(u64, BasicGetMessage)> = None;
            // Reads only the messages that were in the queue at the beginning.
            let mut left = u32::MAX;
            while 0 < left
                && let Some(message) = self.get().await?
            {
                left = message.message_count.min(left - 1);
                match StampedCheckpoint::read(&message.data, &self.name) {
                    Ok(found) => {
                        let older = match &newest {
                            Some((generation, _)) if found.generation < *generation => Some(message.delivery_tag),
                            _ => newest.replace((found.generation, message)).map(|(_, older)| older.delivery_tag),
                        };
                        last_tag = last_tag.max(older);
                        checkpoints.push(found);
                    }
                    Err(unfit) if is_stray(&message.data) => {
                        last_tag = last_tag.max(Some(message.delivery_tag));
                        stray = Some(unfit);
                    }
                    Err(unfit) => return Err(unfit.into()),
                }
            }
            // The broker drops a message that is returned too often, so the newest is published again instead.
            if let Some((_, message)) = newest
                && !self.republish(&message).await?
            {
                last_tag = last_tag.max(Some(message.delivery_tag));
            }
            if let Some(tag) = last_tag {
                self.requeue(tag).await?;
            }
            match stray {
                Some(unfit) if checkpoints.is_empty() => Err(unfit.into()),
                Some(_) => {
                    tracing::warn!(
                        queue = self.name,
                        "the queue holds a message that is not a checkpoint; the next write moves it to another queue"
                    );
                    Ok(checkpoints)
                }
                None => Ok(checkpoints),
            }
        };
        let checkpoints = Box::pin(self.with_read_lock(read)).await?;
        Ok((checkpoints.iter().max_by_key(|found| found.generation).cloned(), checkpoints))
    }

    /// Publishes a checkpoint, and removes the ones before when it is confirmed. Fails if another process has written meanwhile: then
    /// the new checkpoint is removed instead. Messages that are not checkpoints move to a queue of their own.
    pub(super) async fn replace(&mut self, writer: &CheckpointWriter, generation: u64, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.publish(&self.name, bytes, BasicProperties::default()).await?;
        self.mark_written().await?;
        let is_ours = |found: &StampedCheckpoint| found.generation == generation && writer.may_replace(found);
        let (mut unread, mut foreign) = (None, None);
        for _ in 0..MESSAGES_MAX {
            let Some(message) = self.get().await? else { break };
            let tag = message.delivery_tag;
            match StampedCheckpoint::read(&message.data, &self.name) {
                // A reader holds the older checkpoint: the next write removes it.
                Ok(found) if is_ours(&found) && foreign.is_none() => {
                    if !self.republish(&message).await? {
                        unread = Some(tag);
                    }
                    break;
                }
                Ok(found) if writer.may_replace(&found) || self.stale.contains(&found) => {
                    self.answer(self.channel.basic_ack(tag, BasicAckOptions::default())).await?;
                    if message.message_count <= 1 && foreign.is_none() {
                        break;
                    }
                }
                Ok(_) => foreign = Some(tag),
                Err(_) if is_stray(&message.data) => self.set_aside(&message).await?,
                Err(_) => unread = Some(tag),
            }
        }
        self.stale.clear();
        if let Some(tag) = foreign.max(unread) {
            self.requeue(tag).await?;
        }
        if foreign.is_some() {
            return Err(writer.taken_over().into());
        }
        self.check_consumers().await
    }

    /// Fails if writes have found a consumer on the queue for longer than [`HIDDEN_TIMEOUT`].
    async fn check_consumers(&mut self) -> Result<(), CheckpointError> {
        let consumers = self.consumer_count(&self.channel, &self.name).await?.unwrap_or(0);
        if consumers == 0 {
            self.consumed_since = None;
            return Ok(());
        }
        let since = *self.consumed_since.get_or_insert_with(Instant::now);
        if since.elapsed() < HIDDEN_TIMEOUT {
            return Ok(());
        }
        // The count may include this connection until the queue has noted that its message was returned, and readers. So ask again
        // under the read lock; if a reader has it, with the next write.
        if let Ok(lock) = self.try_read_lock().await? {
            self.wait_until_unconsumed().await?;
            self.release_read_lock(lock).await?;
            self.consumed_since = None;
        }
        Ok(())
    }

    /// Removes all checkpoints and the marker. Returns whether there was a checkpoint.
    pub(super) async fn clear(&self, declare: bool) -> Result<bool, CheckpointError> {
        let was_written = self.was_written().await?;
        let name = || self.name.as_str().into();
        let removed = if declare {
            // Deleting also removes the messages that clients hold, which a purge leaves.
            let removed = self.answer(self.channel.queue_delete(name(), QueueDeleteOptions::default())).await?;
            self.declare(declare).await?;
            removed
        } else {
            self.answer(self.channel.queue_purge(name(), QueuePurgeOptions::default())).await?
        };
        self.answer(self.channel.queue_delete(self.marker_name().into(), QueueDeleteOptions::default())).await?;
        Ok(was_written || 0 < removed)
    }

    async fn get(&self) -> Result<Option<BasicGetMessage>, CheckpointError> {
        self.answer(self.channel.basic_get(self.name.as_str().into(), BasicGetOptions::default())).await
    }

    /// Publishes a message that was taken out as a new one, and acknowledges the old one. Returns false if the broker blocks publishers.
    async fn republish(&self, message: &BasicGetMessage) -> Result<bool, CheckpointError> {
        let blocked = async {
            while !self.connection.status().blocked() {
                sleep(BLOCKED_INTERVAL).await;
            }
        };
        tokio::select! { biased;
            published = self.publish(&self.name, &message.data, BasicProperties::default()) => published?,
            () = blocked => return Ok(false),
        }
        self.answer(self.channel.basic_ack(message.delivery_tag, BasicAckOptions::default())).await?;
        Ok(true)
    }

    /// Moves a message that is not a checkpoint to a queue of its own. In this queue each write would read it again, and a quorum queue
    /// could not truncate its log.
    async fn set_aside(&self, message: &BasicGetMessage) -> Result<(), CheckpointError> {
        let aside = format!("{}.strays", self.name);
        self.declare_quorum(&aside).await?;
        self.publish(&aside, &message.data, descriptive(&message.properties)).await?;
        self.answer(self.channel.basic_ack(message.delivery_tag, BasicAckOptions::default())).await?;
        let bytes = message.data.len();
        tracing::warn!(
            queue = self.name,
            aside,
            bytes,
            "a message that is not a checkpoint was moved to another queue: only feedline may use the checkpoint's queue"
        );
        Ok(())
    }

    /// Returns the messages up to this delivery tag to the queue.
    async fn requeue(&self, tag: u64) -> Result<(), CheckpointError> {
        let requeue_all = BasicNackOptions { multiple: true, requeue: true };
        self.answer(self.channel.basic_nack(tag, requeue_all)).await
    }

    /// Publishes to a queue, and waits for the confirm.
    async fn publish(&self, queue: &str, bytes: &[u8], properties: BasicProperties) -> Result<(), CheckpointError> {
        let mut properties = properties.with_delivery_mode(2);
        if properties.content_type().is_none() {
            properties = properties.with_content_type("application/json".into());
        }
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published = async { self.channel.basic_publish("".into(), queue.into(), mandatory, bytes, properties).await?.await };
        let refused = |reason: &str| Err(Error::Unconfirmed { reason: format!("queue {queue}: {reason}") }.into());
        match self.answer(published).await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => refused("it no longer exists"),
            Confirmation::Nack(_) => refused("the broker refused the checkpoint (nack)"),
            Confirmation::NotRequested => refused("the channel does not confirm"),
        }
    }
}

/// The properties that describe a message, without those that the broker acts on.
fn descriptive(properties: &BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default();
    if let Some(kind) = properties.content_type() {
        kept = kept.with_content_type(kind.clone());
    }
    if let Some(id) = properties.message_id() {
        kept = kept.with_message_id(id.clone());
    }
    if let Some(kind) = properties.kind() {
        kept = kept.with_type(kind.clone());
    }
    if let Some(application) = properties.app_id() {
        kept = kept.with_app_id(application.clone());
    }
    kept
}

/// Whether a message is certainly not a checkpoint. A message that has a version may be one that this feedline cannot read.
fn is_stray(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Version {
        #[serde(rename = "version")]
        _version: serde_json::Value,
    }
    serde_json::from_slice::<Version>(bytes).is_err()
}
