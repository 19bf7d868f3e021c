//! The sink side: opens sessions with the sink and delivers batches. After a failure it starts a new session by itself.

use super::agreement;
use super::delivery::{Delivery, DeliveryError, Interrupt};
use super::failure::Failure;
use super::judge::Judge;
use super::outage::{EndedOutage, Outage, millis};
use super::restart::{Backoff, RestartPolicy};
use super::shown_wait::shown;
use crate::batch::Batch;
use crate::checkpoint::{Identity, LastExit};
use crate::fault::{Code, Fault};
use crate::sink::{Sink as _, SinkConnector};
use crate::status::metrics::{Metrics, RestartReason};
use crate::status::{Publisher, Side, WaitFor};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// The sink side. It outlives its sessions.
pub(super) struct SinkSide<K, D> {
    pub(super) connector: K,
    /// The sink's identity at the start.
    pub(super) identity: Identity,
    pub(super) delivery: D,
    pub(super) batches: mpsc::Receiver<Batch>,
    pub(super) policy: RestartPolicy,
    pub(super) takeover_timeout: Duration,
    pub(super) outage: Outage,
    pub(super) metrics: Metrics,
    pub(super) status: Publisher,
    /// Changes when a new session is requested.
    pub(super) restart: watch::Receiver<()>,
}

/// Why a session ended before all batches were confirmed.
#[derive(Debug)]
enum SessionError {
    /// The sink failed: the next session goes back to the first unconfirmed batch.
    SinkFailed(Failure),
    /// The checkpoint cannot be saved.
    StoreFailed(Failure),
    /// The shutdown deadline has passed.
    DeadlinePassed,
    /// Nothing is left that needs a session.
    Drained,
    /// A command requested the next one.
    Requested,
}

impl<K: SinkConnector, D: Delivery<K::Sink>> SinkSide<K, D> {
    /// Runs until no more batches come and everything is confirmed and saved, or until the deadline. Returns the number of unconfirmed
    /// records. `exit` is called at the end and tells how the run ended.
    pub(super) async fn run(mut self, exit: impl Fn() -> LastExit) -> Result<u64, Failure> {
        let mut backoff = Backoff::new(self.policy);
        let mut judge = Judge::new(self.takeover_timeout);
        let mut is_first = true;
        loop {
            let begun = Instant::now();
            let mut has_learnt = false;
            let ended = self.session(std::mem::take(&mut is_first), &mut has_learnt).await;
            let retries = self.metrics.sink_retries.get();
            if self.delivery.go_back() || has_learnt {
                backoff.forgive();
            }
            self.status.publish(|status| status.set_connected(Side::Sink, false));
            let failure = match ended {
                Ok(()) | Err(SessionError::DeadlinePassed | SessionError::Drained) => break,
                Err(SessionError::StoreFailed(failure)) => return Err(failure),
                Err(SessionError::Requested) => {
                    self.metrics.count_restart(RestartReason::Requested);
                    tracing::info!("the sink is restarted by a command");
                    continue;
                }
                Err(SessionError::SinkFailed(failure)) => judge.judge(failure, begun),
            };
            if !failure.is_transient() {
                self.metrics.sink_errors.inc();
                self.save_after(&failure).await;
                return Err(failure);
            }
            let records_again = self.metrics.sink_retries.get().saturating_sub(retries);
            self.outage.count_failure(Some(RestartReason::SinkError), records_again);
            if !self.wait(&failure, judge.delay(backoff.next_delay(begun.elapsed(), fastrand::f64()))).await? {
                break;
            }
        }
        let unconfirmed = self.status.read().in_flight.records();
        self.delivery.close(exit()).await?;
        Ok(unconfirmed)
    }

    /// Saves what is confirmed after a failure that is not transient. Not where another broker was found: the checkpoint's store may be in that
    /// one too.
    async fn save_after(&mut self, failure: &Failure) {
        if matches!(failure.code, Code::SinkForeign | Code::DestinationAnew) {
            return;
        }
        if let Err(other) = self.delivery.close_once(LastExit::Failed).await {
            tracing::error!(code = %other.code, error = other.message, "what is confirmed was not saved");
        }
    }

    /// Waits for the next attempt; `false` when none is needed, or the deadline came first.
    async fn wait(&mut self, failure: &Failure, delay: Duration) -> Result<bool, Failure> {
        self.metrics.sink_errors.inc();
        self.status.publish(|status| status.failed(Side::Sink, failure.shown(delay)));
        if let Some(times) = self.outage.due_line(failure.code) {
            tracing::warn!(code = %failure.code, error = failure.message, times, delay_ms = millis(delay), "the sink failed; trying again");
        }
        let over = async {
            tokio::select! { biased;
                Ok(()) = self.restart.changed() => {}
                () = tokio::time::sleep(delay) => {}
            }
        };
        match self.delivery.receive_while(over, &mut self.batches).await {
            Ok(()) => Ok(true),
            Err(Interrupt::DeadlinePassed | Interrupt::Drained) => Ok(false),
            Err(Interrupt::StoreFailed(failure)) => Err(failure),
        }
    }

    /// Runs one session. If it fails, `has_learnt` tells whether the next one should follow without a longer delay.
    async fn session(&mut self, is_first: bool, has_learnt: &mut bool) -> Result<(), SessionError> {
        let Self { connector, identity, delivery, batches, outage, status, restart, .. } = self;
        let connected = delivery.receive_while(connector.connect(), batches).await?;
        let (mut sink, found) = connected.map_err(|error| SessionError::SinkFailed(Failure::of(&error)))?;
        agreement::check_same_sink(identity, &found).map_err(|error| SessionError::SinkFailed(Failure::of(&error)))?;
        if !is_first && !shown(status, Side::Sink, WaitFor::Checkpoint, delivery.assert_ours()).await? {
            // The session is dropped, and its lock with it: the instance that holds the store may be waiting for that lock.
            let message = "the checkpoint could not be saved before the sink is used again".to_owned();
            return Err(SessionError::SinkFailed(Failure { code: Code::RecordsUnconfirmed, fault: Fault::Transient, message }));
        }
        // A restart that was requested before is made with this session.
        restart.mark_unchanged();
        status.publish(|status| status.set_connected(Side::Sink, true));
        match outage.end() {
            Some(EndedOutage { lasted, attempts, records_again, is_logged: true }) => {
                let outage_seconds = lasted.as_secs();
                tracing::info!(outage_seconds, attempts, records_again, "the sink is connected again after an outage");
            }
            Some(_) => {}
            None => tracing::info!("the sink is connected"),
        }
        // What is dropped half-way is lost with the session, and sent again in the next one.
        let delivered = tokio::select! { biased;
            Ok(()) = restart.changed() => return Err(SessionError::Requested),
            delivered = delivery.deliver(&mut sink, batches) => delivered,
        };
        let failure = match delivered {
            Ok(()) => None,
            Err(DeliveryError::Sink(error)) => Some(error),
            Err(DeliveryError::BatchLost) => Some(sink.failure()),
            Err(DeliveryError::Interrupted(interrupt)) => return Err(interrupt.into()),
        };
        if let Some(error) = failure {
            *has_learnt = sink.has_learnt();
            return Err(SessionError::SinkFailed(Failure::of(&error)));
        }
        if let Err(error) = delivery.save_while(sink.close()).await? {
            // Everything is confirmed: how the session ends no longer matters to the records.
            tracing::warn!(error = %error, "the sink's session did not end in order");
        }
        Ok(())
    }
}

impl From<Interrupt> for SessionError {
    fn from(interrupt: Interrupt) -> Self {
        match interrupt {
            Interrupt::StoreFailed(failure) => Self::StoreFailed(failure),
            Interrupt::DeadlinePassed => Self::DeadlinePassed,
            Interrupt::Drained => Self::Drained,
        }
    }
}
