//! The checkpoint in RabbitMQ: a durable queue that holds it as its only message.
//!
//! The next checkpoint is published and confirmed before the one before it is taken away, so that the queue is never empty;
//! where more than one is found, the newest counts. Two exclusive queues are its locks: one is owned by who writes, the other
//! for a moment by who reads, since a message that one reader looks at is hidden from another. While the first is owned nobody
//! else writes, and there is nothing to look at again.
//!
//! A message that somebody holds is counted nowhere, and a queue that was purged looks like a new one. So a second queue, always
//! empty, says by being there that a checkpoint was written: "none" is said only where it is missing too (I9).

use super::Options;
use super::error::{Error, Party};
use super::management::{QueueFacts, find};
use crate::checkpoint::fencing::{CheckpointWriter, FencingError, StampedCheckpoint};
use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::fault::{Classify, Code, Fault};
use crate::preflight::Findings;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use line::Line;
use std::time::Duration;
use tokio::time::{Instant, sleep};

mod line;

/// How often a message may be looked at: a quorum queue drops one that was given back more often than its limit, by default 20
/// times from version 4 on (RabbitMQ documentation, "Quorum Queues", Repeated Requeues).
const LOOKS_MAX: i32 = i32::MAX;
/// How long a checkpoint may be hidden from us by somebody who looks at it.
const HIDDEN_TIMEOUT: Duration = Duration::from_secs(10);
const HIDDEN_INTERVAL: Duration = Duration::from_millis(50);
/// What loses a checkpoint by and by, as an argument of the queue or by a policy.
const LOSING: [&str; 5] = ["x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-single-active-consumer"];

/// Why the checkpoint could not be read or kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The broker's side failed.
    #[error("the checkpoint's queue: {0}")]
    Broker(#[from] Error),
    /// What is there is not the checkpoint, or no longer ours.
    #[error(transparent)]
    Fencing(#[from] FencingError),
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
    /// Others take what is there.
    #[error(
        "queue {queue:?} has {consumers} clients that consume it or hold its messages, and belongs to feedline alone: close them (rabbitmqctl \
         list_consumers, list_queues name messages_unacknowledged)"
    )]
    Consumed {
        /// The queue.
        queue: String,
        /// How many.
        consumers: u32,
    },
    /// A checkpoint was written, and is not there to be read.
    #[error(
        "queue {queue:?} does not show the checkpoint that was written: another client holds it unacknowledged (close that one: rabbitmqctl list_queues name \
         messages_unacknowledged), or it was purged or has expired: then `feedline checkpoint reset` and `feedline detach`"
    )]
    Hidden {
        /// The queue.
        queue: String,
    },
}

impl CheckpointError {
    fn of(error: &lapin::Error, queue: &str, party: &Party) -> Self {
        match super::error::refusal(error) {
            Some((AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), reason)) if reason.contains("exclusive use") => {
                Self::Queue { queue: queue.to_owned(), reason }
            }
            Some((AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED), reason)) if reason.contains("single active consumer") => {
                Self::Queue { queue: queue.to_owned(), reason }
            }
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
            Self::Fencing(error) => error.fault(),
            Self::Privilege { .. } | Self::Queue { .. } | Self::Consumed { .. } | Self::Hidden { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Broker(error) => error.code(),
            Self::Fencing(error) => error.code(),
            Self::Privilege { .. } => Code::SinkPrivilege,
            Self::Queue { .. } | Self::Consumed { .. } => Code::CheckpointPlaceUnfit,
            Self::Hidden { .. } => Code::CheckpointUnreadable,
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
    writer: CheckpointWriter,
    line: Option<Line>,
    /// What is in the queue while the line is open.
    kept: Option<Checkpoint>,
}

impl Store {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { writer: CheckpointWriter::new(queue_of(&options)), options, line: None, kept: None }
    }

    /// The checkpoint, for a look while a pipeline runs on it; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn inspect(options: &Options) -> Result<Option<Checkpoint>, CheckpointError> {
        let queue = queue_of(options);
        let line = Line::open(options, &queue).await?;
        if !line.is_there().await? {
            return if line.was_written().await? { Err(CheckpointError::Hidden { queue }) } else { Ok(None) };
        }
        line.confirmed().await?;
        // A writer hides its newest message for the moment in which it takes the one before away: a second look finds it.
        let (first, second) = (line.newest().await?.0, line.shown().await?.0);
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
    pub async fn preflight(options: &Options) -> Result<Findings, CheckpointError> {
        let queue = queue_of(options);
        let line = Line::open(options, &queue).await?;
        let is_there = line.is_there().await?;
        if is_there {
            line.looking(line.unconsumed()).await?;
        }
        if !is_there && !options.declare {
            return Err(CheckpointError::Queue { queue, reason: "there is no such queue, and sink.declare is false".to_owned() });
        }
        if let Some(losing) = losing(options, &queue).await {
            return Err(CheckpointError::Queue { queue, reason: format!("it has {losing}, by an argument or a policy") });
        }
        let action = if is_there { format!("go on from the checkpoint in queue {queue}") } else { format!("make queue {queue}") };
        Ok(Findings { actions: vec![action], ..Findings::default() })
    }

    /// The line whose lock is owned; opened, and looked through, where there is none.
    async fn hold(&mut self) -> Result<Line, CheckpointError> {
        if let Some(line) = self.line.take().and_then(Line::still_held) {
            return Ok(line);
        }
        let mut line = self.open().await?;
        let (found, met) = line.shown().await?;
        self.writer.take_over(found.as_ref())?;
        line.remnants = met;
        self.kept = found.map(|found| found.checkpoint);
        Ok(line)
    }

    async fn open(&self) -> Result<Line, CheckpointError> {
        Line::open(&self.options, self.writer.location()).await?.lock(self.options.declare).await
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
        let mut line = match self.line.take() {
            Some(line) => line,
            None => self.open().await?,
        };
        // What another feedline looks at is not there to be removed, and would be given back.
        let emptied = async {
            line.unconsumed().await?;
            line.empty(self.options.declare).await
        };
        let is_removed = line.looking(emptied).await?;
        line.is_said = false;
        self.writer.removed();
        self.kept = None;
        self.line = Some(line);
        Ok(is_removed)
    }
}

/// What of [`LOSING`] holds for the queue, as far as the management API is there to be asked.
async fn losing(options: &Options, queue: &str) -> Option<&'static str> {
    let facts = find::<QueueFacts>(options, options.management.as_ref()?, &["queues", &options.vhost, queue]).await;
    // Whoever cannot be asked says nothing: what is lost is noticed by the next start.
    let facts = facts.ok()??;
    let holds = |argument: &&str| facts.holds(argument).is_some_and(|value| *value != serde_json::Value::Bool(false));
    LOSING.into_iter().find(holds)
}

impl Line {
    /// As [`Line::newest`]; where it finds none although one was written, it looks again until it is shown.
    async fn shown(&self) -> Result<(Option<StampedCheckpoint>, Vec<StampedCheckpoint>), CheckpointError> {
        let until = Instant::now() + HIDDEN_TIMEOUT;
        loop {
            let found = self.newest().await?;
            if found.0.is_some() || !self.was_written().await? {
                return Ok(found);
            }
            if until <= Instant::now() {
                return Err(CheckpointError::Hidden { queue: self.queue.clone() });
            }
            sleep(HIDDEN_INTERVAL).await;
        }
    }
}
