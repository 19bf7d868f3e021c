//! Commits confirmed batches: folds them into the checkpoint, saves it, and tells the source side what is durable.
//!
//! The order is always: the broker confirms, the checkpoint is saved, the source is told (I1, I2).

use super::failure::Failure;
use super::judge::Judge;
use super::ledger::{Ledger, Lost};
use super::outage::{Outage, millis};
use super::restart::Backoff;
use super::saver::{Durable, Saved, Saver};
use super::settings::Settings;
use super::stall::StallReport;
use crate::batch::{Ack, Batch, Budget, Seq, Settled};
use crate::checkpoint::{Checkpoint, CheckpointStore, LastExit};
use crate::event::{Operation, Timestamp};
use crate::status::metrics::{Metrics, RestartReason};
use crate::status::{Publisher, Side, Status};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How often the loop turns while nothing happens.
const IDLE_TICK: Duration = Duration::from_secs(10);

/// Why a wait of the commit tracker ended early.
#[derive(Debug)]
pub(super) enum Interrupt {
    /// The current session lost a batch.
    BatchLost,
    /// The checkpoint cannot be saved.
    StoreFailed(Failure),
    /// The shutdown deadline has passed.
    DeadlinePassed,
}

/// Handles shared with the rest of the pipeline.
pub(super) struct Handles {
    pub(super) budget: Budget,
    pub(super) metrics: Metrics,
    pub(super) status: Publisher,
    /// Cancelled when the shutdown deadline has passed: confirmations are no longer waited for.
    pub(super) deadline: CancellationToken,
}

/// The ledger, the checkpoint that follows it, and the store that keeps the checkpoint.
pub(super) struct CommitTracker<S: CheckpointStore> {
    ledger: Ledger,
    settled: mpsc::UnboundedReceiver<Settled>,
    checkpoint: Checkpoint,
    saver: Saver<S>,
    /// The newest batch folded into the checkpoint.
    folded: Seq,
    /// The value of `folded` when the last session ended.
    folded_by_last_session: Seq,
    /// The newest batch in the checkpoint that is being saved or was saved last.
    saved: Seq,
    /// Whether something waits until what is folded is durable.
    urgent: bool,
    durable: watch::Sender<Durable>,
    /// How often confirmed progress is saved.
    interval: Duration,
    ticked_at: Instant,
    backoff: Backoff,
    judge: Judge,
    outage: Outage,
    stall: StallReport,
    /// When to try again after a failed save.
    retry_save_at: Option<Instant>,
    handles: Handles,
}

impl<S: CheckpointStore> CommitTracker<S> {
    pub(super) fn new(checkpoint: Checkpoint, store: S, durable: watch::Sender<Durable>, settings: &Settings, handles: Handles) -> Self {
        let (ledger, settled) = Ledger::new(Seq(1));
        let commits = Self {
            ledger,
            settled,
            checkpoint,
            saver: Saver::Idle(store),
            folded: Seq(0),
            folded_by_last_session: Seq(0),
            saved: Seq(0),
            urgent: false,
            durable,
            interval: settings.checkpoint_interval,
            ticked_at: Instant::now(),
            backoff: Backoff::new(settings.restart),
            judge: Judge::new(settings.takeover_timeout),
            outage: Outage::new(handles.metrics.clone()),
            stall: StallReport::default(),
            retry_save_at: None,
            handles,
        };
        commits.show_memory();
        commits
    }

    /// Takes over a batch until it is confirmed.
    pub(super) fn track(&mut self, batch: Batch) {
        self.ledger.track(batch);
    }

    /// The next batch for the session.
    pub(super) fn next_submission(&mut self) -> Option<(Arc<Batch>, Ack)> {
        let Some((batch, ack)) = self.ledger.next_submission() else {
            // Batches without records count as confirmed now, and something may be waiting for one.
            self.fold();
            return None;
        };
        self.handles.status.note(|status| status.submitted(batch.len()));
        #[expect(clippy::cast_precision_loss, reason = "a histogram's sample")]
        self.handles.metrics.sink_batch_events.observe(batch.len() as f64);
        Some((batch, ack))
    }

    /// Ends a session: every unconfirmed batch will be given to the next one. Returns whether the session moved the checkpoint forward.
    pub(super) fn go_back(&mut self) -> bool {
        // Confirmations that came before or besides the loss still count.
        while let Ok(settled) = self.settled.try_recv() {
            let _lost = self.ledger.settle(settled);
        }
        self.fold();
        self.handles.status.note(Status::gone_back);
        self.handles.metrics.sink_retries.inc_by(self.ledger.go_back());
        std::mem::replace(&mut self.folded_by_last_session, self.folded) < self.folded
    }

    /// Waits for `wait`, and meanwhile processes acks and saves checkpoints.
    pub(super) async fn commit_while<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, Interrupt> {
        tokio::pin!(wait);
        loop {
            // Commits come first: a sink that always takes the next batch must not keep the checkpoint from being saved.
            tokio::select! { biased;
                turned = self.turn() => turned?,
                value = &mut wait => return Ok(value),
            }
        }
    }

    /// Waits until every batch is confirmed.
    pub(super) async fn wait_all_confirmed(&mut self) -> Result<(), Interrupt> {
        self.fold();
        while !self.ledger.is_empty() {
            self.turn().await?;
        }
        Ok(())
    }

    /// Waits for the next ack, finished save or tick, and processes it. Cancel safe.
    async fn turn(&mut self) -> Result<(), Interrupt> {
        // While there is nothing to confirm or save, ticks are rare.
        let is_idle = self.ledger.is_empty() && self.saved == self.folded;
        let tick_at = self.ticked_at + if is_idle { self.interval.max(IDLE_TICK) } else { self.interval };
        tokio::select! { biased;
            () = self.handles.deadline.cancelled() => return Err(Interrupt::DeadlinePassed),
            Some(settled) = self.settled.recv() => self.settle(settled)?,
            result = self.saver.finished() => self.saved(result)?,
            () = sleep_until(tick_at) => {
                self.ticked_at = Instant::now();
                self.handles.status.note(|status| status.mark_alive(Side::Sink));
                self.show_memory();
                self.stall.check(&self.handles.status.read(), &self.handles.metrics.sink);
                if self.saved < self.folded && self.retry_save_at.is_none_or(|at| at <= Instant::now()) {
                    self.begin_save();
                }
            }
        }
        if self.urgent && self.retry_save_at.is_none() {
            // A save was running when `urgent` was set.
            self.begin_save();
        }
        Ok(())
    }

    fn settle(&mut self, settled: Settled) -> Result<(), Interrupt> {
        let mut next = Some(settled);
        while let Some(settled) = next {
            self.ledger.settle(settled).map_err(|Lost(seq)| {
                tracing::debug!(batch = seq.0, "batch lost by the sink");
                Interrupt::BatchLost
            })?;
            next = self.settled.try_recv().ok();
        }
        self.fold();
        Ok(())
    }

    /// Folds the confirmed prefix into the checkpoint and gives its memory back (I2).
    pub(super) fn fold(&mut self) {
        while let Some(batch) = self.ledger.pop_confirmed() {
            let newest = batch.newest_live();
            self.checkpoint.advance(batch.progress(), newest);
            self.folded = batch.seq();
            self.urgent |= batch.progress().urgent;
            self.count(&batch, newest);
        }
        if self.urgent && self.retry_save_at.is_none() {
            self.begin_save();
        }
    }

    fn count(&self, batch: &Batch, newest: Option<Timestamp>) {
        let age = self.handles.status.note(|status| status.confirmed(newest));
        let metrics = &self.handles.metrics;
        metrics.sink_events.inc_by(batch.len() as u64);
        metrics.sink_bytes.inc_by(batch.size_bytes() as u64);
        if !batch.progress().marks.is_empty() {
            let rows = batch.records().filter(|record| record.head.operation == Operation::Read).count();
            metrics.prefeed_rows.inc_by(rows as u64);
        }
        if let Some(age) = age {
            metrics.event_age_seconds.observe(age);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn show_memory(&self) {
        let used = self.handles.budget.used_bytes();
        self.handles.metrics.buffer_bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        self.handles.metrics.buffer_fill_ratio.set(used as f64 / self.handles.budget.limit_bytes() as f64);
    }

    fn begin_save(&mut self) {
        let Some(token) = self.checkpoint.token.clone() else { return };
        if !self.saver.is_idle() {
            return;
        }
        self.checkpoint.restarts = self.handles.metrics.restarts();
        self.checkpoint.caught_up_at = self.handles.status.read().caught_up_at();
        self.saver.begin(self.checkpoint.clone(), Durable { seq: self.folded, token });
        self.saved = self.folded;
        self.urgent = false;
    }

    /// Processes a finished save. Only now may the source be told (I1). After a transient failure it is tried again.
    fn saved(&mut self, (durable, begun, result): Saved<S>) -> Result<(), Interrupt> {
        self.retry_save_at = None;
        if let Err(error) = result {
            let failure = self.judge.judge(Failure::of(&error), begun);
            if !failure.is_transient() {
                return Err(Interrupt::StoreFailed(failure));
            }
            let delay = self.judge.delay(self.backoff.next_delay(begun.elapsed(), fastrand::f64()));
            self.handles.status.publish(|status| status.checkpoint_error = Some(failure.shown(delay)));
            self.outage.count_failure(Some(RestartReason::CheckpointError), 0);
            if let Some(times) = self.outage.due_line(failure.code) {
                let delay_ms = millis(delay);
                tracing::warn!(code = %failure.code, error = failure.message, times, delay_ms, "the checkpoint was not saved; trying again");
            }
            self.saved = self.durable.borrow().seq;
            self.retry_save_at = Some(Instant::now() + delay);
            return Ok(());
        }
        self.judge.passed();
        let _ended = self.outage.end();
        self.handles.metrics.checkpoint_commits.inc();
        self.handles.metrics.checkpoint_saved();
        self.handles.metrics.checkpoint_commit_duration_seconds.observe(begun.elapsed().as_secs_f64());
        self.handles.status.note(|status| status.saved(&durable.token.0));
        self.durable.send_replace(durable);
        Ok(())
    }

    /// Saves the checkpoint now, and returns whether the store accepted it. If another instance has taken over meanwhile, the store refuses:
    /// so this one learns it before it sends anything more (I5).
    pub(super) async fn assert_ours(&mut self) -> Result<bool, Interrupt> {
        if self.checkpoint.token.is_none() {
            return Ok(true);
        }
        self.retry_save_at = None;
        self.urgent = true;
        self.begin_save();
        while self.urgent && self.retry_save_at.is_none() || self.saver.is_saving() {
            self.turn().await?;
        }
        Ok(self.retry_save_at.is_none())
    }

    /// Saves what is confirmed and how the run ended. Repeated after transient failures, until the deadline.
    pub(super) async fn close(&mut self, exit: LastExit) -> Result<(), Failure> {
        loop {
            self.close_once(exit).await?;
            let Some(until) = self.retry_save_at else { return Ok(()) };
            tokio::select! { biased;
                () = self.handles.deadline.cancelled() => {
                    tracing::warn!("the last checkpoint was not saved: events since the one before are sent again at the next start");
                    return Ok(());
                }
                () = sleep_until(until) => {}
            }
        }
    }

    /// As [`Self::close`], with one attempt.
    pub(super) async fn close_once(&mut self, exit: LastExit) -> Result<(), Failure> {
        self.fold();
        self.finish_save().await?;
        self.checkpoint.last_exit = exit;
        self.begin_save();
        self.finish_save().await
    }

    /// Waits for the current save, if there is one.
    async fn finish_save(&mut self) -> Result<(), Failure> {
        if self.saver.is_saving() {
            let saved = self.saver.finished().await;
            if let Err(Interrupt::StoreFailed(failure)) = self.saved(saved) {
                return Err(failure);
            }
        }
        Ok(())
    }
}
