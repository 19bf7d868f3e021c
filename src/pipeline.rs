//! The engine: two halves and what lies between them.
//!
//! The feed half reads the source into batches; the deliver half gives them to the sink and commits what comes back. One bounded
//! channel joins them, and three narrow returns lead back: room, acks, and the durable place.

use crate::batch::Budget;
use crate::checkpoint::CheckpointStore;
use crate::fault::Exit;
use crate::feed::resolve::FeedRule;
use crate::feed::route::Template;
use crate::pipeline::commit_tracker::Durable;
use crate::pipeline::restart::{Backoff, RestartPolicy};
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use crate::status::metrics::{Metrics, RestartReason, State};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub mod agreement;
mod commit_tracker;
mod failure;
pub mod health;
mod held;
mod judge;
mod ledger;
mod outage;
mod prefeed;
pub mod restart;
mod sink_side;
mod source_side;
mod stall;
mod start;
mod stream;
mod watch_head;

pub use failure::{Ending, Failure};
pub use ledger::{Ledger, Lost};
pub use source_side::OnGap;

use commit_tracker::{CommitTracker, Handles};
use health::{Health, Reached};
use judge::Judge;
use outage::{Outage, Over};
use sink_side::SinkSide;
use source_side::SourceSide;
use start::Start;

/// Batches between the halves; what more there is waits where it is counted, in the room.
const CHANNEL_BATCHES: usize = 8;
/// How long after the deadline the halves may take to save what is confirmed.
const CLOSING_GRACE: Duration = Duration::from_secs(2);

/// What a pipeline is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub name: Arc<str>,
    /// Hash of the settings on which ids and bytes of events depend.
    pub configuration: String,
    /// Which tables are published, and how.
    pub rules: Vec<FeedRule>,
    /// Where records go unless a rule says otherwise.
    pub route: Template,
    /// The schema of a table pattern that names none.
    pub default_schema: &'static str,
    /// Room from the socket to the confirmation, in bytes.
    pub memory_bytes: usize,
    /// How often the checkpoint is saved while it moves.
    pub checkpoint_interval: Duration,
    /// How long a stop may take.
    pub shutdown_deadline: Duration,
    /// The longest prefeed slice while nothing is live yet.
    pub prefeed_slice: Duration,
    /// How many bytes of events the prefeed may read a second; `None` is without a limit.
    pub prefeed_bytes_per_second: Option<NonZeroU64>,
    /// How long whoever else holds the source, the sink or the checkpoint is waited for.
    pub takeover_timeout: Duration,
    /// What happens when the log no longer holds what comes next.
    pub on_gap: OnGap,
    /// Go on although keys or the format differ from what the checkpoint was made with.
    pub accept_config_change: bool,
    /// When a half starts again.
    pub restart: RestartPolicy,
}

impl Settings {
    /// The size of a batch: large enough that handing it over costs nothing, small enough that the room holds dozens.
    fn batch_bytes(&self) -> usize {
        (self.memory_bytes / 16).clamp(16 << 10, 256 << 10)
    }
}

/// One pipeline: a source, a sink, a store, and what they are told.
#[derive(Debug)]
pub struct Pipeline<C, K, S> {
    settings: Settings,
    source: C,
    sink: K,
    store: S,
    metrics: Metrics,
    health: Arc<Health>,
    counted_start: bool,
    reached: Reached,
}

/// A part of a running pipeline that has ended.
enum Part {
    Feed(Result<(), Failure>),
    SinkSide(Result<u64, Failure>),
    Watch,
}

/// What the end of a run is pieced together from.
#[derive(Debug, Default)]
struct Outcome {
    unconfirmed: u64,
    failure: Option<Failure>,
    panic: Option<String>,
}

impl<C: SourceConnector, K: SinkConnector, S: CheckpointStore> Pipeline<C, K, S> {
    /// A pipeline that has not begun.
    pub fn new(settings: Settings, source: C, sink: K, store: S, metrics: Metrics, health: Arc<Health>) -> Self {
        Self { settings, source, sink, store, metrics, health, counted_start: false, reached: Reached::default() }
    }

    /// Runs until `stop` or until a fault that does not pass. It leaves no task behind.
    pub async fn run(mut self, stop: CancellationToken) -> Ending {
        self.health.set_phase(State::Starting);
        let health = Arc::clone(&self.health);
        let ending = match self.begin(&stop).await {
            Ok(Some((start, probe))) => self.carry(start, probe, stop).await,
            Ok(None) => Ending::Drained,
            Err(failure) => Ending::Failed(failure),
        };
        health.set_phase(match ending {
            Ending::Drained | Ending::Deadline { .. } => State::Stopped,
            Ending::Failed(_) | Ending::Crashed { .. } => State::StoppedOnError,
        });
        ending
    }

    /// Attempts to begin until it succeeds; `None` when the stop came first.
    async fn begin(&mut self, stop: &CancellationToken) -> Result<Option<(Start, C::Probe)>, Failure> {
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
                        if let Some(Over { lasted, attempts, .. }) = outage.ended() {
                            tracing::info!(outage_seconds = lasted.as_secs(), attempts, "source, sink and checkpoint are reached: it begins");
                        }
                        return Ok(Some(begun));
                    }
                    Err(failure) => {
                        if self.counted_start {
                            judge.ran_before();
                        }
                        judge.judge(failure, begun)
                    }
                },
            };
            if !failure.is_transient() {
                return Err(failure);
            }
            self.cannot_begin(&failure, &mut outage);
            let delay = judge.delay(backoff.next_delay(begun.elapsed(), fastrand::f64()));
            tracing::warn!(code = %failure.code, error = failure.message, delay_ms = delay.as_millis(), "cannot begin yet; trying again");
            tokio::select! { biased;
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// What an attempt failed at is known to be away, and of the rest nothing.
    fn cannot_begin(&self, failure: &Failure, outage: &mut Outage) {
        let is_held = failure.code.exit() == Exit::Held;
        self.health.set_phase(if is_held { State::Standby } else { State::Starting });
        let reason = RestartReason::of(failure.code);
        let away = |half| (reason == Some(half) && !is_held).then_some(0.0);
        self.metrics.source_connected.set(away(RestartReason::SourceError));
        self.metrics.sink_connected.set(away(RestartReason::SinkError));
        outage.failed(reason.filter(|_| !is_held), 0);
        self.health.cannot_begin(&failure.message, self.reached);
    }

    async fn carry(self, start: Start, probe: C::Probe, stop: CancellationToken) -> Ending {
        let Self { settings, source, sink, store, metrics, health, reached, .. } = self;
        let (batches, inlet) = mpsc::channel(CHANNEL_BATCHES);
        let (durable, told) = watch::channel(Durable { seq: crate::batch::Seq(0), token: start.resume.token.clone() });
        let deadline = CancellationToken::new();
        let halt = stop.child_token();
        let verdict = source_side::Verdict::default();
        health.set_running(reached);
        let known = start.checkpoint.source.clone();
        let plan = prefeed::Plan {
            feeds: start.feeds,
            states: start.resume.feeds,
            layouts: start.resume.layouts,
            slice: start.checkpoint.slice,
            is_numbered: false,
            begun: None,
            slice_max: settings.prefeed_slice,
            held_since: Instant::now(),
            rate_limit: prefeed::RateLimit::new(settings.prefeed_bytes_per_second),
            metrics: metrics.clone(),
        };
        plan.show_pending();
        let budget = Budget::new(settings.memory_bytes, settings.batch_bytes());
        let outlet = stream::Outlet {
            batches: Some(batches),
            next: crate::batch::Seq(1),
            budget: budget.clone(),
            durable: told.clone(),
            // That a checkpoint shows is durable.
            kept: plan.begun_file().map(|_| crate::batch::Seq(0)),
            health: Arc::clone(&health),
            stop: halt.clone(),
        };
        let handles = Handles { budget, metrics: metrics.clone(), health: Arc::clone(&health), deadline: deadline.clone() };
        let sink_identity = start.checkpoint.sink.clone();
        let commits = CommitTracker::new(
            start.checkpoint,
            store,
            durable,
            settings.checkpoint_interval,
            settings.restart,
            settings.takeover_timeout,
            handles,
        );
        let reader = SourceSide {
            connector: source,
            known,
            token: start.resume.token,
            plan,
            outlet,
            policy: settings.restart,
            takeover_timeout: settings.takeover_timeout,
            on_gap: settings.on_gap,
            metrics: metrics.clone(),
            outage: Outage::new(metrics.clone()),
            verdict: verdict.clone(),
        };
        let deliver = SinkSide {
            connector: sink,
            known: sink_identity,
            commits,
            inlet,
            policy: settings.restart,
            takeover_timeout: settings.takeover_timeout,
            outage: Outage::new(metrics.clone()),
            metrics: metrics.clone(),
            health: Arc::clone(&health),
        };
        let mut parts = JoinSet::new();
        parts.spawn(async move { Part::Feed(reader.run().await) });
        parts.spawn(async move { Part::SinkSide(deliver.run(move || verdict.get()).await) });
        let watched = Arc::clone(&health);
        parts.spawn(async move {
            watch_head::run(probe, told, metrics, watched).await;
            Part::Watch
        });
        wait(parts, halt, deadline, settings.shutdown_deadline, &health).await.ending()
    }
}

/// Waits for all parts. When one fails the others drain: what is confirmed is saved, within the deadline.
async fn wait(
    mut parts: JoinSet<Part>,
    halt: CancellationToken,
    deadline: CancellationToken,
    shutdown_deadline: Duration,
    health: &Health,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut ends_at: Option<Instant> = None;
    loop {
        let overdue = async {
            match ends_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            joined = parts.join_next() => match joined {
                None => return outcome,
                Some(joined) => if outcome.book(joined) { halt.cancel(); },
            },
            () = halt.cancelled(), if ends_at.is_none() => {
                health.set_stopping();
                ends_at = Some(Instant::now() + shutdown_deadline);
            }
            () = overdue => if deadline.is_cancelled() {
                parts.abort_all();
                ends_at = Some(Instant::now() + CLOSING_GRACE);
            } else {
                tracing::warn!(deadline_seconds = shutdown_deadline.as_secs(), "records are unconfirmed at the deadline; they follow at the next start");
                deadline.cancel();
                ends_at = Some(Instant::now() + CLOSING_GRACE);
            },
        }
    }
}

impl Outcome {
    /// CommitTracker the end of a part; whether the others are to end too.
    fn book(&mut self, joined: Result<Part, tokio::task::JoinError>) -> bool {
        match joined {
            Ok(Part::Feed(Ok(())) | Part::Watch) => return false,
            Ok(Part::SinkSide(Ok(unconfirmed))) => self.unconfirmed = unconfirmed,
            Ok(Part::Feed(Err(failure)) | Part::SinkSide(Err(failure))) => {
                self.failure.get_or_insert(failure);
            }
            Err(error) if error.is_panic() => {
                self.panic.get_or_insert(panic_message(&*error.into_panic()));
            }
            // Aborted after the deadline: it could not even save in time.
            Err(_aborted) => self.unconfirmed = self.unconfirmed.max(1),
        }
        true
    }

    fn ending(self) -> Ending {
        match self {
            Self { panic: Some(message), .. } => Ending::Crashed { message },
            Self { failure: Some(failure), .. } => Ending::Failed(failure),
            Self { unconfirmed: 0, .. } => Ending::Drained,
            Self { unconfirmed, .. } => Ending::Deadline { unconfirmed },
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}
