//! The feed half and what outlives its sessions with the source.

use crate::checkpoint::{Identity, LastExit, Progress};
use crate::event::FeedId;
use crate::fault::{Code, Fault};
use crate::pipeline::failure::Failure;
use crate::pipeline::health::Side;
use crate::pipeline::judge::Judge;
use crate::pipeline::outage::{Outage, Over};
use crate::pipeline::prefeed::Plan;
use crate::pipeline::restart::{Backoff, RestartPolicy};
use crate::pipeline::stream::{Interrupted, Limit, Outlet, Stream};
use crate::source::{Resume, SourceConnector};
use crate::status::metrics::{Gap, Metrics, RestartReason, State};
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often a half shows that it turns while it waits for its next attempt.
const TURN: Duration = Duration::from_secs(1);

/// The feed half: sessions with the source, one after the other.
pub(super) struct SourceSide<C> {
    pub(super) connector: C,
    /// Who the source was when the checkpoint was made.
    pub(super) known: Identity,
    /// The newest place on its way; a new session goes on there.
    pub(super) token: crate::checkpoint::ResumeToken,
    pub(super) plan: Plan,
    pub(super) outlet: Outlet,
    pub(super) policy: RestartPolicy,
    pub(super) takeover_timeout: Duration,
    pub(super) on_gap: OnGap,
    pub(super) metrics: Metrics,
    pub(super) outage: Outage,
    pub(super) verdict: Verdict,
}

/// How the run is ending, for the checkpoint. It says `Running` until the feed half has ended in order, so that a panic there
/// looks at the next start like the crash that it was.
#[derive(Clone, Debug)]
pub(super) struct Verdict(Arc<Mutex<LastExit>>);

impl Default for Verdict {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LastExit::Running)))
    }
}

impl Verdict {
    pub(super) fn get(&self) -> LastExit {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, exit: LastExit) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = exit;
    }
}

/// How a session ended in order.
enum Ended {
    /// The pipeline is asked to stop, or the deliver half has ended.
    Stopped,
    /// The rows of the feed's file are sent.
    Loaded(FeedId),
}

impl<C: SourceConnector> SourceSide<C> {
    /// Runs until the stop, or until a fault that does not pass.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let ended = self.sessions().await;
        // Said before the outlet is dropped: the deliver half asks when it sees that end.
        self.verdict.set(if ended.is_ok() { LastExit::Stopped } else { LastExit::Failed });
        ended
    }

    async fn sessions(&mut self) -> Result<(), Failure> {
        let mut backoff = Backoff::new(self.policy);
        let mut judge = Judge::new(self.takeover_timeout);
        loop {
            let begun = Instant::now();
            let ended = self.session().await;
            self.outlet.health.set_connected(Side::Source, false);
            self.metrics.source_connected.set(0.0);
            let failure = match ended {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(Ended::Loaded(feed)) => {
                    self.go_back(feed).await?;
                    continue;
                }
                Err(_late) if self.outlet.stop.is_cancelled() => return Ok(()),
                Err(failure) => judge.judge(self.mend(failure).await, begun),
            };
            if !failure.is_transient() {
                return Err(failure);
            }
            let mut reason = None;
            if failure.code == Code::SourceBusy {
                self.outlet.health.set_phase(State::Standby);
            } else if Gap::of(&failure).is_some() {
                // Each that is repaired counts.
                self.metrics.restarted(RestartReason::SourceGap);
            } else {
                reason = Some(RestartReason::SourceError);
            }
            self.outage.failed(reason, 0);
            self.outlet.health.set_waits(Side::Source, &failure.message);
            let delay = judge.delay(backoff.next_delay(begun.elapsed(), fastrand::f64()));
            tracing::warn!(code = %failure.code, error = failure.message, delay_ms = delay.as_millis(), "the source failed; trying again");
            if self.outlet.pass(tokio::time::sleep(delay)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// After a gap, where the configuration wants it: goes on where the log can, and has the rows read again of which something
    /// is missing. Returns the failure, which is transient where that was done.
    async fn mend(&mut self, failure: Failure) -> Failure {
        let Some(gap) = Gap::of(&failure) else { return failure };
        if self.on_gap == OnGap::Stop || !gap.can_be_mended() {
            self.metrics.gap(gap);
            return failure;
        }
        match self.renew(&failure).await {
            Ok(()) => {
                self.metrics.gap(gap);
                Failure { fault: Fault::Transient, ..failure }
            }
            Err(Failure { fault, message, .. }) if fault != Fault::Transient => {
                Failure { message: format!("{}; and the tables cannot be read again: {message}", failure.message), ..failure }
            }
            // Found again, and tried again.
            Err(passing) => passing,
        }
    }

    /// That the rows are to be read again is durable before the log is opened: until then each start finds the gap again.
    async fn renew(&mut self, gap: &Failure) -> Result<(), Failure> {
        let lost = self.resume();
        let Some(renewed) = self.outlet.pass(self.connector.renew(&self.known, &lost)).await else { return Ok(()) };
        let renewed = renewed.map_err(|error| Failure::of(&error))?;
        let feeds = &self.plan.feeds;
        if let Some(feed) = renewed.feeds.iter().map(|id| feeds.get(*id)).find(|feed| !feed.prefeed.is_read()) {
            let message = format!("feeds.prefeed of table {} is neither \"snapshot\" nor a query", feed.name);
            return Err(Failure { message, ..gap.clone() });
        }
        let marks: Vec<_> = renewed.feeds.iter().filter_map(|id| self.plan.forget(*id)).collect();
        let tables = marks.iter().map(|mark| &*mark.feed).collect::<Vec<_>>().join(", ");
        tracing::warn!(code = %gap.code, tables, "a gap in the log: these tables are read again after a reset (source.on_gap = \"prefeed\")");
        let progress = Progress { token: renewed.token.clone(), marks, slice: None, urgent: true };
        self.outlet.settle(progress).await;
        self.token = renewed.token;
        Ok(())
    }

    /// Has the log read again from where the rows of the feed's file began.
    async fn go_back(&mut self, feed: FeedId) -> Result<(), Failure> {
        let Self { connector, plan, token: reached, .. } = self;
        let progress = plan.join(feed, reached, |start| connector.skips(start, reached)).map_err(|error| Failure::of(&error))?;
        self.token = progress.token.clone();
        self.outlet.kept = None;
        self.outlet.settle(progress).await;
        Ok(())
    }

    /// Where a new session goes on.
    fn resume(&self) -> Resume {
        Resume { token: self.token.clone(), feeds: self.plan.states.clone(), layouts: self.plan.layouts.clone() }
    }

    async fn session(&mut self) -> Result<Ended, Failure> {
        let resume = self.resume();
        let Some(source) = self.outlet.pass(self.connector.connect(&self.known, &resume)).await else { return Ok(Ended::Stopped) };
        let source = source.map_err(|error| Failure::of(&error))?;
        self.metrics.source_connected.set(1.0);
        self.outlet.health.set_connected(Side::Source, true);
        let from = &*self.token.0;
        // What was on its way is not read again: the log goes on behind it.
        if let Some(Over { lasted, attempts, .. }) = self.outage.ended() {
            tracing::info!(outage_seconds = lasted.as_secs(), attempts, from, "the source is connected again after an outage");
        } else {
            tracing::info!(from, "the source is connected");
        }
        let Self { connector, plan, outlet, verdict, .. } = self;
        let mut stream = Stream::new(source, &resume.token, outlet);
        let Err(ended) = publish(connector, plan, &mut stream).await;
        self.token = stream.handed_over().clone();
        match ended {
            Interrupted::Stopped => {
                verdict.set(LastExit::Stopped);
                stream.close().await.map_err(|error| Failure::of(&error))?;
                Ok(Ended::Stopped)
            }
            Interrupted::Loaded(feed) => Ok(Ended::Loaded(feed)),
            Interrupted::Failed(error) => Err(Failure::of(&error)),
        }
    }
}

/// Existing rows, then live events; and existing rows again, where some changed without a word in the log.
async fn publish<C: SourceConnector>(
    connector: &mut C,
    plan: &mut Plan,
    stream: &mut Stream<'_, C::Source>,
) -> Result<Infallible, Interrupted<C::Error>> {
    let mut is_told = false;
    loop {
        plan.show_pending();
        if !plan.is_done() {
            is_told = false;
            stream.set_phase(State::Prefeed);
            let mut prefeed = stream.tended(connector.prefeed()).await??;
            plan.run(stream, &mut prefeed).await?;
        }
        stream.set_phase(State::Live);
        if !std::mem::replace(&mut is_told, true) {
            tracing::info!(tables = plan.feeds.len(), "live: what is committed is published");
        }
        stream.pump(Limit::TableChange, pending::<()>()).await?;
        plan.take_note(stream).await?;
    }
}

/// What happens when the log no longer holds what comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// The pipeline stops and names the range.
    #[default]
    Stop,
    /// The tables of which something is missing are read again, after a reset.
    Prefeed,
}

impl Gap {
    /// The gap that a failure is; `None` where it is none.
    fn of(failure: &Failure) -> Option<Self> {
        match failure.code {
            Code::SourceLogLost => Some(Self::LogLost),
            Code::SourceRewound => Some(Self::Rewound),
            Code::SourceForeign => Some(Self::Foreign),
            _ => None,
        }
    }

    /// Another database is never taken for the known one.
    const fn can_be_mended(self) -> bool {
        matches!(self, Self::LogLost | Self::Rewound)
    }
}

impl Outlet {
    /// Hands progress over without records and waits until it is durable, or until the stop.
    async fn settle(&mut self, progress: Progress) {
        let Some(Some(outgoing)) = self.pass(self.outgoing()).await else { return };
        let (seq, _) = self.send(outgoing, progress);
        // A deliver half that has ended ends this half too.
        let _durable = self.pass(self.durable(seq)).await;
    }

    /// Waits for `wait` without a source to keep alive; `None` when the stop came first.
    pub(super) async fn pass<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(wait);
        let mut turn = tokio::time::interval(TURN);
        loop {
            tokio::select! { biased;
                () = self.stop.cancelled() => return None,
                value = &mut wait => return Some(value),
                _ = turn.tick() => self.health.turned(Side::Source),
            }
        }
    }
}
