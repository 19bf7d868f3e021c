//! Judges attempts to save the checkpoint: whether a failed one is repeated, and when.

use crate::checkpoint::CheckpointStore;
use crate::pipeline::failure::Failure;
use crate::pipeline::judge::Judge;
use crate::pipeline::outage::{Outage, millis};
use crate::pipeline::restart::Backoff;
use crate::pipeline::settings::Settings;
use crate::status::Publisher;
use crate::status::metrics::{Metrics, RestartReason};
use std::time::Duration;
use tokio::time::Instant;

/// The attempts to save the checkpoint, and the outage of its store.
#[derive(Debug)]
pub(super) struct SaveAttempts {
    backoff: Backoff,
    judge: Judge,
    outage: Outage,
    metrics: Metrics,
    status: Publisher,
}

impl SaveAttempts {
    pub(super) fn new(settings: &Settings, metrics: Metrics, status: Publisher) -> Self {
        Self {
            backoff: Backoff::new(settings.restart),
            judge: Judge::new(settings.takeover_timeout),
            outage: Outage::new(metrics.clone()),
            metrics,
            status,
        }
    }

    /// Notes that an attempt has succeeded that began at `begun`.
    pub(super) fn passed(&mut self, begun: Instant) {
        self.judge.passed();
        let _ended = self.outage.end();
        self.metrics.checkpoint_commits.inc();
        self.metrics.checkpoint_saved();
        self.metrics.checkpoint_commit_duration_seconds.observe(begun.elapsed().as_secs_f64());
    }

    /// Notes that an attempt has failed that began at `begun`. Returns the delay before the next one.
    ///
    /// # Errors
    /// The failure, if trying again cannot help.
    pub(super) fn failed<S: CheckpointStore>(&mut self, error: &S::Error, begun: Instant) -> Result<Duration, Failure> {
        let failure = self.judge.judge(Failure::of(error), begun);
        if !failure.is_transient() {
            return Err(failure);
        }
        let delay = self.judge.delay(self.backoff.next_delay(begun.elapsed(), fastrand::f64()));
        self.status.publish(|status| status.checkpoint_error = Some(failure.shown(delay)));
        self.outage.count_failure(Some(RestartReason::CheckpointError), 0);
        if let Some(times) = self.outage.due_line(failure.code) {
            let delay_ms = millis(delay);
            tracing::warn!(code = %failure.code, error = failure.message, times, delay_ms, "the checkpoint was not saved; trying again");
        }
        Ok(delay)
    }
}
