//! The source side's end of the channel: memory for the next batch, its sequence number, and what is durable.

use super::saver::Durable;
use crate::batch::{Batch, BatchWriter, Budget, OpenRecords, Seq};
use crate::checkpoint::Progress;
use crate::status::{Health, Side};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::watch;
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
    /// While a file is being sent: the batch in which it was begun. Once that is durable, the source must keep its log.
    pub(super) keep_log_from: Option<Seq>,
    pub(super) health: Arc<Health>,
    pub(super) stop: CancellationToken,
}

/// A batch that can leave at any time: it has its memory and its slot in the channel.
pub(super) struct Outgoing {
    pub(super) out: BatchWriter,
    pub(super) permit: OwnedPermit<Batch>,
}

impl BatchSender {
    /// Waits for the memory and the slot of the next batch; `None` when the channel is closed. Cancel safe.
    pub(super) fn outgoing(&self) -> impl Future<Output = Option<Outgoing>> + Send + use<> {
        let (budget, permit) = (self.budget.clone(), self.permit());
        async move {
            let out = budget.writer().await;
            Some(Outgoing { out, permit: permit.await? })
        }
    }

    /// Waits for a slot in the channel; `None` when the channel is closed. Cancel safe.
    pub(super) fn permit(&self) -> impl Future<Output = Option<OwnedPermit<Batch>>> + Send + use<> {
        let batches = self.batches.clone();
        async move { batches?.reserve_owned().await.ok() }
    }

    /// Seals the closed records into a batch and hands it over. Returns the open ones.
    pub(super) fn send(&mut self, outgoing: Outgoing, progress: Progress) -> (Seq, Option<OpenRecords>) {
        let (batch, open) = outgoing.out.seal(self.next, progress);
        self.next = self.next.next();
        self.health.handed_over(batch.oldest_live());
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
                _ = alive.tick() => self.health.mark_alive(Side::Source),
            }
        }
    }
}
