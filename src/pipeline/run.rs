//! One run of a pipeline: starts it, runs its parts, and waits until they end.

use super::batch_sender::BatchSender;
use super::commit_tracker::{CommitTracker, Handles};
use super::failure::{Ending, Failure};
use super::judge::Judge;
use super::outage::{EndedOutage, Outage};
use super::parts::{self, Part};
use super::prefeed::Plan;
use super::restart::Backoff;
use super::saver::Durable;
use super::settings::Settings;
use super::sink_side::SinkSide;
use super::source_side::{SharedExit, SourceSide};
use super::start::{Start, Starter};
use super::watch_head;
use crate::batch::{Budget, Seq};
use crate::checkpoint::CheckpointStore;
use crate::fault::Exit;
use crate::format::Encoders;
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use crate::status::metrics::{Metrics, RestartReason, State};
use crate::status::{Health, PreviousRun};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Batches in the channel between the sides. The memory budget, not this number, bounds what is in flight.
const CHANNEL_BATCHES: usize = 8;

/// One pipeline: a source, a sink, a checkpoint store, and settings.
#[derive(Debug)]
pub struct Pipeline<C, K, S> {
    starter: Starter<C, K, S>,
    health: Arc<Health>,
}

impl<C: SourceConnector, K: SinkConnector, S: CheckpointStore> Pipeline<C, K, S> {
    /// A pipeline that has not begun.
    pub fn new(settings: Settings, source: C, sink: K, store: S, metrics: Metrics, health: Arc<Health>) -> Self {
        let starter = Starter { settings, source, sink, store, metrics, is_counted: false, previous: PreviousRun::default() };
        Self { starter, health }
    }

    /// Runs until `stop` is cancelled, or until a failure that is not transient. No task is left behind.
    pub async fn run(mut self, stop: CancellationToken) -> Ending {
        self.health.set_phase(State::Starting);
        let health = Arc::clone(&self.health);
        let ending = match self.begin(&stop).await {
            Ok(Some((start, probe))) => self.run_parts(start, probe, stop).await,
            Ok(None) => Ending::Drained,
            Err(failure) => Ending::Failed(failure),
        };
        health.set_phase(match ending {
            Ending::Drained | Ending::Deadline { .. } => State::Stopped,
            Ending::Failed(_) | Ending::Crashed { .. } => State::StoppedOnError,
        });
        ending
    }

    /// Tries to start until it succeeds; `None` when the stop came first.
    async fn begin(&mut self, stop: &CancellationToken) -> Result<Option<(Start, C::Probe)>, Failure> {
        let mut backoff = Backoff::new(self.starter.settings.restart);
        let mut judge = Judge::of_first_start(self.starter.settings.takeover_timeout);
        let mut outage = Outage::new(self.starter.metrics.clone());
        loop {
            let begun = Instant::now();
            let attempt = async {
                let start = self.starter.prepare().await?;
                let probe = self.starter.source.probe().await.map_err(|error| Failure::of(&error))?;
                Ok((start, probe))
            };
            let failure = tokio::select! { biased;
                () = stop.cancelled() => return Ok(None),
                attempted = attempt => match attempted {
                    Ok(begun) => {
                        if let Some(EndedOutage { lasted, attempts, .. }) = outage.end() {
                            tracing::info!(outage_seconds = lasted.as_secs(), attempts, "source, sink and checkpoint are reached: it begins");
                        }
                        return Ok(Some(begun));
                    }
                    Err(failure) => {
                        if self.starter.is_counted {
                            judge.ran_before();
                        }
                        judge.judge(failure, begun)
                    }
                },
            };
            if !failure.is_transient() {
                return Err(failure);
            }
            self.show_failed_start(&failure, &mut outage);
            let delay = judge.delay(backoff.next_delay(begun.elapsed(), fastrand::f64()));
            tracing::warn!(code = %failure.code, error = failure.message, delay_ms = delay.as_millis(), "cannot begin yet; trying again");
            tokio::select! { biased;
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Shows a failed attempt in health and metrics. Only the part that failed is known to be disconnected.
    fn show_failed_start(&self, failure: &Failure, outage: &mut Outage) {
        let is_held = failure.code.exit() == Exit::Held;
        self.health.set_phase(if is_held { State::Standby } else { State::Starting });
        let reason = RestartReason::of(failure.code);
        let disconnected = |part| (reason == Some(part) && !is_held).then_some(0.0);
        let metrics = &self.starter.metrics;
        metrics.source_connected.set(disconnected(RestartReason::SourceError));
        metrics.sink_connected.set(disconnected(RestartReason::SinkError));
        outage.count_failure(reason.filter(|_| !is_held), 0);
        self.health.start_failed(&failure.message, self.starter.previous);
    }

    /// Runs both sides and the watch of the log's head until all have ended.
    async fn run_parts(self, start: Start, probe: C::Probe, stop: CancellationToken) -> Ending {
        let Self { starter: Starter { settings, source, sink, store, metrics, previous, .. }, health } = self;
        let Start { feeds, checkpoint, resume } = start;
        let (batches, received) = mpsc::channel(CHANNEL_BATCHES);
        let (durable_sender, durable) = watch::channel(Durable { seq: Seq(0), token: resume.token.clone() });
        let deadline = CancellationToken::new();
        let halt = stop.child_token();
        let exit = SharedExit::default();
        health.set_running(previous);
        let (source_identity, sink_identity) = (checkpoint.source.clone(), checkpoint.sink.clone());
        let token = resume.token.clone();
        let plan = Plan::new(feeds, resume, checkpoint.slice, &settings, metrics.clone());
        plan.show_pending();
        let budget = Budget::new(settings.memory_bytes, settings.batch_bytes());
        let sender = BatchSender {
            batches: Some(batches),
            next: Seq(1),
            budget: budget.clone(),
            durable: durable.clone(),
            // A file that the checkpoint shows as begun is durably so.
            keep_log_from: plan.begun_file().map(|_| Seq(0)),
            health: Arc::clone(&health),
            stop: halt.clone(),
        };
        let handles = Handles { budget, metrics: metrics.clone(), health: Arc::clone(&health), deadline: deadline.clone() };
        let commits = CommitTracker::new(checkpoint, store, durable_sender, &settings, handles);
        let source_side = SourceSide {
            connector: source,
            identity: source_identity,
            token,
            plan,
            encoders: Encoders::new(settings.format.clone()),
            sender,
            policy: settings.restart,
            takeover_timeout: settings.takeover_timeout,
            on_gap: settings.on_gap,
            metrics: metrics.clone(),
            outage: Outage::new(metrics.clone()),
            exit: exit.clone(),
        };
        let sink_side = SinkSide {
            connector: sink,
            identity: sink_identity,
            commits,
            batches: received,
            policy: settings.restart,
            takeover_timeout: settings.takeover_timeout,
            outage: Outage::new(metrics.clone()),
            metrics: metrics.clone(),
            health: Arc::clone(&health),
        };
        let mut running = JoinSet::new();
        running.spawn(async move { Part::SourceSide(source_side.run().await) });
        running.spawn(async move { Part::SinkSide(sink_side.run(move || exit.get()).await) });
        let watched = Arc::clone(&health);
        running.spawn(async move {
            watch_head::run(probe, durable, metrics, watched).await;
            Part::HeadWatch
        });
        parts::wait(running, halt, deadline, settings.shutdown_deadline, &health).await
    }
}
