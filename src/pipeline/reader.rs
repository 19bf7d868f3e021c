//! The feed half and what outlives its sessions with the source.

use crate::checkpoint::{Identity, LastExit};
use crate::fault::{Code, Exit};
use crate::metrics::{Metrics, RestartReason, State};
use crate::pipeline::failure::Failure;
use crate::pipeline::feed::{Interrupted, Limit, Outlet, Stream};
use crate::pipeline::health::Half;
use crate::pipeline::prefeed::Plan;
use crate::restart::{Backoff, RestartPolicy};
use crate::source::{Resume, SourceConnector};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often a half shows that it turns while it waits for its next attempt.
const TURN: Duration = Duration::from_secs(1);

/// The feed half: sessions with the source, one after the other.
pub(super) struct Reader<C> {
    pub(super) connector: C,
    /// Who the source was when the checkpoint was made.
    pub(super) known: Identity,
    /// The newest place on its way; a new session goes on there.
    pub(super) token: crate::checkpoint::ResumeToken,
    pub(super) plan: Plan,
    pub(super) outlet: Outlet,
    pub(super) policy: RestartPolicy,
    pub(super) takeover_timeout: Duration,
    pub(super) metrics: Metrics,
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

impl<C: SourceConnector> Reader<C> {
    /// Runs until the stop, or until a fault that does not pass.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let ended = self.sessions().await;
        // Said before the outlet is dropped: the deliver half asks when it sees that end.
        self.verdict.set(if ended.is_ok() { LastExit::Stopped } else { LastExit::Failed });
        ended
    }

    async fn sessions(&mut self) -> Result<(), Failure> {
        let mut backoff = Backoff::new(self.policy);
        let mut takeover = Takeover::new(self.takeover_timeout);
        loop {
            let begun = Instant::now();
            let ended = self.session().await;
            self.outlet.health.set_connected(Half::Feed, false);
            self.metrics.source_connected.set(0);
            let failure = match ended {
                Ok(()) => return Ok(()),
                Err(_late) if self.outlet.stop.is_cancelled() => return Ok(()),
                Err(failure) => takeover.judge(failure, begun),
            };
            if !failure.is_transient() {
                return Err(failure);
            }
            if failure.code == Code::SourceBusy {
                self.outlet.health.set_phase(State::Standby);
            } else {
                self.metrics.restarted(RestartReason::SourceError);
            }
            let delay = backoff.next_delay(begun.elapsed(), fastrand::f64());
            tracing::warn!(code = %failure.code, error = failure.message, delay_ms = delay.as_millis(), "the source failed; trying again");
            if self.outlet.pass(tokio::time::sleep(delay)).await.is_none() {
                return Ok(());
            }
        }
    }

    async fn session(&mut self) -> Result<(), Failure> {
        let resume = Resume { token: self.token.clone(), feeds: self.plan.states.clone(), layouts: self.plan.layouts.clone() };
        let Some(source) = self.outlet.pass(self.connector.connect(&self.known, &resume)).await else { return Ok(()) };
        let source = source.map_err(|error| Failure::of(&error))?;
        self.metrics.source_connected.set(1);
        self.outlet.health.set_connected(Half::Feed, true);
        let Self { connector, plan, outlet, verdict, .. } = self;
        let mut stream = Stream::new(source, outlet);
        let Err(ended) = publish(connector, plan, &mut stream).await;
        self.token = stream.handed_over().clone();
        match ended {
            Interrupted::Stopped => {
                verdict.set(LastExit::Stopped);
                stream.close().await.map_err(|error| Failure::of(&error))
            }
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
    loop {
        if !plan.is_done() {
            stream.set_phase(State::Prefeed);
            let mut prefeed = stream.tended(connector.prefeed()).await??;
            plan.run(stream, &mut prefeed).await?;
        }
        stream.set_phase(State::Live);
        stream.pump(Limit::Sighting).await?;
        plan.take_note(stream).await?;
    }
}

/// How long whoever else holds the source is waited for.
pub(super) struct Takeover {
    timeout: Duration,
    since: Option<Instant>,
}

impl Takeover {
    pub(super) const fn new(timeout: Duration) -> Self {
        Self { timeout, since: None }
    }

    /// A holder that stays beyond the timeout is no longer a transient fault.
    pub(super) fn judge(&mut self, failure: Failure, begun: Instant) -> Failure {
        if failure.code.exit() != Exit::Held || !failure.is_transient() {
            self.since = None;
            return failure;
        }
        let since = *self.since.get_or_insert(begun);
        if since.elapsed() < self.timeout {
            return failure;
        }
        let message = format!("{} (waited {} s: `pipeline.takeover_timeout`)", failure.message, self.timeout.as_secs());
        Failure { fault: crate::fault::Fault::Fatal, message, ..failure }
    }
}

impl Outlet {
    /// Waits for `wait` without a source to keep alive; `None` when the stop came first.
    pub(super) async fn pass<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(wait);
        let mut turn = tokio::time::interval(TURN);
        loop {
            tokio::select! { biased;
                () = self.stop.cancelled() => return None,
                value = &mut wait => return Some(value),
                _ = turn.tick() => self.health.turned(Half::Feed),
            }
        }
    }
}
