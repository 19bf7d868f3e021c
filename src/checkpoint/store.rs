//! The port to a place that stores a checkpoint: a file, or the broker.

use crate::checkpoint::fold::Checkpoint;
use crate::fault::Classify;

/// Stores the checkpoint of one pipeline.
///
/// # Who uses it
///
/// Each attempt to start calls [`load`](Self::load). On a first start the pipeline then saves an intent: a checkpoint without a
/// token, durable before anything is created in the source. After that it calls [`save`](Self::save) with every checkpoint that is
/// to become durable. The source is told of a position only after the save that contains it has returned (I1), and may then delete
/// its log up to there. So a `save` that returns too early loses events.
///
/// Calls never overlap: every method takes `&mut self`, and the pipeline hands the store from one save to the next.
///
/// # Errors
///
/// Each error classifies itself ([`Classify`]):
///
/// - [`Transient`](crate::fault::Fault::Transient): the call may be repeated on the same store, with backoff, for ever. A store
///   must not report an error as transient if it cannot find out, on the next call, whether the failed write took effect.
/// - any other fault: the pipeline stops. The store must not be used again, because it is unknown whether the last write became
///   durable. Only a new start, with a new store, can read what is stored (I6). A store that is used all the same refuses.
///
/// # Other instances
///
/// One instance at a time owns the checkpoint (I5). There are two means:
///
/// - A lock, held while the store is open. Another instance gets a transient error when it opens or loads, and waits. A lock on
///   a file ends with its process.
/// - Fencing ([`fencing`](crate::checkpoint::fencing)), for stores in a broker. A broker's lock ends with its connection, while the
///   process behind the connection may still run. So the next instance takes over, and the earlier one gets
///   [`CheckpointTaken`](crate::fault::Code::CheckpointTaken) from its next `save` at the latest. It then stops.
pub trait CheckpointStore: Send + 'static {
    /// Why the checkpoint could not be read or written.
    type Error: Classify;

    /// Reads the newest durable checkpoint. Called at each attempt to start, before anything else is done. A store that fences
    /// takes over here: when this has returned, an earlier instance can no longer replace the checkpoint.
    ///
    /// `None` means that there is no checkpoint: a first start. A store may say so only after a complete read (I9). A checkpoint
    /// that cannot be read, is damaged or is locked is an error, never `None`: the pipeline would begin again from nothing.
    ///
    /// # Errors
    /// If it is unknown whether there is a checkpoint, if it cannot be understood, or if another instance owns it.
    fn load(&mut self) -> impl Future<Output = Result<Option<Checkpoint>, Self::Error>> + Send;

    /// Replaces the stored checkpoint. Returns when the new one is durable: it survives a crash of this process, of the machine,
    /// or of the broker. A crash at any moment leaves the old checkpoint or the new one, never a mixture.
    ///
    /// Called once per checkpoint interval (500 ms by default) while there is progress; at once when later batches wait for it; before
    /// each later session of the sink, to prove that this instance still owns the checkpoint; and at the end of a run.
    ///
    /// # Errors
    /// After a transient error the same or a later checkpoint may be saved. After any other error the store must not be used again:
    /// see the trait's documentation. If another instance has taken over, the error says so, and its checkpoint stays.
    fn save(&mut self, checkpoint: &Checkpoint) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes the checkpoint, also one that cannot be read. Returns whether there was one. After that [`load`](Self::load) returns
    /// `None`, and [`save`](Self::save) makes a new checkpoint.
    ///
    /// Called only for `feedline checkpoint reset`. If another instance runs, its lock makes this fail; without a lock, that instance
    /// is fenced, and stops at its next save.
    ///
    /// # Errors
    /// If the checkpoint may still exist, or if another instance holds the lock.
    fn remove(&mut self) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}
