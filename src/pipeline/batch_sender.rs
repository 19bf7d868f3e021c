//! The source side's end of the channel: memory for the next batch, its sequence number, and what is durable.

use super::delivery::Durable;
use super::gate::Gate;
use super::shown_wait::shown;
use crate::batch::{Batch, BatchWriter, Budget, OpenRecords, Seq};
use crate::checkpoint::Progress;
use crate::event::FeedId;
use crate::status::{HandedOver, Publisher, Side, WaitFor};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often the source side marks itself alive while it waits without a session.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Sends batches to the sink side. Outlives the sessions of the source side.
#[derive(Debug)]
pub(super) struct BatchSender {
    /// `None` once no more batches will come.
    pub(super) batches: Option<mpsc::Sender<Batch>>,
    pub(super) next: Seq,
    pub(super) budget: Budget,
    pub(super) durable: watch::Receiver<Durable>,
    /// Once this batch is durable, the source is told what is durable. Set by a session that begins earlier than it resumes, and kept after it: the
    /// next session resumes where that one began.
    pub(super) acknowledge_from: Seq,
    /// While a file is being sent: the batch in which it was begun. Once that is durable, the source must keep its log.
    pub(super) keep_log_from: Option<Seq>,
    pub(super) status: Publisher,
    pub(super) stop: CancellationToken,
    /// Closed during a pause.
    pub(super) gate: Gate,
    /// Changes when a new session is requested.
    pub(super) restart: watch::Receiver<()>,
    pub(super) read_again: mpsc::UnboundedReceiver<FeedId>,
    /// Feeds to be read again that are not marked so yet.
    pub(super) unmarked: BTreeSet<FeedId>,
}

/// A batch that can leave at any time: it has its memory and its slot in the channel.
pub(super) struct Outgoing {
    pub(super) out: BatchWriter,
    pub(super) permit: OwnedPermit<Batch>,
}

impl BatchSender {
    /// Waits for the memory and the slot of the next batch; `None` when the channel is closed. Cancel safe.
    pub(super) fn outgoing(&self) -> impl Future<Output = Option<Outgoing>> + Send + use<> {
        let (memory, permit) = (self.memory(), self.permit());
        async move { Some(Outgoing { out: memory.await, permit: permit.await? }) }
    }

    /// Waits for the memory of one batch. Cancel safe.
    pub(super) fn memory(&self) -> impl Future<Output = BatchWriter> + Send + use<> {
        let budget = self.budget.clone();
        self.given_out(async move { budget.writer().await })
    }

    /// As [`Self::memory`], for up to `most` batches at once.
    pub(super) fn memory_of(&self, most: usize) -> impl Future<Output = Vec<BatchWriter>> + Send + use<> {
        let budget = self.budget.clone();
        self.given_out(async move { budget.writers(most).await })
    }

    /// The one way to memory: through the gate, and shown in the status while it is waited for.
    fn given_out<T, F: Future<Output = T> + Send>(&self, memory: F) -> impl Future<Output = T> + Send + use<T, F> {
        let (gate, status) = (self.gate.clone(), self.status.clone());
        async move {
            shown(&status, Side::Source, WaitFor::Resume, gate.opened()).await;
            shown(&status, Side::Source, WaitFor::Broker, memory).await
        }
    }

    /// Waits for a slot in the channel; `None` when the channel is closed. Cancel safe.
    pub(super) fn permit(&self) -> impl Future<Output = Option<OwnedPermit<Batch>>> + Send + use<> {
        let (batches, status) = (self.batches.clone(), self.status.clone());
        async move { shown(&status, Side::Source, WaitFor::Broker, batches?.reserve_owned()).await.ok() }
    }

    /// Seals the closed records into a batch and hands it over. Returns the open ones.
    pub(super) fn send(&mut self, outgoing: Outgoing, progress: Progress) -> (Seq, Option<OpenRecords>) {
        let (batch, open) = outgoing.out.seal(self.next, progress);
        self.next = self.next.next();
        let position = &batch.progress().token.0;
        let handed_over = HandedOver { records: batch.len(), bytes: batch.size_bytes(), oldest: batch.oldest_live(), position };
        self.status.note(|status| status.handed_over(handed_over));
        let seq = batch.seq();
        outgoing.permit.send(batch);
        (seq, open)
    }

    /// Waits until `seq` and all before it are durable; `false` when they never will be. Cancel safe.
    pub(super) fn durable(&self, seq: Seq) -> impl Future<Output = bool> + Send + use<> {
        let mut durable = self.durable.clone();
        async move { durable.wait_for(|durable| seq <= durable.seq).await.is_ok() }
    }

    /// Hands over progress without records, and waits until it is durable or the pipeline stops.
    pub(super) async fn send_progress(&mut self, progress: Progress) {
        let Some(Some(outgoing)) = self.wait_unless_stopped(self.outgoing()).await else { return };
        let (seq, _) = self.send(outgoing, progress);
        // If the sink side has ended, the source side ends next.
        let _durable = self.wait_unless_stopped(self.durable(seq)).await;
    }

    /// Waits for `wait` while no session is open; `None` when the stop came first.
    pub(super) async fn wait_unless_stopped<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(wait);
        let mut alive = tokio::time::interval(ALIVE_INTERVAL);
        loop {
            tokio::select! { biased;
                () = self.stop.cancelled() => return None,
                value = &mut wait => return Some(value),
                _ = alive.tick() => self.status.note(|status| status.mark_alive(Side::Source)),
            }
        }
    }

    /// Waits before the next session, no longer than until one is requested; `None` when the stop came first.
    pub(super) async fn delay(&self, delay: Duration) -> Option<()> {
        let mut restart = self.restart.clone();
        let over = async {
            tokio::select! { biased;
                Ok(()) = restart.changed() => {}
                () = sleep(delay) => {}
            }
        };
        self.wait_unless_stopped(over).await
    }
}
