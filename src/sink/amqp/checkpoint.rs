//! The checkpoint in RabbitMQ: a durable queue that holds it as its only message.
//!
//! The next checkpoint is published and confirmed before the one before it is taken away, so that the queue is never empty;
//! where more than one is found, the newest counts. Two exclusive queues are its locks: one is owned by who writes, the other
//! for a moment by who reads, since a message that one reader looks at is hidden from another.

use super::error::{Error, Party};
use super::link::{self, ANSWER_TIMEOUT};
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
         for {queue}; grant all that is needed: {grant} (it replaces what the user has: add what else it needs)"
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
         without it make one that is durable, without a limit of length or time"
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
}

impl Store {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { writer: Writer::new(queue_of(&options)), options, line: None }
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
        Ok(line.newest().await?.map(|found| found.checkpoint))
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
    async fn hold(&mut self) -> Result<(Line, Option<Stamped>), CheckpointError> {
        let line = match self.line.take() {
            Some(line) => line,
            None => Line::open(&self.options, self.writer.place()).await?.lock(self.options.declare).await?,
        };
        let found = line.newest().await?;
        self.writer.take_up(found.as_ref())?;
        Ok((line, found))
    }
}

impl CheckpointStore for Store {
    type Error = CheckpointError;

    async fn load(&mut self) -> Result<Option<Checkpoint>, CheckpointError> {
        let (line, found) = self.hold().await?;
        self.line = Some(line);
        Ok(found.map(|found| found.checkpoint))
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        // While the line is open its lock is owned, and nobody else has written.
        let line = match self.line.take() {
            Some(line) => line,
            None => self.hold().await?.0,
        };
        let (generation, bytes) = self.writer.stamp(checkpoint);
        line.replace(generation, &bytes).await?;
        self.line = Some(line);
        Ok(())
    }

    async fn remove(&mut self) -> Result<bool, CheckpointError> {
        let line = match self.line.take() {
            Some(line) => line,
            None => Line::open(&self.options, self.writer.place()).await?.lock(self.options.declare).await?,
        };
        let removed = line.channel.queue_purge(line.queue.as_str().into(), lapin::options::QueuePurgeOptions::default());
        let removed = line.answered(removed).await?;
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
}

impl Line {
    async fn open(options: &Options, queue: &str) -> Result<Self, CheckpointError> {
        let (connection, mut party, _) = link::connect(options).await?;
        party.grant = Permissions::of_events(options).keeping_checkpoint(options).command();
        let created = timeout(ANSWER_TIMEOUT, connection.create_channel()).await.map_err(|_| link::silent(&party))?;
        let channel = created.map_err(|error| Error::of_session(&error, &party))?;
        Ok(Self { connection, channel, queue: queue.to_owned(), party })
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
    async fn lock(self, declare: bool) -> Result<Self, CheckpointError> {
        self.own(&format!("{}.lock", self.queue)).await?;
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

    /// The newest checkpoint in the queue; all that is there stays there.
    async fn newest(&self) -> Result<Option<Stamped>, CheckpointError> {
        let look = format!("{}.look", self.queue);
        self.own(&look).await?;
        let mut newest: Option<Stamped> = None;
        let mut last_tag = None;
        while let Some(message) = self.get().await? {
            last_tag = Some(message.delivery_tag);
            let found = Stamped::read(&message.data, &self.queue)?;
            if newest.as_ref().is_none_or(|newest| newest.generation < found.generation) {
                newest = Some(found);
            }
        }
        if let Some(tag) = last_tag {
            let all_back = BasicNackOptions { multiple: true, requeue: true };
            self.answered(self.channel.basic_nack(tag, all_back)).await?;
        }
        self.answered(self.channel.queue_delete(look.into(), QueueDeleteOptions::default())).await?;
        Ok(newest)
    }

    async fn get(&self) -> Result<Option<BasicGetMessage>, CheckpointError> {
        self.answered(self.channel.basic_get(self.queue.as_str().into(), BasicGetOptions::default())).await
    }

    /// Publishes the next checkpoint, and when it is confirmed takes those before it away.
    async fn replace(&self, generation: u64, bytes: &[u8]) -> Result<(), CheckpointError> {
        let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published =
            async { self.channel.basic_publish("".into(), self.queue.as_str().into(), mandatory, bytes, properties).await?.await };
        let refused = |reason: &str| Err(Error::Unconfirmed { reason: format!("queue {}: {reason}", self.queue) }.into());
        match self.answered(published).await? {
            Confirmation::Ack(None) => {}
            Confirmation::Ack(Some(_)) => return refused("it is gone"),
            Confirmation::Nack(_) => return refused("the broker refused the checkpoint (nack)"),
            Confirmation::NotRequested => return refused("the channel does not confirm"),
        }
        while let Some(message) = self.get().await? {
            let is_older = Stamped::read(&message.data, &self.queue).is_ok_and(|found| found.generation < generation);
            if !is_older {
                // Somebody looks at the older one, which is taken away after the next.
                let back = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
                return self.answered(self.channel.basic_nack(message.delivery_tag, back)).await;
            }
            self.answered(self.channel.basic_ack(message.delivery_tag, BasicAckOptions::default())).await?;
            if message.message_count <= 1 {
                break;
            }
        }
        Ok(())
    }
}
