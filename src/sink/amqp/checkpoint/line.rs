//! A connection to the checkpoint's queue, and what is done on it.

use super::{CheckpointError, HIDDEN_INTERVAL, HIDDEN_TIMEOUT, LOOKS_MAX};
use crate::checkpoint::fencing::{CheckpointWriter, StampedCheckpoint};
use crate::sink::amqp::error::{Error, Party};
use crate::sink::amqp::link::{self, ANSWER_TIMEOUT, Connected};
use crate::sink::amqp::lock::Lock;
use crate::sink::amqp::permissions::Permissions;
use crate::sink::amqp::socket::Traffic;
use crate::sink::amqp::{Options, QueueType};
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// As many messages are looked at in a write: whoever fills the queue faster does not hold it up.
const MET_MAX: usize = 1_000;
/// How often is looked whether the broker blocks its publishers.
const BLOCKED_INTERVAL: Duration = Duration::from_millis(100);

/// A connection and its channel. What fails on it leaves it unusable: the next try opens another.
#[derive(Debug)]
pub(super) struct Line {
    /// Closed with the line, and the locks with it.
    connection: Connection,
    channel: Channel,
    pub(super) queue: String,
    party: Party,
    traffic: Traffic,
    /// Where it writes.
    lock: Option<Lock>,
    /// Whether it is known to be said that a checkpoint was written.
    pub(super) is_said: bool,
    /// Since when somebody was seen to consume the queue with each write.
    consumed_since: Option<Instant>,
    /// What lay there when it was looked through, and goes with the next write.
    pub(super) remnants: Vec<StampedCheckpoint>,
}

impl Line {
    pub(super) async fn open(options: &Options, queue: &str) -> Result<Self, CheckpointError> {
        let Connected { connection, mut party, traffic, .. } = link::connect(options).await?;
        party.grant = Permissions::of_events(options).keeping_checkpoint(options).command();
        let created = timeout(ANSWER_TIMEOUT, connection.create_channel()).await.map_err(|_| link::silent(&party))?;
        let channel = created.map_err(|error| Error::of_session(&error, &party))?;
        Ok(Self {
            connection,
            channel,
            queue: queue.to_owned(),
            party,
            traffic,
            lock: None,
            is_said: false,
            consumed_since: None,
            remnants: Vec::new(),
        })
    }

    /// Waits for an answer of the broker; for as long as it blocks its publishers, or bytes go either way.
    async fn answered<T>(&self, answer: impl Future<Output = lapin::Result<T>>) -> Result<T, CheckpointError> {
        tokio::pin!(answer);
        loop {
            let before = self.traffic.bytes();
            match timeout(ANSWER_TIMEOUT, &mut answer).await {
                Ok(answer) => return answer.map_err(|error| CheckpointError::of(&error, &self.queue, &self.party)),
                Err(_) if self.connection.status().blocked() || self.traffic.bytes() != before => {}
                Err(_) => return Err(link::silent(&self.party).into()),
            }
        }
    }

    /// Takes the lock, and makes or verifies the queue.
    pub(super) async fn lock(mut self, declare: bool) -> Result<Self, CheckpointError> {
        let lock = self.lock_name();
        self.own(&self.channel, &lock).await?;
        self.lock = Some(self.answered(Lock::watch(&self.channel, &lock)).await?);
        self.declare(declare).await?;
        self.confirmed().await?;
        Ok(self)
    }

    /// Makes the queue, or verifies it.
    async fn declare(&self, makes: bool) -> Result<(), CheckpointError> {
        let options = QueueDeclareOptions { durable: true, passive: !makes, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(QueueType::Quorum.name().into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(LOOKS_MAX));
        self.answered(self.channel.queue_declare(self.queue.as_str().into(), options, arguments)).await.map(drop)
    }

    /// Waits until nobody consumes the queue, who would take the checkpoint away. A quorum queue counts whoever holds a message for a
    /// moment too, and for a moment longer: it is asked while nobody else looks, see [`Self::looking`], and not beside a writer, who
    /// takes messages out with each write, and watches for consumers himself.
    pub(super) async fn unconsumed(&self) -> Result<(), CheckpointError> {
        let until = Instant::now() + HIDDEN_TIMEOUT;
        loop {
            let Some(consumers) = self.look_at(&self.channel, &self.queue).await?.filter(|consumers| 0 < *consumers) else {
                return Ok(());
            };
            if self.lock.is_none() && self.is_written_to().await? {
                return Ok(());
            }
            if until <= Instant::now() {
                return Err(self.consumed(consumers));
            }
            sleep(HIDDEN_INTERVAL).await;
        }
    }

    /// Whether another connection owns the lock, and may write.
    async fn is_written_to(&self) -> Result<bool, CheckpointError> {
        let channel = self.answered(self.connection.create_channel()).await?;
        match self.look_at(&channel, &self.lock_name()).await {
            // What anybody may use is no lock; where there is none the channel is closed.
            Ok(found) => {
                if found.is_some() {
                    self.answered(channel.close(200, "looked".into())).await?;
                }
                Ok(false)
            }
            Err(CheckpointError::Broker(Error::Held { .. })) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn lock_name(&self) -> String {
        format!("{}.lock", self.queue)
    }

    fn consumed(&self, consumers: u32) -> CheckpointError {
        CheckpointError::Consumed { queue: self.queue.clone(), consumers }
    }

    /// From now on the broker confirms what is published.
    pub(super) async fn confirmed(&self) -> Result<(), CheckpointError> {
        self.answered(self.channel.confirm_select(ConfirmSelectOptions::default())).await
    }

    /// Owns an exclusive queue as long as the connection lives.
    async fn own(&self, channel: &Channel, name: &str) -> Result<(), CheckpointError> {
        let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        match self.answered(channel.queue_declare(name.into(), own, FieldTable::default())).await {
            Ok(_) => Ok(()),
            Err(CheckpointError::Broker(Error::Held { address, .. })) => {
                link::assert_lock(&self.connection, name, &self.party).await?;
                Err(Error::Held { address, lock: name.to_owned() }.into())
            }
            Err(error) => Err(error),
        }
    }

    /// The line, unless its connection or its lock is gone: a policy or a hand may delete a queue under a session.
    pub(super) fn still_held(mut self) -> Option<Self> {
        let is_held = self.lock.as_mut().is_some_and(Lock::is_held) && self.connection.status().connected();
        is_held.then_some(self)
    }

    /// Whether the queue exists. The line is of no use where it does not.
    pub(super) async fn is_there(&self) -> Result<bool, CheckpointError> {
        Ok(self.look_at(&self.channel, &self.queue).await?.is_some())
    }

    /// How many consumers a queue has; none where there is no such queue, and then the channel is closed.
    async fn look_at(&self, channel: &Channel, queue: &str) -> Result<Option<u32>, CheckpointError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match self.answered(channel.queue_declare(queue.into(), passive, FieldTable::default())).await {
            Ok(declared) => Ok(Some(declared.consumer_count())),
            Err(CheckpointError::Queue { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The queue that is there once a checkpoint was written.
    fn witness(&self) -> String {
        format!("{}.written", self.queue)
    }

    /// Whether a checkpoint was written, and not removed by us.
    pub(super) async fn was_written(&self) -> Result<bool, CheckpointError> {
        let channel = self.answered(self.connection.create_channel()).await?;
        let found = self.look_at(&channel, &self.witness()).await?;
        if found.is_some() {
            self.answered(channel.close(200, "looked".into())).await?;
        }
        Ok(found.is_some())
    }

    /// Says for good that a checkpoint is there.
    async fn say_written(&mut self) -> Result<(), CheckpointError> {
        if !self.is_said {
            if !self.was_written().await? {
                self.make(&self.witness()).await?;
            }
            self.is_said = true;
        }
        Ok(())
    }

    /// Makes a queue that stays, of the kind that the checkpoint has.
    async fn make(&self, queue: &str) -> Result<(), CheckpointError> {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(QueueType::Quorum.name().into()));
        self.answered(self.channel.queue_declare(queue.into(), durable, arguments)).await.map(drop)
    }

    /// The newest checkpoint in the queue, and all that are there; they stay there.
    pub(super) async fn newest(&self) -> Result<(Option<StampedCheckpoint>, Vec<StampedCheckpoint>), CheckpointError> {
        let looked = async {
            self.unconsumed().await?;
            let (mut met, mut stray) = (Vec::new(), None);
            // What goes back; the newest does not.
            let mut last_tag = None;
            let mut newest: Option<(u64, BasicGetMessage)> = None;
            // All that is there, and not what still comes.
            let mut left = u32::MAX;
            while 0 < left
                && let Some(message) = self.get().await?
            {
                left = message.message_count.min(left - 1);
                match StampedCheckpoint::read(&message.data, &self.queue) {
                    Ok(found) => {
                        let older = match &newest {
                            Some((generation, _)) if found.generation < *generation => Some(message.delivery_tag),
                            _ => newest.replace((found.generation, message)).map(|(_, older)| older.delivery_tag),
                        };
                        last_tag = last_tag.max(older);
                        met.push(found);
                    }
                    Err(unfit) if is_stray(&message.data) => {
                        last_tag = last_tag.max(Some(message.delivery_tag));
                        stray = Some(unfit);
                    }
                    Err(unfit) => return Err(unfit.into()),
                }
            }
            // A broker drops what was given back too often: the newest is put there anew instead.
            if let Some((_, message)) = newest
                && !self.renew(&message).await?
            {
                last_tag = last_tag.max(Some(message.delivery_tag));
            }
            if let Some(tag) = last_tag {
                self.give_back(tag).await?;
            }
            match stray {
                Some(unfit) if met.is_empty() => Err(unfit.into()),
                Some(_) => {
                    tracing::warn!(queue = self.queue, "a message beside the checkpoint is none: the next checkpoint sets it aside");
                    Ok(met)
                }
                None => Ok(met),
            }
        };
        let met = Box::pin(self.looking(looked)).await?;
        Ok((met.iter().max_by_key(|found| found.generation).cloned(), met))
    }

    /// Does something while nobody else looks at what is in the queue. Where it fails, the line goes and its hold with it.
    pub(super) async fn looking<T>(&self, work: impl Future<Output = Result<T, CheckpointError>>) -> Result<T, CheckpointError> {
        let until = Instant::now() + HIDDEN_TIMEOUT;
        let hold = loop {
            match self.alone().await? {
                Ok(hold) => break hold,
                Err(held) if until <= Instant::now() => return Err(held.into()),
                Err(_) => sleep(HIDDEN_INTERVAL).await,
            }
        };
        let done = work.await?;
        self.let_go(hold).await?;
        Ok(done)
    }

    /// Owns the right to look, on a channel of its own, which the broker closes where another has it: that is said inside.
    async fn alone(&self) -> Result<Result<Channel, Error>, CheckpointError> {
        let channel = self.answered(self.connection.create_channel()).await?;
        match self.own(&channel, &self.look_name()).await {
            Ok(()) => Ok(Ok(channel)),
            Err(CheckpointError::Broker(held @ Error::Held { .. })) => Ok(Err(held)),
            Err(error) => Err(error),
        }
    }

    /// Lets others look again.
    async fn let_go(&self, hold: Channel) -> Result<(), CheckpointError> {
        self.answered(hold.queue_delete(self.look_name().into(), QueueDeleteOptions::default())).await?;
        self.answered(hold.close(200, "looked".into())).await
    }

    fn look_name(&self) -> String {
        format!("{}.look", self.queue)
    }

    async fn get(&self) -> Result<Option<BasicGetMessage>, CheckpointError> {
        self.answered(self.channel.basic_get(self.queue.as_str().into(), BasicGetOptions::default())).await
    }

    /// Puts a message that was taken out back as a new one; false where the broker takes nothing for now.
    async fn renew(&self, message: &BasicGetMessage) -> Result<bool, CheckpointError> {
        let blocked = async {
            while !self.connection.status().blocked() {
                sleep(BLOCKED_INTERVAL).await;
            }
        };
        tokio::select! { biased;
            published = self.publish(&self.queue, &message.data, BasicProperties::default()) => published?,
            () = blocked => return Ok(false),
        }
        self.answered(self.channel.basic_ack(message.delivery_tag, BasicAckOptions::default())).await?;
        Ok(true)
    }

    /// Takes all away, and what says that there was something; whether there was.
    pub(super) async fn empty(&self, makes: bool) -> Result<bool, CheckpointError> {
        let was_written = self.was_written().await?;
        let queue = || self.queue.as_str().into();
        let removed = if makes {
            // With what others hold of it, which would come back.
            let removed = self.answered(self.channel.queue_delete(queue(), QueueDeleteOptions::default())).await?;
            self.declare(makes).await?;
            removed
        } else {
            self.answered(self.channel.queue_purge(queue(), QueuePurgeOptions::default())).await?
        };
        self.answered(self.channel.queue_delete(self.witness().into(), QueueDeleteOptions::default())).await?;
        Ok(was_written || 0 < removed)
    }

    /// Publishes the next checkpoint, and when it is confirmed takes those before it away. Where another process has written
    /// meanwhile, the next checkpoint goes instead. What is no checkpoint is set aside.
    pub(super) async fn replace(&mut self, writer: &CheckpointWriter, generation: u64, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.publish(&self.queue, bytes, BasicProperties::default()).await?;
        self.say_written().await?;
        let is_ours = |found: &StampedCheckpoint| found.generation == generation && writer.may_replace(found);
        let (mut unread, mut others) = (None, None);
        for _ in 0..MET_MAX {
            let Some(message) = self.get().await? else { break };
            let tag = message.delivery_tag;
            match StampedCheckpoint::read(&message.data, &self.queue) {
                // Somebody looks at the older one, which is taken away after the next.
                Ok(found) if is_ours(&found) && others.is_none() => {
                    if !self.renew(&message).await? {
                        unread = Some(tag);
                    }
                    break;
                }
                Ok(found) if writer.may_replace(&found) || self.remnants.contains(&found) => {
                    self.answered(self.channel.basic_ack(tag, BasicAckOptions::default())).await?;
                    if message.message_count <= 1 && others.is_none() {
                        break;
                    }
                }
                Ok(_) => others = Some(tag),
                Err(_) if is_stray(&message.data) => self.set_aside(&message).await?,
                Err(_) => unread = Some(tag),
            }
        }
        self.remnants.clear();
        if let Some(tag) = others.max(unread) {
            self.give_back(tag).await?;
        }
        if others.is_some() {
            return Err(writer.taken_over().into());
        }
        let consumers = self.look_at(&self.channel, &self.queue).await?.unwrap_or(0);
        if consumers == 0 {
            self.consumed_since = None;
            return Ok(());
        }
        let since = *self.consumed_since.get_or_insert_with(Instant::now);
        if since.elapsed() < HIDDEN_TIMEOUT {
            return Ok(());
        }
        // What was taken out here counts too until the queue has noted its end, and so does a look: it is asked again while nothing is
        // taken out, or else with the next write.
        if let Ok(hold) = self.alone().await? {
            self.unconsumed().await?;
            self.let_go(hold).await?;
            self.consumed_since = None;
        }
        Ok(())
    }

    /// Puts what is no checkpoint into a queue of its own. Left where it is, it would be met with each write, and keep a quorum queue
    /// from forgetting what was written since.
    async fn set_aside(&self, message: &BasicGetMessage) -> Result<(), CheckpointError> {
        let aside = format!("{}.strays", self.queue);
        self.make(&aside).await?;
        self.publish(&aside, &message.data, kept(&message.properties)).await?;
        self.answered(self.channel.basic_ack(message.delivery_tag, BasicAckOptions::default())).await?;
        let bytes = message.data.len();
        tracing::warn!(
            queue = self.queue,
            aside,
            bytes,
            "a message that is no checkpoint was set aside: the queue belongs to feedline alone"
        );
        Ok(())
    }

    /// Gives back what was looked at, up to this.
    async fn give_back(&self, tag: u64) -> Result<(), CheckpointError> {
        let all_back = BasicNackOptions { multiple: true, requeue: true };
        self.answered(self.channel.basic_nack(tag, all_back)).await
    }

    /// Publishes to a queue, and waits until the broker has confirmed it.
    async fn publish(&self, queue: &str, bytes: &[u8], properties: BasicProperties) -> Result<(), CheckpointError> {
        let mut properties = properties.with_delivery_mode(2);
        if properties.content_type().is_none() {
            properties = properties.with_content_type("application/json".into());
        }
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published = async { self.channel.basic_publish("".into(), queue.into(), mandatory, bytes, properties).await?.await };
        let refused = |reason: &str| Err(Error::Unconfirmed { reason: format!("queue {queue}: {reason}") }.into());
        match self.answered(published).await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => refused("it is gone"),
            Confirmation::Nack(_) => refused("the broker refused the checkpoint (nack)"),
            Confirmation::NotRequested => refused("the channel does not confirm"),
        }
    }
}

/// What is kept of a message's properties: what says what it is, and nothing that a broker acts on.
fn kept(properties: &BasicProperties) -> BasicProperties {
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

/// Whether a message is no checkpoint at all; one that cannot be read may be one.
fn is_stray(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Version {
        #[serde(rename = "version")]
        _version: serde_json::Value,
    }
    serde_json::from_slice::<Version>(bytes).is_err()
}
