//! Saves checkpoints in the background, one at a time, so that a save never holds up a confirmation.

use crate::batch::Seq;
use crate::checkpoint::{Checkpoint, CheckpointStore, ResumeToken};
use crate::fault::{Classify as _, Fault};
use crate::pipeline::judge::may_be_renewed;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;

/// The last batch in the saved checkpoint, and the token there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::pipeline) struct Durable {
    /// All batches up to this one are in the saved checkpoint.
    pub(in crate::pipeline) seq: Seq,
    /// The checkpoint's token: the source may forget the log before it (I1).
    pub(in crate::pipeline) token: ResumeToken,
}

type Saving<S> = Pin<Box<dyn Future<Output = (S, Result<(), <S as CheckpointStore>::Error>)> + Send>>;

/// A finished save: what it made durable if it succeeded, when it began, and its result.
pub(super) type Saved<S> = (Durable, Instant, Result<(), <S as CheckpointStore>::Error>);

/// The checkpoint store, idle or saving.
pub(super) enum Saver<S: CheckpointStore> {
    Idle(S),
    Saving {
        work: Saving<S>,
        durable: Durable,
        begun: Instant,
    },
    /// After a save that failed for good, the store must not be used again. Also between two states.
    Gone,
}

impl<S: CheckpointStore> Saver<S> {
    pub(super) const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle(_))
    }

    pub(super) const fn is_saving(&self) -> bool {
        matches!(self, Self::Saving { .. })
    }

    /// How long the current save has lasted; zero where there is none.
    pub(super) fn saving_for(&self) -> Duration {
        if let Self::Saving { begun, .. } = self { begun.elapsed() } else { Duration::ZERO }
    }

    /// Begins to save the checkpoint. Does nothing unless the store is idle.
    pub(super) fn begin(&mut self, checkpoint: Checkpoint, durable: Durable) {
        match std::mem::replace(self, Self::Gone) {
            Self::Idle(mut store) => {
                *self = Self::Saving {
                    work: Box::pin(async move {
                        let result = store.save(&checkpoint).await;
                        (store, result)
                    }),
                    durable,
                    begun: Instant::now(),
                };
            }
            busy => *self = busy,
        }
    }

    /// Waits for the current save; for ever where there is none. Cancel safe.
    pub(super) async fn finished(&mut self) -> Saved<S> {
        let Self::Saving { work, .. } = self else { return std::future::pending().await };
        let (store, result) = work.await;
        let is_usable = result.as_ref().err().is_none_or(|error| error.fault() == Fault::Transient || may_be_renewed(error.code()));
        let after = if is_usable { Self::Idle(store) } else { Self::Gone };
        match std::mem::replace(self, after) {
            Self::Saving { durable, begun, .. } => (durable, begun, result),
            Self::Idle(_) | Self::Gone => unreachable!("it was saving when this began"),
        }
    }
}
