//! The checkpoint in RabbitMQ: a durable queue that holds it as its only message.
//!
//! The next checkpoint is published and confirmed before the one before it is taken away, so that the queue is never empty;
//! where more than one is found, the newest counts. Two exclusive queues are its locks: one is owned by who writes, the other
//! for a moment by who reads, since a message that one reader looks at is hidden from another. While the first is owned nobody
//! else writes, and there is nothing to look at again.

use super::error::{Error, Party};
use super::link::{self, ANSWER_TIMEOUT};
use super::lock::Lock;
use super::permissions::Permissions;
use super::{Options, QueueType};
use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::fault::{Classify, Code, Fault};
use crate::foresight::Foresight;
use crate::succession::{Stamped, Unfit, Writer};
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::time::timeout;

/// How often a message may be looked at: a quorum queue drops one that was given back more often than its limit, by default 20
/// times from version 4 on (RabbitMQ documentation, "Quorum Queues", Repeated Requeues).
const LOOKS_MAX: i32 = i32::MAX;

/// Why the checkpoint could not be read or kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The broker's side failed.
    #[error("the checkpoint's queue: {0}")]
    Broker(#[from] Error),
    /// What is there is not the checkpoint, or no longer ours.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The user lacks a permission.
    #[error(
        "RabbitMQ refused: {reason}; the checkpoint needs more than events do: configure for {queue}.*, write for {queue} and amq.default, read \
         for {queue} and {queue}.lock; grant all that is needed: {grant} (it replaces what the user has: add what else it needs)"
    )]
    Privilege {
        /// The checkpoint's queue.
        queue: String,
        /// The command that grants what is needed.
        grant: String,
        /// The broker's words.
        reason: String,
    },
    /// The queue is not there and is not made, or is another kind of queue.
    #[error(
        "queue {queue:?} cannot keep the checkpoint: {reason}; with sink.declare it is a durable quorum queue with x-delivery-limit={LOOKS_MAX}, \
         without it make one that is durable, without a limit of length or time, a quorum queue with x-delivery-limit=-1"
    )]
    Queue {
        /// Its name.
        queue: String,
        /// The broker's words.
        reason: String,
    },
}

impl CheckpointError {
    fn of(error: &lapin::Error, queue: &str, party: &Party) -> Self {
        match super::error::refusal(error) {
            Some((AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), reason)) => {
                Self::Privilege { queue: queue.to_owned(), grant: party.grant.clone(), reason }
            }
            Some((AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND), reason)) if super::error::is_passing(&reason) => {
                Self::Broker(Error::Unreachable { address: party.address.clone(), reason })
            }
            Some((AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND | AMQPSoftError::PRECONDITIONFAILED), reason)) => {
                Self::Queue { queue: queue.to_owned(), reason }
            }
            _ => Self::Broker(Error::of_session(error, party)),
        }
    }
}

impl Classify for CheckpointError {
    fn fault(&self) -> Fault {
        match self {
            Self::Broker(error) => error.fault(),
            Self::Unfit(error) => error.fault(),
            Self::Privilege { .. } | Self::Queue { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Broker(error) => error.code(),
            Self::Unfit(error) => error.code(),
            Self::Privilege { .. } => Code::SinkPrivilege,
            Self::Queue { .. } => Code::CheckpointPlaceUnfit,
        }
    }
}

/// The name of a pipeline's queue.
fn queue_of(options: &Options) -> String {
    format!("{}.checkpoint", options.pipeline)
}

/// A checkpoint in a queue of its own.
#[derive(Debug)]
pub struct Store {
    options: Options,
    writer: Writer,
    line: Option<Line>,
    /// What is in the queue while the line is open.
    kept: Option<Checkpoint>,
}

impl Store {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { writer: Writer::new(queue_of(&options)), options, line: None, kept: None }
    }

    /// The checkpoint, for a look while a pipeline runs on it; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn inspect(options: &Options) -> Result<Option<Checkpoint>, CheckpointError> {
        let queue = queue_of(options);
        let line = Line::open(options, &queue).await?;
        if !line.is_there().await? {
            return Ok(None);
        }
        // A writer hides its newest message for the moment in which it takes the one before away: a second look finds it.
        let (first, second) = (line.newest().await?.0, line.newest().await?.0);
        let found = match (first, second) {
            (Some(first), Some(second)) if first.writer == second.writer && second.generation < first.generation => Some(first),
            (first, second) => second.or(first),
        };
        Ok(found.map(|found| found.checkpoint))
    }

    /// Looks what a start would make.
    ///
    /// # Errors
    /// Where the broker cannot be asked.
    pub async fn foresee(options: &Options) -> Result<Foresight, CheckpointError> {
        let queue = queue_of(options);
        let is_there = Line::open(options, &queue).await?.is_there().await?;
        if !is_there && !options.declare {
            return Err(CheckpointError::Queue { queue, reason: "there is no such queue, and sink.declare is false".to_owned() });
        }
        let action = if is_there { format!("go on from the checkpoint in queue {queue}") } else { format!("make queue {queue}") };
        Ok(Foresight { actions: vec![action], ..Foresight::default() })
    }

    /// The line whose lock is owned; opened, and looked through, where there is none.
    async fn hold(&mut self) -> Result<Line, CheckpointError> {
        if let Some(line) = self.line.take().and_then(Line::still_held) {
            return Ok(line);
        }
        let mut line = self.open().await?;
        let (found, met) = line.newest().await?;
        self.writer.take_up(found.as_ref())?;
        line.remnants = met;
        self.kept = found.map(|found| found.checkpoint);
        Ok(line)
    }

    async fn open(&self) -> Result<Line, CheckpointError> {
        Line::open(&self.options, self.writer.place()).await?.lock(self.options.declare).await
    }
}

impl CheckpointStore for Store {
    type Error = CheckpointError;

    async fn load(&mut self) -> Result<Option<Checkpoint>, CheckpointError> {
        self.line = Some(self.hold().await?);
        Ok(self.kept.clone())
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let mut line = self.hold().await?;
        let (generation, bytes) = self.writer.stamp(checkpoint);
        line.replace(&self.writer, generation, &bytes).await?;
        self.writer.confirmed();
        self.kept = Some(checkpoint.clone());
        self.line = Some(line);
        Ok(())
    }

    async fn remove(&mut self) -> Result<bool, CheckpointError> {
        let line = match self.line.take() {
            Some(line) => line,
            None => self.open().await?,
        };
        // What somebody looks at is not there to be removed, and would be given back.
        let purged = line.channel.queue_purge(line.queue.as_str().into(), lapin::options::QueuePurgeOptions::default());
        let removed = line.looking(line.answered(purged)).await?;
        self.writer.forgot();
        self.kept = None;
        self.line = Some(line);
        Ok(0 < removed)
    }
}

/// A connection and its channel. What fails on it leaves it unusable: the next try opens another.
#[derive(Debug)]
struct Line {
    /// Closed with the line, and the locks with it.
    connection: Connection,
    channel: Channel,
    queue: String,
    party: Party,
    /// Where it writes.
    lock: Option<Lock>,
    /// What lay there when it was looked through, and goes with the next write.
    remnants: Vec<Stamped>,
}

impl Line {
    async fn open(options: &Options, queue: &str) -> Result<Self, CheckpointError> {
        let (connection, mut party, _) = link::connect(options).await?;
        party.grant = Permissions::of_events(options).keeping_checkpoint(options).command();
        let created = timeout(ANSWER_TIMEOUT, connection.create_channel()).await.map_err(|_| link::silent(&party))?;
        let channel = created.map_err(|error| Error::of_session(&error, &party))?;
        Ok(Self { connection, channel, queue: queue.to_owned(), party, lock: None, remnants: Vec::new() })
    }

    /// Waits for an answer of the broker; for as long as it blocks its publishers.
    async fn answered<T>(&self, answer: impl Future<Output = lapin::Result<T>>) -> Result<T, CheckpointError> {
        tokio::pin!(answer);
        loop {
            match timeout(ANSWER_TIMEOUT, &mut answer).await {
                Ok(answer) => return answer.map_err(|error| CheckpointError::of(&error, &self.queue, &self.party)),
                Err(_) if self.connection.status().blocked() => {}
                Err(_) => return Err(link::silent(&self.party).into()),
            }
        }
    }

    /// Takes the lock, and makes or verifies the queue.
    async fn lock(mut self, declare: bool) -> Result<Self, CheckpointError> {
        let lock = format!("{}.lock", self.queue);
        self.own(&lock).await?;
        self.lock = Some(self.answered(Lock::watch(&self.channel, &lock)).await?);
        let options = QueueDeclareOptions { durable: true, passive: !declare, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(QueueType::Quorum.name().into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(LOOKS_MAX));
        self.answered(self.channel.queue_declare(self.queue.as_str().into(), options, arguments)).await?;
        self.answered(self.channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(self)
    }

    /// Owns an exclusive queue as long as the connection lives.
    async fn own(&self, name: &str) -> Result<(), CheckpointError> {
        let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        match self.answered(self.channel.queue_declare(name.into(), own, FieldTable::default())).await {
            Ok(_) => Ok(()),
            Err(CheckpointError::Broker(Error::Held { address, .. })) => Err(Error::Held { address, lock: name.to_owned() }.into()),
            Err(error) => Err(error),
        }
    }

    /// The line, unless its connection or its lock is gone: a policy or a hand may delete a queue under a session.
    fn still_held(mut self) -> Option<Self> {
        let is_held = self.lock.as_mut().is_some_and(Lock::is_held) && self.connection.status().connected();
        is_held.then_some(self)
    }

    /// Whether the queue exists. The line is of no use where it does not.
    async fn is_there(&self) -> Result<bool, CheckpointError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match self.channel.queue_declare(self.queue.as_str().into(), passive, FieldTable::default()).await {
            Ok(_) => Ok(true),
            Err(error) => match CheckpointError::of(&error, &self.queue, &self.party) {
                CheckpointError::Queue { .. } => Ok(false),
                other => Err(other),
            },
        }
    }

    /// The newest checkpoint in the queue, and all that are there; they stay there.
    async fn newest(&self) -> Result<(Option<Stamped>, Vec<Stamped>), CheckpointError> {
        let looked = async {
            let mut met = Vec::new();
            let mut last_tag = None;
            while let Some(message) = self.get().await? {
                last_tag = Some(message.delivery_tag);
                met.push(Stamped::read(&message.data, &self.queue)?);
            }
            if let Some(tag) = last_tag {
                self.give_back(tag).await?;
            }
            Ok(met)
        };
        let met = self.looking(looked).await?;
        Ok((met.iter().max_by_key(|found| found.generation).cloned(), met))
    }

    /// Does something while nobody else looks at what is in the queue. Where it fails, the line goes and its hold with it.
    async fn looking<T>(&self, work: impl Future<Output = Result<T, CheckpointError>>) -> Result<T, CheckpointError> {
        let look = format!("{}.look", self.queue);
        self.own(&look).await?;
        let done = work.await?;
        self.answered(self.channel.queue_delete(look.into(), QueueDeleteOptions::default())).await?;
        Ok(done)
    }

    async fn get(&self) -> Result<Option<BasicGetMessage>, CheckpointError> {
        self.answered(self.channel.basic_get(self.queue.as_str().into(), BasicGetOptions::default())).await
    }

    /// Publishes the next checkpoint, and when it is confirmed takes those before it away. Where another process has written
    /// meanwhile, the next checkpoint goes instead.
    async fn replace(&mut self, writer: &Writer, generation: u64, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.publish(bytes).await?;
        let is_ours = |found: &Stamped| found.generation == generation && writer.may_replace(found);
        let mut others = None;
        while let Some(message) = self.get().await? {
            let tag = message.delivery_tag;
            match Stamped::read(&message.data, &self.queue) {
                // Somebody looks at the older one, which is taken away after the next.
                Ok(found) if is_ours(&found) && others.is_none() => return self.give_back(tag).await,
                Ok(found) if writer.may_replace(&found) || self.remnants.contains(&found) => {
                    self.answered(self.channel.basic_ack(tag, BasicAckOptions::default())).await?;
                    if message.message_count <= 1 && others.is_none() {
                        break;
                    }
                }
                Ok(_) => others = Some(tag),
                Err(_) => return self.give_back(tag).await,
            }
        }
        self.remnants.clear();
        if let Some(tag) = others {
            self.give_back(tag).await?;
            return Err(writer.lost().into());
        }
        Ok(())
    }

    /// Gives back what was looked at, up to this.
    async fn give_back(&self, tag: u64) -> Result<(), CheckpointError> {
        let all_back = BasicNackOptions { multiple: true, requeue: true };
        self.answered(self.channel.basic_nack(tag, all_back)).await
    }

    async fn publish(&self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published =
            async { self.channel.basic_publish("".into(), self.queue.as_str().into(), mandatory, bytes, properties).await?.await };
        let refused = |reason: &str| Err(Error::Unconfirmed { reason: format!("queue {}: {reason}", self.queue) }.into());
        match self.answered(published).await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => refused("it is gone"),
            Confirmation::Nack(_) => refused("the broker refused the checkpoint (nack)"),
            Confirmation::NotRequested => refused("the channel does not confirm"),
        }
    }
}
