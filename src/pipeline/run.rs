//! One run of a pipeline: starts it, runs its parts, and waits until they end.

use super::batch_sender::BatchSender;
use super::command::{self, Handle, SetLogLevel};
use super::control::{Control, Requests};
use super::delivery::{AtLeastOnce, Durable, Handles};
use super::failure::{Ending, Failure};
use super::judge::Judge;
use super::new_tables::NewTables;
use super::outage::{EndedOutage, Outage, millis};
use super::parts::{self, Part};
use super::prefeed::Plan;
use super::restart::Backoff;
use super::settings::Settings;
use super::sink_side::SinkSide;
use super::source_side::{SharedExit, SourceSide};
use super::start::{Start, Starter};
use super::watch_head;
use crate::batch::{Budget, Seq};
use crate::checkpoint::CheckpointStore;
use crate::format::Encoders;
use crate::sink::SinkConnector;
use crate::source::{Source, SourceConnector};
use crate::status::metrics::{Metrics, RestartReason, State};
use crate::status::{LastError, PreviousRun, Publisher, Side, WaitFor};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
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
    status: Publisher,
    control: Control,
    requests: Requests,
    handle: Handle,
}

impl<C: SourceConnector, K: SinkConnector, S: CheckpointStore> Pipeline<C, K, S> {
    /// A pipeline that has not begun, and publishes into `status`. `set_log_level` carries out [`Command::SetLogLevel`](super::Command).
    pub fn new(
        settings: Settings,
        source: C,
        sink: K,
        store: S,
        metrics: Metrics,
        status: Publisher,
        set_log_level: Option<SetLogLevel>,
    ) -> Self {
        let starter = Starter { settings, source, sink, store, metrics, is_counted: false, previous: PreviousRun::default() };
        let (handle, commands) = command::channel();
        let (control, requests) = Control::new(commands, set_log_level, status.clone());
        Self { starter, status, control, requests, handle }
    }

    /// Sends commands to it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `stop` is cancelled, or until a failure that is not transient. No task is left behind.
    pub async fn run(self, stop: CancellationToken) -> Ending {
        let Self { starter, status, mut control, requests, handle: _ } = self;
        status.publish(|status| {
            status.begin();
            status.set_finds_changes_late(<C::Source as Source>::FINDS_CHANGES_LATE);
            status.set_phase(State::Starting);
        });
        let ending = tokio::select! { biased;
            ending = starter.run(requests, &status, stop) => ending,
            () = control.run() => unreachable!("it takes commands for as long as it is asked to"),
        };
        status.publish(|status| {
            status.set_phase(match &ending {
                Ending::Drained | Ending::Deadline { .. } => State::Stopped,
                Ending::Failed(_) | Ending::Crashed { .. } => State::StoppedOnError,
            });
            if let Ending::Failed(Failure { code, message, .. }) = &ending {
                status.ended_by = Some(LastError::fatal(*code, message));
            }
        });
        ending
    }
}

impl<C: SourceConnector, K: SinkConnector, S: CheckpointStore> Starter<C, K, S> {
    async fn run(mut self, requests: Requests, status: &Publisher, stop: CancellationToken) -> Ending {
        match self.begin(status, &stop).await {
            Ok(Some((start, probe))) => self.run_parts(start, probe, requests, status.clone(), stop).await,
            Ok(None) => Ending::Drained,
            Err(failure) => Ending::Failed(failure),
        }
    }

    /// Tries to start until it succeeds; `None` when the stop came first.
    async fn begin(&mut self, status: &Publisher, stop: &CancellationToken) -> Result<Option<(Start, C::Probe)>, Failure> {
        let mut backoff = Backoff::new(self.settings.restart);
        let mut judge = Judge::of_first_start(self.settings.takeover_timeout);
        let mut outage = Outage::new(self.metrics.clone());
        loop {
            let begun = Instant::now();
            let attempt = async {
                let start = self.prepare().await?;
                let probe = self.source.probe().await.map_err(|error| Failure::of(&error))?;
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
                        if self.is_counted {
                            judge.ran_before();
                        }
                        judge.judge(failure, begun)
                    }
                },
            };
            if !failure.is_transient() {
                return Err(failure);
            }
            let delay = judge.delay(backoff.next_delay(begun.elapsed(), fastrand::f64()));
            self.show_failed_start(&failure, delay, &mut outage, status);
            if let Some(times) = outage.due_line(failure.code) {
                tracing::warn!(code = %failure.code, error = failure.message, times, delay_ms = millis(delay), "cannot begin yet; trying again");
            }
            tokio::select! { biased;
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Shows a failed attempt in the status. Only the part that failed is known to be disconnected.
    fn show_failed_start(&self, failure: &Failure, delay: Duration, outage: &mut Outage, status: &Publisher) {
        let waits_for = failure.waits_for();
        let reason = RestartReason::of(failure.code);
        outage.count_failure(reason.filter(|_| waits_for.is_none()), 0);
        let is_held = waits_for == Some(WaitFor::Instance);
        let failed = match reason.filter(|_| !is_held) {
            Some(RestartReason::SourceError) => Some(Side::Source),
            Some(RestartReason::SinkError) => Some(Side::Sink),
            _ => None,
        };
        status.publish(|status| {
            status.set_phase(if is_held { State::Standby } else { State::Starting });
            status.start_failed(failure.shown(delay), failed, self.previous);
            status.set_waiting(Side::Source, waits_for.map(|what| (what, Some(failure.message.clone()))));
        });
    }

    /// Runs both sides and the watch of the log's head until all have ended.
    async fn run_parts(self, start: Start, probe: C::Probe, requests: Requests, status: Publisher, stop: CancellationToken) -> Ending {
        let Self { settings, source, sink, store, metrics, previous, .. } = self;
        let Requests { gate, restart_source, restart_sink, read_again } = requests;
        let Start { feeds, checkpoint, resume } = start;
        let (batches, received) = mpsc::channel(CHANNEL_BATCHES);
        let (durable_sender, durable) = watch::channel(Durable { seq: Seq(0), token: resume.token.clone() });
        let deadline = CancellationToken::new();
        let halt = stop.child_token();
        let exit = SharedExit::default();
        status.publish(|status| {
            status.set_running(previous);
            let position = || Some(resume.token.0.clone());
            (status.handed_over, status.confirmed, status.durable) = (position(), position(), position());
        });
        let (source_identity, sink_identity) = (checkpoint.source.clone(), checkpoint.sink.clone());
        let token = resume.token.clone();
        let plan = Plan::new(Arc::clone(&feeds), resume, checkpoint.slice, &settings, metrics.clone(), status.clone());
        plan.show_pending();
        let budget = Budget::new(settings.memory_bytes, settings.batch_bytes());
        let sender = BatchSender {
            batches: Some(batches),
            next: Seq(1),
            acknowledge_from: Seq(0),
            budget: budget.clone(),
            durable: durable.clone(),
            // A file that the checkpoint shows as begun is durably so.
            keep_log_from: plan.begun_file().map(|_| Seq(0)),
            status: status.clone(),
            stop: halt.clone(),
            gate,
            restart: restart_source,
            read_again,
            unmarked: BTreeSet::new(),
        };
        let handles = Handles { budget, metrics: metrics.clone(), status: status.clone(), deadline: deadline.clone() };
        let delivery = AtLeastOnce::new(checkpoint, store, durable_sender, &settings, handles);
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
            delivery,
            batches: received,
            policy: settings.restart,
            takeover_timeout: settings.takeover_timeout,
            outage: Outage::new(metrics.clone()),
            metrics: metrics.clone(),
            status: status.clone(),
            restart: restart_sink,
        };
        let mut running = JoinSet::new();
        running.spawn(async move { Part::SourceSide(source_side.run().await) });
        running.spawn(async move { Part::SinkSide(sink_side.run(move || exit.get()).await) });
        let (watched, new_tables) = (status.clone(), NewTables::new(feeds));
        running.spawn(async move {
            watch_head::run(probe, new_tables, durable, metrics, watched).await;
            Part::HeadWatch
        });
        parts::wait(running, halt, deadline, settings.shutdown_deadline, &status).await
    }
}
