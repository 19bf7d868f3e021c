//! What the sink side asks of a delivery.

use crate::batch::Batch;
use crate::checkpoint::LastExit;
use crate::pipeline::failure::Failure;
use crate::sink::Sink;
use tokio::sync::mpsc;

/// Why a wait ended early.
#[derive(Debug)]
pub(in crate::pipeline) enum Interrupt {
    /// The checkpoint cannot be saved.
    StoreFailed(Failure),
    /// The shutdown deadline has passed.
    DeadlinePassed,
    /// No more batches come, and all are confirmed.
    Drained,
}

/// Why a session was given no more batches.
#[derive(Debug)]
pub(in crate::pipeline) enum DeliveryError<E> {
    /// The session failed.
    Sink(E),
    /// The session lost a batch, and can say why.
    BatchLost,
    /// The wait for the session ended early.
    Interrupted(Interrupt),
}

impl<E> From<Interrupt> for DeliveryError<E> {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

/// Gives batches to the sessions of a sink, one session after the other, and makes durable what they confirm.
///
/// It decides when a batch counts as delivered, and with what the checkpoint is saved. Batches are confirmed in order, so a checkpoint holds
/// only what the sink has, with all before it (I2).
pub(in crate::pipeline) trait Delivery<K: Sink>: Send + 'static {
    /// Gives batches to a session, those first that no session has confirmed. Returns when no more come and all are confirmed.
    fn deliver(
        &mut self,
        sink: &mut K,
        batches: &mut mpsc::Receiver<Batch>,
    ) -> impl Future<Output = Result<(), DeliveryError<K::Error>>> + Send;

    /// Ends a session: every unconfirmed batch will be given to the next one. Returns whether the session moved the checkpoint forward.
    fn go_back(&mut self) -> bool;

    /// Waits for `wait` while no session is given batches, and saves what is confirmed in the meantime.
    fn save_while<T: Send>(&mut self, wait: impl Future<Output = T> + Send) -> impl Future<Output = Result<T, Interrupt>> + Send;

    /// As [`Self::save_while`], while there is no session. Batches without records need none: while nothing unconfirmed is before them, they
    /// are received, so that the source may forget its log during an outage of the broker. Ends with [`Interrupt::Drained`] where the
    /// channel is closed and nothing is left.
    fn receive_while<T: Send>(
        &mut self,
        wait: impl Future<Output = T> + Send,
        batches: &mut mpsc::Receiver<Batch>,
    ) -> impl Future<Output = Result<T, Interrupt>> + Send;

    /// Saves the checkpoint, and returns whether the store accepted it. If another instance has taken over, the store refuses: so this one
    /// learns it before it sends anything more (I5).
    fn assert_ours(&mut self) -> impl Future<Output = Result<bool, Interrupt>> + Send;

    /// Saves what is confirmed and how the run ended. Repeated after transient failures, until the deadline.
    fn close(&mut self, exit: LastExit) -> impl Future<Output = Result<(), Failure>> + Send;

    /// As [`Self::close`], with one attempt.
    fn close_once(&mut self, exit: LastExit) -> impl Future<Output = Result<(), Failure>> + Send;
}
