//! The checkpoint stored in RabbitMQ: the only message of a durable queue.
//!
//! A new checkpoint is published and confirmed before the old one is removed, so that the queue is never empty. If there is more than
//! one, the newest counts. Two exclusive queues are locks. The writer owns one for as long as it runs; while it does, nobody else
//! writes, and the queue need not be read again. A reader owns the other for a moment, because a message that one reader holds is
//! hidden from others.
//!
//! A message that a client holds is in no count, and a purged queue looks like a new one. So a second queue, always empty, is a marker:
//! its existence says that a checkpoint was written. "No checkpoint" is reported only if the marker is missing too (I9).

use super::management::{QueueFacts, get_if_present};
use super::options::Options;
use crate::checkpoint::fencing::CheckpointWriter;
use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::preflight::Findings;
use queue::CheckpointQueue;

mod error;
mod messages;
mod queue;

pub use error::CheckpointError;

/// Arguments and policies that lose a checkpoint over time.
const LOSSY_ARGUMENTS: [&str; 5] = ["x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-single-active-consumer"];

/// The name of a pipeline's checkpoint queue.
fn queue_of(options: &Options) -> String {
    format!("{}.checkpoint", options.pipeline)
}

/// A checkpoint store in a queue of its own.
#[derive(Debug)]
pub struct Store {
    options: Options,
    writer: CheckpointWriter,
    queue: Option<CheckpointQueue>,
    /// The checkpoint in the queue, while the queue is open.
    current: Option<Checkpoint>,
}

impl Store {
    /// Creates a store. Opens no connection.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { writer: CheckpointWriter::new(queue_of(&options)), options, queue: None, current: None }
    }

    /// Reads the checkpoint, also while a pipeline writes to it; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn inspect(options: &Options) -> Result<Option<Checkpoint>, CheckpointError> {
        let name = queue_of(options);
        let queue = CheckpointQueue::open(options, &name).await?;
        if !queue.exists().await? {
            return if queue.was_written().await? { Err(CheckpointError::Hidden { queue: name }) } else { Ok(None) };
        }
        queue.enable_confirms().await?;
        // A writer holds its newest message for a moment while it removes the one before: a second read finds it.
        let (first, second) = (queue.newest().await?.0, queue.wait_until_shown().await?.0);
        let found = match (first, second) {
            (Some(first), Some(second)) if first.writer == second.writer && second.generation < first.generation => Some(first),
            (first, second) => second.or(first),
        };
        Ok(found.map(|found| found.checkpoint))
    }

    /// Checks the queue, and reports what a start would do. Changes nothing.
    ///
    /// # Errors
    /// If the queue is unfit, or the broker cannot be asked.
    pub async fn preflight(options: &Options) -> Result<Findings, CheckpointError> {
        let name = queue_of(options);
        let queue = CheckpointQueue::open(options, &name).await?;
        let exists = queue.exists().await?;
        if exists {
            queue.with_read_lock(queue.wait_until_unconsumed()).await?;
        }
        if !exists && !options.declare {
            return Err(CheckpointError::Queue { queue: name, reason: "it does not exist, and sink.declare is false".to_owned() });
        }
        if let Some(argument) = lossy_argument(options, &name).await {
            return Err(CheckpointError::Queue { queue: name, reason: format!("it has {argument}, by an argument or a policy") });
        }
        let action = if exists { format!("go on from the checkpoint in queue {name}") } else { format!("make queue {name}") };
        Ok(Findings { actions: vec![action], ..Findings::default() })
    }

    /// The queue with its write lock. If the lock is not owned, opens the queue and reads the checkpoint again.
    async fn locked(&mut self) -> Result<CheckpointQueue, CheckpointError> {
        if let Some(queue) = self.queue.take().and_then(CheckpointQueue::if_still_locked) {
            return Ok(queue);
        }
        let mut queue = self.open().await?;
        let (newest, all) = queue.wait_until_shown().await?;
        self.writer.take_over(newest.as_ref())?;
        queue.stale = all;
        self.current = newest.map(|newest| newest.checkpoint);
        Ok(queue)
    }

    async fn open(&self) -> Result<CheckpointQueue, CheckpointError> {
        CheckpointQueue::open(&self.options, self.writer.location()).await?.take_write_lock(self.options.declare).await
    }
}

impl CheckpointStore for Store {
    type Error = CheckpointError;

    async fn load(&mut self) -> Result<Option<Checkpoint>, CheckpointError> {
        self.queue = Some(self.locked().await?);
        Ok(self.current.clone())
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let mut queue = self.locked().await?;
        let (generation, bytes) = self.writer.stamp(checkpoint);
        queue.replace(&self.writer, generation, &bytes).await?;
        self.writer.confirmed();
        self.current = Some(checkpoint.clone());
        self.queue = Some(queue);
        Ok(())
    }

    async fn remove(&mut self) -> Result<bool, CheckpointError> {
        let mut queue = match self.queue.take() {
            Some(queue) => queue,
            None => self.open().await?,
        };
        // A message that another feedline is reading would not be removed, and would come back.
        let cleared = async {
            queue.wait_until_unconsumed().await?;
            queue.clear(self.options.declare).await
        };
        let is_removed = queue.with_read_lock(cleared).await?;
        queue.is_marked = false;
        self.writer.removed();
        self.current = None;
        self.queue = Some(queue);
        Ok(is_removed)
    }
}

/// The first of [`LOSSY_ARGUMENTS`] in effect for the queue. `None` also if the management API is not configured or does not answer:
/// a lost checkpoint is noticed by the next start.
async fn lossy_argument(options: &Options, queue: &str) -> Option<&'static str> {
    let facts = get_if_present::<QueueFacts>(options, options.management.as_ref()?, &["queues", &options.vhost, queue]).await;
    let facts = facts.ok()??;
    let is_set = |argument: &&str| facts.argument(argument).is_some_and(|value| *value != serde_json::Value::Bool(false));
    LOSSY_ARGUMENTS.into_iter().find(is_set)
}
