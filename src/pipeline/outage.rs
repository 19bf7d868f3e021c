//! How long one end was away, for the log, and one restart for it, however many attempts it takes.

use crate::status::metrics::{Metrics, RestartReason};
use std::time::Duration;
use tokio::time::Instant;

/// From the first failure until it is connected again.
#[derive(Debug)]
pub(super) struct Outage {
    metrics: Metrics,
    since: Option<Instant>,
    attempts: u32,
    again: u64,
    /// For which reasons it was counted.
    counted: Vec<RestartReason>,
}

/// One that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) lasted: Duration,
    /// How often it was tried in vain.
    pub(super) attempts: u32,
    /// How many records are sent again for it.
    pub(super) again: u64,
}

impl Outage {
    pub(super) const fn new(metrics: Metrics) -> Self {
        Self { metrics, since: None, attempts: 0, again: 0, counted: Vec::new() }
    }

    /// A session, or an attempt to open one, failed, for which so many records are sent again. Without a reason it is no restart:
    /// somebody else is at work.
    pub(super) fn failed(&mut self, reason: Option<RestartReason>, again: u64) {
        self.again += again;
        if self.since.is_some() {
            self.attempts += 1;
        } else {
            self.since = Some(Instant::now());
        }
        let Some(reason) = reason else { return };
        self.metrics.attempted(reason);
        if !self.counted.contains(&reason) {
            self.counted.push(reason);
            self.metrics.restarted(reason);
        }
    }

    /// It is connected; the outage that ends with that, if there was one.
    pub(super) fn ended(&mut self) -> Option<Over> {
        self.counted.clear();
        let lasted = self.since.take()?.elapsed();
        Some(Over { lasted, attempts: std::mem::take(&mut self.attempts), again: std::mem::take(&mut self.again) })
    }
}

#[cfg(test)]
mod tests {
    use super::{Outage, Over};
    use crate::status::metrics::{Metrics, RestartReason};
    use std::time::Duration;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn an_outage_lasts_from_the_first_failure_to_the_next_connection() {
        let mut outage = Outage::new(Metrics::new("shop"));
        assert_eq!(outage.ended(), None);
        for _ in 0..3 {
            outage.failed(None, 7);
            advance(Duration::from_secs(10)).await;
        }
        assert_eq!(outage.ended(), Some(Over { lasted: Duration::from_secs(30), attempts: 2, again: 21 }));
        assert_eq!(outage.ended(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_one_restart_for_each_reason() {
        let metrics = Metrics::new("shop");
        let mut outage = Outage::new(metrics.clone());
        for reason in [RestartReason::SinkError, RestartReason::SourceError, RestartReason::SinkError] {
            outage.failed(Some(reason), 0);
        }
        let restarts = metrics.restarts();
        assert_eq!((restarts["sink_error"], restarts["source_error"], metrics.attempts(RestartReason::SinkError)), (1, 1, 2));
        outage.ended();
        outage.failed(Some(RestartReason::SinkError), 0);
        assert_eq!(metrics.restarts()["sink_error"], 2);
    }
}
