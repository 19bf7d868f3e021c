//! The source side: reads the source and hands batches over, one session after the other. After a failure it starts a new session by itself.

use super::batch_sender::BatchSender;
use super::failure::Failure;
use super::gap::{self, OnGap};
use super::judge::Judge;
use super::outage::{EndedOutage, Outage, millis};
use super::prefeed::Plan;
use super::restart::{Backoff, RestartPolicy};
use super::stream::{Limit, Stream, StreamInterrupt};
use crate::checkpoint::{Identity, LastExit, Progress, ResumeToken};
use crate::event::FeedId;
use crate::fault::Fault;
use crate::format::Encoders;
use crate::source::{Emission, Resume, SourceConnector};
use crate::status::metrics::{Metrics, RestartReason, State};
use crate::status::{Side, WaitFor};
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The source side. It outlives its sessions.
pub(super) struct SourceSide<C> {
    pub(super) connector: C,
    /// The source's identity when the checkpoint was made.
    pub(super) identity: Identity,
    /// The newest position handed over: the next session goes on there.
    pub(super) token: ResumeToken,
    pub(super) plan: Plan,
    pub(super) encoders: Encoders,
    pub(super) sender: BatchSender,
    pub(super) policy: RestartPolicy,
    pub(super) takeover_timeout: Duration,
    pub(super) on_gap: OnGap,
    pub(super) metrics: Metrics,
    pub(super) outage: Outage,
    pub(super) exit: SharedExit,
}

/// How the run is ending, for the last checkpoint. It is `Running` until the source side has ended in order, so that the next start takes a panic
/// there for the crash that it was.
#[derive(Clone, Debug)]
pub(super) struct SharedExit(Arc<Mutex<LastExit>>);

impl Default for SharedExit {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LastExit::Running)))
    }
}

impl SharedExit {
    pub(super) fn get(&self) -> LastExit {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, exit: LastExit) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = exit;
    }
}

/// How a session ended without a failure.
enum SessionEnd {
    /// The pipeline is stopping, or the sink side has ended.
    Stopped,
    /// All rows of the feed's file are sent.
    FileSent(FeedId),
    /// A command requested the next one.
    Requested,
}

impl<C: SourceConnector> SourceSide<C> {
    /// Runs until the stop, or until a failure that is not transient.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let ended = self.sessions().await;
        // Before the channel is closed: the sink side reads it when it sees that.
        self.exit.set(if ended.is_ok() { LastExit::Stopped } else { LastExit::Failed });
        ended
    }

    async fn sessions(&mut self) -> Result<(), Failure> {
        let mut backoff = Backoff::new(self.policy);
        let mut judge = Judge::new(self.takeover_timeout);
        loop {
            let begun = Instant::now();
            let ended = self.session().await;
            self.sender.status.publish(|status| status.set_connected(Side::Source, false));
            let failure = match ended {
                Ok(SessionEnd::Stopped) => return Ok(()),
                Ok(SessionEnd::FileSent(feed)) => {
                    self.go_back(feed).await?;
                    continue;
                }
                Ok(SessionEnd::Requested) => {
                    self.metrics.count_restart(RestartReason::Requested);
                    tracing::info!("the source is restarted by a command");
                    continue;
                }
                Err(_late) if self.sender.stop.is_cancelled() => return Ok(()),
                Err(failure) => judge.judge(self.repair_gap(failure).await, begun),
            };
            if !failure.is_transient() {
                return Err(failure);
            }
            let waits_for = failure.waits_for();
            if waits_for == Some(WaitFor::Instance) {
                self.sender.status.publish(|status| status.set_phase(State::Standby));
            }
            let is_gap = gap::reason_of(&failure).is_some();
            if is_gap {
                // Each repaired gap counts.
                self.metrics.count_restart(RestartReason::SourceGap);
            }
            let reason = (waits_for.is_none() && !is_gap).then_some(RestartReason::SourceError);
            self.outage.count_failure(reason, 0);
            let delay = judge.delay(backoff.next_delay(begun.elapsed(), fastrand::f64()));
            self.sender.status.publish(|status| {
                status.failed(Side::Source, failure.shown(delay));
                status.set_waiting(Side::Source, waits_for.map(|what| (what, Some(failure.message.clone()))));
            });
            if let Some(times) = self.outage.due_line(failure.code) {
                tracing::warn!(code = %failure.code, error = failure.message, times, delay_ms = millis(delay), "the source failed; trying again");
            }
            if self.sender.delay(delay).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Repairs a gap, if configured: goes on where the log can, and marks the tables that miss changes to be read again. Returns the failure, which
    /// is transient if the gap was repaired.
    async fn repair_gap(&mut self, failure: Failure) -> Failure {
        let Some(reason) = gap::reason_of(&failure) else { return failure };
        if self.on_gap == OnGap::Stop || !gap::can_be_repaired(reason) {
            self.metrics.count_gap(reason);
            return failure;
        }
        match self.renew(&failure).await {
            Ok(()) => {
                self.metrics.count_gap(reason);
                Failure { fault: Fault::Transient, ..failure }
            }
            Err(Failure { fault, message, .. }) if fault != Fault::Transient => {
                Failure { message: format!("{}; and the tables cannot be read again: {message}", failure.message), ..failure }
            }
            // The next session finds the gap again, and its repair is tried again.
            Err(transient) => transient,
        }
    }

    /// Makes it durable that tables are to be read again, before the log is opened: until then each start finds the gap again.
    async fn renew(&mut self, gap: &Failure) -> Result<(), Failure> {
        let lost = self.resume();
        let Some(renewed) = self.sender.wait_unless_stopped(self.connector.renew(&self.identity, &lost)).await else { return Ok(()) };
        let renewed = renewed.map_err(|error| Failure::of(&error))?;
        let feeds = &self.plan.feeds;
        if let Some(feed) = renewed.feeds.iter().map(|id| feeds.get(*id)).find(|feed| !feed.prefeed.is_read()) {
            let message = format!("feeds.prefeed of table {} is neither \"snapshot\" nor a query", feed.name);
            return Err(Failure { message, ..gap.clone() });
        }
        let marks: Vec<_> = renewed.feeds.iter().filter_map(|id| self.plan.reread_after_gap(*id)).collect();
        let tables = marks.iter().map(|mark| &*mark.feed).collect::<Vec<_>>().join(", ");
        tracing::warn!(code = %gap.code, tables, "a gap in the log: these tables are read again after a reset (source.on_gap = \"prefeed\")");
        let progress = Progress { token: renewed.token.clone(), marks, slice: None, urgent: true };
        self.sender.send_progress(progress).await;
        self.token = renewed.token;
        Ok(())
    }

    /// Goes back in the log to where the feed's file was begun.
    async fn go_back(&mut self, feed: FeedId) -> Result<(), Failure> {
        let Self { connector, plan, token: reached, .. } = self;
        let progress = plan.finish_file(feed, reached, |start| connector.skips(start, reached)).map_err(|error| Failure::of(&error))?;
        self.token = progress.token.clone();
        self.sender.keep_log_from = None;
        self.sender.send_progress(progress).await;
        Ok(())
    }

    /// Where the next session goes on.
    fn resume(&self) -> Resume {
        Resume { token: self.token.clone(), feeds: self.plan.states.clone(), layouts: self.plan.layouts.clone() }
    }

    async fn session(&mut self) -> Result<SessionEnd, Failure> {
        let resume = self.resume();
        let Some(source) = self.sender.wait_unless_stopped(self.connector.connect(&self.identity, &resume)).await else {
            return Ok(SessionEnd::Stopped);
        };
        let source = source.map_err(|error| Failure::of(&error))?;
        // A restart that was requested before is made with this session.
        self.sender.restart.mark_unchanged();
        self.sender.status.publish(|status| {
            status.set_connected(Side::Source, true);
            status.set_waiting(Side::Source, None);
        });
        let from = &*self.token.0;
        // What was handed over before is not read again.
        match self.outage.end() {
            Some(EndedOutage { lasted, attempts, is_logged: true, .. }) => {
                tracing::info!(outage_seconds = lasted.as_secs(), attempts, from, "the source is connected again after an outage");
            }
            Some(_) => {}
            None => tracing::info!(from, "the source is connected"),
        }
        let Self { connector, encoders, metrics, plan, sender, exit, .. } = self;
        let emission = Emission::new(encoders.clone(), Arc::clone(&plan.feeds), &resume.feeds, metrics.source.clone());
        let emission = emission.map_err(|error| Failure::of(&error))?;
        let mut stream = Stream::new(source, emission, &resume.token, sender);
        let Err(ended) = publish(connector, plan, &mut stream).await;
        self.token = stream.handed_over().clone();
        match ended {
            StreamInterrupt::Stopped => {
                exit.set(LastExit::Stopped);
                stream.close().await.map_err(|error| Failure::of(&error))?;
                Ok(SessionEnd::Stopped)
            }
            StreamInterrupt::FileSent(feed) => Ok(SessionEnd::FileSent(feed)),
            StreamInterrupt::Requested => Ok(SessionEnd::Requested),
            StreamInterrupt::Failed(error) => Err(Failure::of(&error)),
            StreamInterrupt::Failure(failure) => Err(failure),
        }
    }
}

/// Publishes existing rows, then live events. When a table's rows have changed and the log does not show it, existing rows again.
async fn publish<C: SourceConnector>(
    connector: &mut C,
    plan: &mut Plan,
    stream: &mut Stream<'_, C::Source>,
) -> Result<Infallible, StreamInterrupt<C::Error>> {
    let mut is_logged = false;
    loop {
        plan.show_pending();
        if !plan.is_done() {
            is_logged = false;
            stream.set_phase(State::Prefeed);
            let mut prefeed = stream.keep_alive_while(connector.prefeed()).await??;
            plan.run(stream, &mut prefeed).await?;
        }
        stream.set_phase(State::Live);
        if !std::mem::replace(&mut is_logged, true) {
            tracing::info!(tables = plan.feeds.len(), "live: what is committed is published");
        }
        stream.pump(Limit::TableChange, pending::<()>()).await?;
        plan.note_table_changes(stream).await?;
    }
}
