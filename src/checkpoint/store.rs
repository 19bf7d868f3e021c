//! The port to a place that keeps a checkpoint: a file, or the broker.

use crate::checkpoint::fold::Checkpoint;
use crate::fault::Classify;

/// Keeps one pipeline's checkpoint. One holder at a time: a store is locked while it is open.
pub trait CheckpointStore: Send + 'static {
    /// Why it could not be read or written.
    type Error: Classify;

    /// The checkpoint; `None` only after a complete read has proved that there is none (I9).
    fn load(&mut self) -> impl Future<Output = Result<Option<Checkpoint>, Self::Error>> + Send;

    /// Returns when the checkpoint is durable. After a transient error it may be tried again, with the same or a later
    /// checkpoint; after any other the store must not be used again: whether the write reached the disk is unknown, and only a
    /// new start can read it (I6).
    fn save(&mut self, checkpoint: &Checkpoint) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Forgets the checkpoint, readable or not; whether there was one.
    fn remove(&mut self) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}
