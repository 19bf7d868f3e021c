//! The deliver half: batches to the sink, confirmations to the commits. It starts again from the commits, by itself.

use crate::batch::Batch;
use crate::checkpoint::{CheckpointStore, Identity, LastExit};
use crate::fault::{Code, Fault};
use crate::pipeline::agreement;
use crate::pipeline::commit_tracker::{self, CommitTracker};
use crate::pipeline::failure::Failure;
use crate::pipeline::health::{Health, Side};
use crate::pipeline::judge::Judge;
use crate::pipeline::outage::{Outage, Over};
use crate::pipeline::restart::{Backoff, RestartPolicy};
use crate::sink::{Sink, SinkConnector};
use crate::status::metrics::{Metrics, RestartReason};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The deliver half and what outlives its sessions.
pub(super) struct SinkSide<K, S: CheckpointStore> {
    pub(super) connector: K,
    /// Who the sink was at the start.
    pub(super) known: Identity,
    pub(super) commits: CommitTracker<S>,
    pub(super) inlet: mpsc::Receiver<Batch>,
    pub(super) policy: RestartPolicy,
    pub(super) takeover_timeout: Duration,
    pub(super) outage: Outage,
    pub(super) metrics: Metrics,
    pub(super) health: Arc<Health>,
}

/// Why a session ended before its time.
#[derive(Debug)]
enum Interrupted {
    /// The sink failed: the next session goes back to the first unconfirmed batch.
    Sink(Failure),
    /// The checkpoint cannot be kept.
    Store(Failure),
    /// The deadline of the shutdown is over.
    Deadline,
}

impl<K: SinkConnector, S: CheckpointStore> SinkSide<K, S> {
    /// Runs until the inlet has ended and everything is confirmed and saved, or the deadline is over. Returns how many
    /// records are unconfirmed then. `exit` is asked at the end how the run ended.
    pub(super) async fn run(mut self, exit: impl Fn() -> LastExit) -> Result<u64, Failure> {
        let mut backoff = Backoff::new(self.policy);
        let mut judge = Judge::new(self.takeover_timeout);
        let mut is_first = true;
        loop {
            let begun = Instant::now();
            let mut has_learnt = false;
            let ended = self.session(std::mem::take(&mut is_first), &mut has_learnt).await;
            let retries = self.metrics.sink_retries.get();
            if self.commits.go_back() || has_learnt {
                backoff.forgive();
            }
            self.health.set_connected(Side::Sink, false);
            self.metrics.sink_connected.set(0.0);
            let failure = match ended {
                Ok(()) | Err(Interrupted::Deadline) => break,
                Err(Interrupted::Store(failure)) => return Err(failure),
                Err(Interrupted::Sink(failure)) => judge.judge(failure, begun),
            };
            if !failure.is_transient() {
                self.metrics.sink_errors.inc();
                self.give_up(&failure).await;
                return Err(failure);
            }
            let again = self.metrics.sink_retries.get().saturating_sub(retries);
            self.outage.failed(Some(RestartReason::SinkError), again);
            if !self.wait(&failure, judge.delay(backoff.next_delay(begun.elapsed(), fastrand::f64()))).await? {
                break;
            }
        }
        let unconfirmed = self.commits.unconfirmed_records();
        self.commits.close(exit()).await?;
        Ok(unconfirmed)
    }

    /// Saves what is confirmed, which stays so whatever comes of the failure. Behind another broker than the one that is known
    /// nothing is kept: the checkpoint's store may lead to it too.
    async fn give_up(&mut self, failure: &Failure) {
        if matches!(failure.code, Code::SinkForeign | Code::DestinationAnew) {
            return;
        }
        if let Err(other) = self.commits.close_once(LastExit::Failed).await {
            tracing::error!(code = %other.code, error = other.message, "what is confirmed was not saved");
        }
    }

    /// Waits for the next attempt; `false` when the deadline came first.
    async fn wait(&mut self, failure: &Failure, delay: Duration) -> Result<bool, Failure> {
        self.metrics.sink_errors.inc();
        self.health.set_waits(Side::Sink, &failure.message);
        tracing::warn!(code = %failure.code, error = failure.message, delay_ms = delay.as_millis(), "the sink failed; trying again");
        match self.commits.tended(tokio::time::sleep(delay)).await {
            Ok(()) => Ok(true),
            Err(commit_tracker::Interrupted::Deadline) => Ok(false),
            Err(commit_tracker::Interrupted::Store(failure)) => Err(failure),
            Err(commit_tracker::Interrupted::Lost) => unreachable!("no session is open, and what an earlier one says does not count"),
        }
    }

    /// One session. Where it fails, `has_learnt` says whether that leaves the next one better off.
    async fn session(&mut self, is_first: bool, has_learnt: &mut bool) -> Result<(), Interrupted> {
        let Self { connector, known, commits, inlet, outage, metrics, health, .. } = self;
        let connected = commits.tended(connector.connect()).await.map_err(early)?;
        let (mut sink, found) = connected.map_err(|error| Interrupted::Sink(Failure::of(&error)))?;
        agreement::check_same_sink(known, &found).map_err(|error| Interrupted::Sink(Failure::of(&error)))?;
        if !is_first && !commits.assert_ours().await.map_err(early)? {
            // The session goes, and its lock with it: whoever holds the store's may be waiting for this one.
            let message = "the checkpoint could not be saved before the sink is used again".to_owned();
            return Err(Interrupted::Sink(Failure { code: Code::RecordsUnconfirmed, fault: Fault::Transient, message }));
        }
        metrics.sink_connected.set(1.0);
        health.set_connected(Side::Sink, true);
        if let Some(Over { lasted, attempts, again }) = outage.ended() {
            let outage_seconds = lasted.as_secs();
            tracing::info!(outage_seconds, attempts, records_again = again, "the sink is connected again after an outage");
        } else {
            tracing::info!("the sink is connected");
        }
        let failure = match carry(&mut sink, commits, inlet).await {
            Ok(()) => None,
            Err(Carried::Sink(error)) => Some(error),
            Err(Carried::CommitTracker(commit_tracker::Interrupted::Lost)) => Some(sink.failure()),
            Err(Carried::CommitTracker(interrupted)) => return Err(early(interrupted)),
        };
        if let Some(error) = failure {
            *has_learnt = sink.has_learnt();
            return Err(Interrupted::Sink(Failure::of(&error)));
        }
        match commits.tended(sink.close()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                // Everything is confirmed: how the session ends no longer matters to the records.
                tracing::warn!(error = %error, "the sink's session did not end in order");
                Ok(())
            }
            Err(interrupted) => Err(early(interrupted)),
        }
    }
}

enum Carried<E> {
    Sink(E),
    CommitTracker(commit_tracker::Interrupted),
}

/// Carries batches until the inlet has ended and all are confirmed.
async fn carry<K: Sink, S: CheckpointStore>(
    sink: &mut K,
    commits: &mut CommitTracker<S>,
    inlet: &mut mpsc::Receiver<Batch>,
) -> Result<(), Carried<K::Error>> {
    loop {
        while let Some((batch, ack)) = commits.next_submission() {
            commits.tended(sink.submit(batch, ack)).await.map_err(Carried::CommitTracker)?.map_err(Carried::Sink)?;
        }
        let next = async {
            tokio::select! { biased;
                batch = inlet.recv() => Ok(batch),
                // An idle session too says what became of it.
                error = sink.failed() => Err(error),
            }
        };
        match commits.tended(next).await.map_err(Carried::CommitTracker)?.map_err(Carried::Sink)? {
            Some(batch) => commits.track(batch),
            None => return commits.settle_all().await.map_err(Carried::CommitTracker),
        }
    }
}

fn early(interrupted: commit_tracker::Interrupted) -> Interrupted {
    match interrupted {
        commit_tracker::Interrupted::Store(failure) => Interrupted::Store(failure),
        commit_tracker::Interrupted::Deadline => Interrupted::Deadline,
        commit_tracker::Interrupted::Lost => unreachable!("only a session that carries batches can lose one"),
    }
}
