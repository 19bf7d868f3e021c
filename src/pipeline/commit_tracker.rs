//! The commits of the deliver half: what is confirmed becomes the checkpoint, what is durable becomes known.
//!
//! The only order there is: the broker confirms, the checkpoint is saved, the source is told (I1, I2).

use crate::batch::{Ack, Batch, Budget, Seq, Settled};
use crate::checkpoint::{Checkpoint, CheckpointStore, LastExit, ResumeToken};
use crate::event::{Operation, Timestamp};
use crate::fault::{Classify as _, Fault};
use crate::pipeline::failure::Failure;
use crate::pipeline::health::{Health, Side};
use crate::pipeline::judge::{Judge, may_be_renewed};
use crate::pipeline::ledger::{Ledger, Lost};
use crate::pipeline::outage::Outage;
use crate::pipeline::restart::{Backoff, RestartPolicy};
use crate::pipeline::stall::Stall;
use crate::status::metrics::{Metrics, RestartReason};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// What is durable: the last batch in the saved checkpoint and its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Durable {
    /// All batches up to this one are in the saved checkpoint.
    pub(super) seq: Seq,
    /// Its token: the source may forget what lies before it (I1).
    pub(super) token: ResumeToken,
}

/// How often the commits show that they are kept while nothing happens.
const IDLE_TICK: Duration = Duration::from_secs(10);

/// Why a wait beside the commits ended early.
#[derive(Debug)]
pub(super) enum Interrupted {
    /// The present session lost a batch.
    Lost,
    /// The checkpoint cannot be kept.
    Store(Failure),
    /// The deadline of the shutdown is over.
    Deadline,
}

/// What the commits tell and are told.
pub(super) struct Handles {
    pub(super) budget: Budget,
    pub(super) metrics: Metrics,
    pub(super) health: Arc<Health>,
    /// Stop waiting for confirmations: the deadline of the shutdown is over.
    pub(super) deadline: CancellationToken,
}

/// The ledger, the checkpoint that follows it, and the store that keeps it.
pub(super) struct CommitTracker<S: CheckpointStore> {
    ledger: Ledger,
    settled: mpsc::UnboundedReceiver<Settled>,
    checkpoint: Checkpoint,
    saver: Saver<S>,
    /// The newest batch folded into the checkpoint.
    folded: Seq,
    /// Which that was when the last session had ended.
    gone_back_to: Seq,
    /// The newest batch in the checkpoint that is being, or was last, saved.
    saved: Seq,
    /// Whether somebody waits until what is folded is durable.
    urgent: bool,
    durable: watch::Sender<Durable>,
    /// How often what is confirmed is saved.
    interval: Duration,
    ticked_at: Instant,
    backoff: Backoff,
    judge: Judge,
    outage: Outage,
    stall: Stall,
    /// Until when no save is tried after one that failed.
    rests_until: Option<Instant>,
    handles: Handles,
}

type Saving<S> = Pin<Box<dyn Future<Output = (S, Result<(), <S as CheckpointStore>::Error>)> + Send>>;

/// The store, at rest or at work; a save never holds up a confirmation.
enum Saver<S: CheckpointStore> {
    Idle(S),
    Saving {
        work: Saving<S>,
        durable: Durable,
        begun: Instant,
    },
    /// Between the two, and after a failure: the store must not be used again.
    Gone,
}

impl<S: CheckpointStore> CommitTracker<S> {
    pub(super) fn new(
        checkpoint: Checkpoint,
        store: S,
        durable: watch::Sender<Durable>,
        interval: Duration,
        policy: RestartPolicy,
        takeover_timeout: Duration,
        handles: Handles,
    ) -> Self {
        let (ledger, settled) = Ledger::new(Seq(1));
        let commits = Self {
            ledger,
            settled,
            checkpoint,
            saver: Saver::Idle(store),
            folded: Seq(0),
            gone_back_to: Seq(0),
            saved: Seq(0),
            urgent: false,
            durable,
            interval,
            ticked_at: Instant::now(),
            backoff: Backoff::new(policy),
            judge: Judge::new(takeover_timeout),
            outage: Outage::new(handles.metrics.clone()),
            stall: Stall::default(),
            rests_until: None,
            handles,
        };
        commits.show_room();
        commits
    }

    /// Takes a batch into the commits.
    pub(super) fn track(&mut self, batch: Batch) {
        self.ledger.track(batch);
    }

    /// The next batch for the session.
    pub(super) fn next_submission(&mut self) -> Option<(Arc<Batch>, Ack)> {
        let Some((batch, ack)) = self.ledger.next_submission() else {
            // Batches that bring progress alone are confirmed as they stand, and somebody may be waiting for one.
            self.fold();
            return None;
        };
        self.handles.metrics.sink_inflight_events.add(i64::try_from(batch.len()).unwrap_or(i64::MAX));
        #[expect(clippy::cast_precision_loss, reason = "a histogram's sample")]
        self.handles.metrics.sink_batch_events.observe(batch.len() as f64);
        Some((batch, ack))
    }

    /// A session has ended: what it was given and did not confirm is given to the next. Returns whether it brought the
    /// checkpoint forward.
    pub(super) fn go_back(&mut self) -> bool {
        // What it confirmed before or beside what it lost is confirmed all the same.
        while let Ok(settled) = self.settled.try_recv() {
            let _lost = self.ledger.settle(settled);
        }
        self.fold();
        self.handles.metrics.sink_inflight_events.set(0);
        self.handles.metrics.sink_retries.inc_by(self.ledger.go_back());
        std::mem::replace(&mut self.gone_back_to, self.folded) < self.folded
    }

    pub(super) fn unconfirmed_records(&self) -> u64 {
        self.ledger.unconfirmed_records()
    }

    /// Waits for `wait` while settlements are booked and checkpoints saved.
    pub(super) async fn tended<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, Interrupted> {
        tokio::pin!(wait);
        loop {
            // The commits go first: a sink that takes batches without end must not keep the checkpoint from being saved.
            tokio::select! { biased;
                turned = self.turn() => turned?,
                value = &mut wait => return Ok(value),
            }
        }
    }

    /// Waits until every batch in the commits is confirmed.
    pub(super) async fn settle_all(&mut self) -> Result<(), Interrupted> {
        self.fold();
        while !self.ledger.is_empty() {
            self.turn().await?;
        }
        Ok(())
    }

    /// Waits for one thing to happen, and commits it. Cancel safe.
    async fn turn(&mut self) -> Result<(), Interrupted> {
        // Nobody is woken for the commits while there is nothing to be saved or waited for.
        let is_idle = self.ledger.is_empty() && self.saved == self.folded;
        let tick_at = self.ticked_at + if is_idle { self.interval.max(IDLE_TICK) } else { self.interval };
        tokio::select! { biased;
            () = self.handles.deadline.cancelled() => return Err(Interrupted::Deadline),
            Some(settled) = self.settled.recv() => self.settle(settled)?,
            result = self.saver.finished() => self.saved(result)?,
            () = sleep_until(tick_at) => {
                self.ticked_at = Instant::now();
                self.handles.health.turned(Side::Sink);
                self.show_room();
                self.stall.look(&self.handles.health, &self.handles.metrics.sink);
                if self.saved < self.folded && self.rests_until.is_none_or(|until| until <= Instant::now()) {
                    self.begin_save();
                }
            }
        }
        if self.urgent && self.rests_until.is_none() {
            // A save was at hand when the need arose.
            self.begin_save();
        }
        Ok(())
    }

    fn settle(&mut self, settled: Settled) -> Result<(), Interrupted> {
        let mut next = Some(settled);
        while let Some(settled) = next {
            self.ledger.settle(settled).map_err(|Lost(seq)| {
                tracing::debug!(batch = seq.0, "batch lost by the sink");
                Interrupted::Lost
            })?;
            next = self.settled.try_recv().ok();
        }
        self.fold();
        Ok(())
    }

    /// Folds the confirmed prefix into the checkpoint and lets its room go (I2).
    pub(super) fn fold(&mut self) {
        while let Some(batch) = self.ledger.pop_confirmed() {
            let newest = batch.newest_live();
            self.checkpoint.advance(batch.progress(), newest);
            self.folded = batch.seq();
            self.urgent |= batch.progress().urgent;
            self.count(&batch, newest);
        }
        if self.urgent && self.rests_until.is_none() {
            self.begin_save();
        }
    }

    fn count(&self, batch: &Batch, newest: Option<Timestamp>) {
        let age = self.handles.health.confirmed(newest);
        let metrics = &self.handles.metrics;
        metrics.sink_events.inc_by(batch.len() as u64);
        metrics.sink_bytes.inc_by(batch.size_bytes() as u64);
        metrics.sink_inflight_events.sub(i64::try_from(batch.len()).unwrap_or(i64::MAX));
        if !batch.progress().marks.is_empty() {
            let rows = batch.records().filter(|record| record.head.operation == Operation::Read).count();
            metrics.prefeed_rows.inc_by(rows as u64);
        }
        if let Some(age) = age {
            metrics.event_age_seconds.observe(age);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn show_room(&self) {
        let used = self.handles.budget.used_bytes();
        self.handles.metrics.buffer_bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        self.handles.metrics.buffer_fill_ratio.set(used as f64 / self.handles.budget.limit_bytes() as f64);
    }

    fn begin_save(&mut self) {
        let Some(token) = self.checkpoint.token.clone() else { return };
        match std::mem::replace(&mut self.saver, Saver::Gone) {
            Saver::Idle(mut store) => {
                self.checkpoint.restarts = self.handles.metrics.restarts();
                self.checkpoint.caught_up_at = self.handles.health.proved();
                let checkpoint = self.checkpoint.clone();
                self.saver = Saver::Saving {
                    work: Box::pin(async move {
                        let result = store.save(&checkpoint).await;
                        (store, result)
                    }),
                    durable: Durable { seq: self.folded, token },
                    begun: Instant::now(),
                };
                self.saved = self.folded;
                self.urgent = false;
            }
            busy => self.saver = busy,
        }
    }

    /// The checkpoint is durable: only now may the source be told (I1). What could not be saved for now is tried again.
    fn saved(&mut self, (durable, begun, result): Saved<S>) -> Result<(), Interrupted> {
        self.rests_until = None;
        if let Err(error) = result {
            let failure = self.judge.judge(Failure::of(&error), begun);
            if !failure.is_transient() {
                return Err(Interrupted::Store(failure));
            }
            let delay = self.judge.delay(self.backoff.next_delay(begun.elapsed(), fastrand::f64()));
            tracing::warn!(code = %failure.code, error = failure.message, delay_ms = delay.as_millis(), "the checkpoint was not saved; trying again");
            self.outage.failed(Some(RestartReason::CheckpointError), 0);
            self.saved = self.durable.borrow().seq;
            self.rests_until = Some(Instant::now() + delay);
            return Ok(());
        }
        self.judge.passed();
        let _over = self.outage.ended();
        self.handles.metrics.checkpoint_commits.inc();
        self.handles.metrics.checkpoint_saved();
        self.handles.metrics.checkpoint_commit_duration_seconds.observe(begun.elapsed().as_secs_f64());
        self.durable.send_replace(durable);
        Ok(())
    }

    /// Saves the checkpoint now: a process that was cut off while another went on from its checkpoint is told so by the store,
    /// before it sends behind that one what it still has (I5). Returns whether the store took it.
    pub(super) async fn assert_ours(&mut self) -> Result<bool, Interrupted> {
        if self.checkpoint.token.is_none() {
            return Ok(true);
        }
        self.rests_until = None;
        self.urgent = true;
        self.begin_save();
        while self.urgent && self.rests_until.is_none() || matches!(self.saver, Saver::Saving { .. }) {
            self.turn().await?;
        }
        Ok(self.rests_until.is_none())
    }

    /// Saves what is folded, with how the run ended, and tells what is durable for the last time.
    pub(super) async fn close(&mut self, exit: LastExit) -> Result<(), Failure> {
        loop {
            self.close_once(exit).await?;
            let Some(until) = self.rests_until else { return Ok(()) };
            tokio::select! { biased;
                () = self.handles.deadline.cancelled() => {
                    tracing::warn!("the last checkpoint was not saved: events since the one before follow again at the next start");
                    return Ok(());
                }
                () = sleep_until(until) => {}
            }
        }
    }

    /// As [`Self::close`], with one try.
    pub(super) async fn close_once(&mut self, exit: LastExit) -> Result<(), Failure> {
        self.fold();
        self.finish().await?;
        self.checkpoint.last_exit = exit;
        self.begin_save();
        self.finish().await
    }

    /// Waits for the save at hand, if there is one.
    async fn finish(&mut self) -> Result<(), Failure> {
        if let Saver::Saving { .. } = self.saver {
            let saved = self.saver.finished().await;
            if let Err(Interrupted::Store(failure)) = self.saved(saved) {
                return Err(failure);
            }
        }
        Ok(())
    }
}

type Saved<S> = (Durable, Instant, Result<(), <S as CheckpointStore>::Error>);

impl<S: CheckpointStore> Saver<S> {
    /// Waits for the save at hand; for ever where there is none. Cancel safe.
    async fn finished(&mut self) -> Saved<S> {
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
