//! At-least-once delivery: batches are given to the sink as they come, and the checkpoint is saved on a timer.
//!
//! The order is always: the broker confirms, the checkpoint is saved, the source is told (I1, I2).

use super::commit_timer::CommitTimer;
use super::fold::Fold;
use super::ledger::{Ledger, Lost};
use super::save_attempts::SaveAttempts;
use super::saver::{Durable, Saved, Saver};
use super::stall::StallReport;
use super::strategy::{Delivery, DeliveryError, Interrupt};
use crate::batch::{Ack, Batch, Budget, Seq, Settled};
use crate::checkpoint::{Checkpoint, CheckpointStore, LastExit};
use crate::pipeline::failure::Failure;
use crate::pipeline::settings::Settings;
use crate::sink::Sink;
use crate::status::metrics::Metrics;
use crate::status::{Publisher, Side, Status};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

/// Handles shared with the rest of the pipeline.
pub(in crate::pipeline) struct Handles {
    pub(in crate::pipeline) budget: Budget,
    pub(in crate::pipeline) metrics: Metrics,
    pub(in crate::pipeline) status: Publisher,
    /// Cancelled when the shutdown deadline has passed: confirmations are no longer waited for.
    pub(in crate::pipeline) deadline: CancellationToken,
}

/// The ledger, the checkpoint that follows it, and the store that keeps the checkpoint.
pub(in crate::pipeline) struct AtLeastOnce<S: CheckpointStore> {
    ledger: Ledger,
    settled: mpsc::UnboundedReceiver<Settled>,
    fold: Fold,
    /// The newest batch in the checkpoint when the last session ended.
    folded_by_last_session: Seq,
    timer: CommitTimer,
    saver: Saver<S>,
    attempts: SaveAttempts,
    /// The newest batch in the checkpoint that is being saved or was saved last.
    saved: Seq,
    durable: watch::Sender<Durable>,
    stall: StallReport,
    handles: Handles,
}

/// What a turn has shown of the session.
enum Turned {
    Well,
    BatchLost,
}

impl<S: CheckpointStore> AtLeastOnce<S> {
    pub(in crate::pipeline) fn new(
        checkpoint: Checkpoint,
        store: S,
        durable: watch::Sender<Durable>,
        settings: &Settings,
        handles: Handles,
    ) -> Self {
        let (ledger, settled) = Ledger::new(Seq(1));
        let (metrics, status) = (&handles.metrics, &handles.status);
        let delivery = Self {
            ledger,
            settled,
            fold: Fold::new(checkpoint, metrics.clone(), status.clone()),
            folded_by_last_session: Seq(0),
            timer: CommitTimer::new(settings.checkpoint_interval),
            saver: Saver::Idle(store),
            attempts: SaveAttempts::new(settings, metrics.clone(), status.clone()),
            saved: Seq(0),
            durable,
            stall: StallReport::default(),
            handles,
        };
        delivery.show_memory();
        delivery
    }

    /// The next batch for the session.
    fn next_submission(&mut self) -> Option<(Arc<Batch>, Ack)> {
        let Some((batch, ack)) = self.ledger.next_submission() else {
            // Batches without records count as confirmed, and something may be waiting for one.
            self.fold_confirmed();
            return None;
        };
        self.handles.status.note(|status| status.submitted(batch.len()));
        #[expect(clippy::cast_precision_loss, reason = "a histogram's sample")]
        self.handles.metrics.sink_batch_events.observe(batch.len() as f64);
        Some((batch, ack))
    }

    /// Waits for `wait` with an open session, and commits what it confirms in the meantime.
    async fn commit_while<T, E>(&mut self, wait: impl Future<Output = T>) -> Result<T, DeliveryError<E>> {
        tokio::pin!(wait);
        loop {
            // Commits come first: a sink that always takes the next batch must not keep the checkpoint from being saved.
            tokio::select! { biased;
                turned = self.turn() => if let Turned::BatchLost = turned? {
                    return Err(DeliveryError::BatchLost);
                },
                value = &mut wait => return Ok(value),
            }
        }
    }

    /// Waits for the next ack, finished save or tick, and processes it. Cancel safe.
    async fn turn(&mut self) -> Result<Turned, Interrupt> {
        let is_idle = self.ledger.is_empty() && self.saved == self.fold.newest();
        let mut turned = Turned::Well;
        tokio::select! { biased;
            () = self.handles.deadline.cancelled() => return Err(Interrupt::DeadlinePassed),
            Some(settled) = self.settled.recv() => turned = self.settle(settled),
            saved = self.saver.finished() => self.saved(saved).map_err(Interrupt::StoreFailed)?,
            () = sleep_until(self.timer.tick_at(is_idle)) => self.tick(),
        }
        if self.timer.is_due_at_once() {
            self.begin_save();
        }
        Ok(turned)
    }

    fn tick(&mut self) {
        self.timer.ticked();
        self.handles.status.note(|status| status.mark_alive(Side::Sink));
        self.show_memory();
        self.stall.check(&self.handles.status.read(), &self.handles.metrics.sink, self.saver.saving_for());
        if self.saved < self.fold.newest() && self.timer.is_due_at_tick() {
            self.begin_save();
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn show_memory(&self) {
        let used = self.handles.budget.used_bytes();
        self.handles.metrics.buffer_bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        self.handles.metrics.buffer_fill_ratio.set(used as f64 / self.handles.budget.limit_bytes() as f64);
    }

    fn settle(&mut self, settled: Settled) -> Turned {
        let mut next = Some(settled);
        while let Some(settled) = next {
            if let Err(Lost(seq)) = self.ledger.settle(settled) {
                tracing::debug!(batch = seq.0, "batch lost by the sink");
                return Turned::BatchLost;
            }
            next = self.settled.try_recv().ok();
        }
        self.fold_confirmed();
        Turned::Well
    }

    fn fold_confirmed(&mut self) {
        if self.fold.take_confirmed(&mut self.ledger) {
            self.timer.hurry();
        }
        if self.timer.is_due_at_once() {
            self.begin_save();
        }
    }

    fn begin_save(&mut self) {
        if !self.saver.is_idle() {
            return;
        }
        let Some((checkpoint, durable)) = self.fold.image() else { return };
        self.saved = durable.seq;
        self.saver.begin(checkpoint, durable);
        self.timer.begun();
    }

    /// Processes a finished save. Only then may the source be told (I1). After a transient failure it is tried again.
    fn saved(&mut self, (durable, begun, result): Saved<S>) -> Result<(), Failure> {
        self.timer.saved();
        if let Err(error) = result {
            let delay = self.attempts.failed::<S>(&error, begun)?;
            self.saved = self.durable.borrow().seq;
            self.timer.failed(delay);
            return Ok(());
        }
        self.attempts.passed(begun);
        self.handles.status.note(|status| status.saved(&durable.token.0));
        self.durable.send_replace(durable);
        Ok(())
    }

    /// Waits for the current save, if there is one.
    async fn finish_save(&mut self) -> Result<(), Failure> {
        if self.saver.is_saving() {
            let saved = self.saver.finished().await;
            self.saved(saved)?;
        }
        Ok(())
    }
}

impl<K: Sink, S: CheckpointStore> Delivery<K> for AtLeastOnce<S> {
    async fn deliver(&mut self, sink: &mut K, batches: &mut mpsc::Receiver<Batch>) -> Result<(), DeliveryError<K::Error>> {
        loop {
            while let Some((batch, ack)) = self.next_submission() {
                self.commit_while(sink.submit(batch, ack)).await?.map_err(DeliveryError::Sink)?;
            }
            let next = async {
                tokio::select! { biased;
                    batch = batches.recv() => Ok(batch),
                    // A session may also fail while it is idle.
                    error = sink.failed() => Err(error),
                }
            };
            match self.commit_while(next).await?.map_err(DeliveryError::Sink)? {
                Some(batch) => self.ledger.track(batch),
                None => break,
            }
        }
        self.fold_confirmed();
        while !self.ledger.is_empty() {
            if let Turned::BatchLost = self.turn().await? {
                return Err(DeliveryError::BatchLost);
            }
        }
        Ok(())
    }

    fn go_back(&mut self) -> bool {
        // Confirmations that came before or besides the loss still count.
        while let Ok(settled) = self.settled.try_recv() {
            let _lost = self.ledger.settle(settled);
        }
        self.fold_confirmed();
        self.handles.status.note(Status::gone_back);
        self.handles.metrics.sink_retries.inc_by(self.ledger.go_back());
        std::mem::replace(&mut self.folded_by_last_session, self.fold.newest()) < self.fold.newest()
    }

    async fn save_while<T: Send>(&mut self, wait: impl Future<Output = T> + Send) -> Result<T, Interrupt> {
        tokio::pin!(wait);
        loop {
            tokio::select! { biased;
                // What an earlier session lost is given to the next one anyway.
                turned = self.turn() => { turned?; }
                value = &mut wait => return Ok(value),
            }
        }
    }

    async fn receive_while<T: Send>(
        &mut self,
        wait: impl Future<Output = T> + Send,
        batches: &mut mpsc::Receiver<Batch>,
    ) -> Result<T, Interrupt> {
        tokio::pin!(wait);
        // Without a session nothing is confirmed that has records: once the ledger is not empty, it stays so.
        while self.ledger.is_empty() {
            let next = async {
                tokio::select! { biased;
                    value = &mut wait => Err(value),
                    batch = batches.recv() => Ok(batch),
                }
            };
            match Delivery::<K>::save_while(self, next).await? {
                Err(value) => return Ok(value),
                Ok(Some(batch)) => self.ledger.track(batch),
                Ok(None) => return Err(Interrupt::Drained),
            }
            self.fold_confirmed();
        }
        Delivery::<K>::save_while(self, wait).await
    }

    async fn assert_ours(&mut self) -> Result<bool, Interrupt> {
        if !self.fold.has_token() {
            return Ok(true);
        }
        self.timer.save_now();
        self.begin_save();
        while self.timer.is_due_at_once() || self.saver.is_saving() {
            self.turn().await?;
        }
        Ok(self.timer.retry_at().is_none())
    }

    async fn close(&mut self, exit: LastExit) -> Result<(), Failure> {
        loop {
            Delivery::<K>::close_once(self, exit).await?;
            let Some(until) = self.timer.retry_at() else { return Ok(()) };
            tokio::select! { biased;
                () = self.handles.deadline.cancelled() => {
                    tracing::warn!("the last checkpoint was not saved: events since the one before are sent again at the next start");
                    return Ok(());
                }
                () = sleep_until(until) => {}
            }
        }
    }

    async fn close_once(&mut self, exit: LastExit) -> Result<(), Failure> {
        self.fold_confirmed();
        self.finish_save().await?;
        self.fold.set_exit(exit);
        self.begin_save();
        self.finish_save().await
    }
}
