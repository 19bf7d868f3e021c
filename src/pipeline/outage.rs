//! Measures an outage of the source, the sink or the checkpoint store: one restart, however many attempts it takes, and few log lines.

use crate::fault::Code;
use crate::status::Storm;
use crate::status::metrics::{Metrics, RestartReason};
use std::time::Duration;
use tokio::time::Instant;

/// An outage lasts from the first failure until the next connection.
#[derive(Debug)]
pub(super) struct Outage {
    metrics: Metrics,
    since: Option<Instant>,
    attempts: u32,
    records_again: u64,
    /// The reasons for which this outage was counted as a restart.
    counted: Vec<RestartReason>,
    storm: Storm,
    /// Whether a failure of this outage was logged.
    is_logged: bool,
}

/// An outage that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndedOutage {
    pub(super) lasted: Duration,
    /// Failed attempts after the first failure.
    pub(super) attempts: u32,
    /// How many records are sent again because of it.
    pub(super) records_again: u64,
    /// Whether the log tells of it.
    pub(super) is_logged: bool,
}

impl Outage {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, since: None, attempts: 0, records_again: 0, counted: Vec::new(), storm: Storm::default(), is_logged: false }
    }

    /// Counts a failed session or attempt, because of which `records_again` records are sent again. Without a reason it is not a restart:
    /// another instance is at work.
    pub(super) fn count_failure(&mut self, reason: Option<RestartReason>, records_again: u64) {
        self.records_again += records_again;
        if self.since.is_some() {
            self.attempts += 1;
        } else {
            self.since = Some(Instant::now());
        }
        let Some(reason) = reason else { return };
        self.metrics.count_attempt(reason);
        if !self.counted.contains(&reason) {
            self.counted.push(reason);
            self.metrics.count_restart(reason);
        }
    }

    /// As [`Storm::due_line`], over several outages.
    pub(super) fn due_line(&mut self, code: Code) -> Option<u64> {
        let times = self.storm.due_line(code);
        self.is_logged |= times.is_some();
        times
    }

    /// It is connected again. Returns the outage, if there was one.
    pub(super) fn end(&mut self) -> Option<EndedOutage> {
        self.counted.clear();
        let lasted = self.since.take()?.elapsed();
        Some(EndedOutage {
            lasted,
            attempts: std::mem::take(&mut self.attempts),
            records_again: std::mem::take(&mut self.records_again),
            is_logged: std::mem::take(&mut self.is_logged),
        })
    }
}

/// Milliseconds, as a number for the log.
pub(super) fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{EndedOutage, Outage};
    use crate::fault::Code;
    use crate::status::metrics::{Metrics, RestartReason};
    use std::time::Duration;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn an_outage_lasts_from_the_first_failure_to_the_next_connection() {
        let mut outage = Outage::new(Metrics::new("shop"));
        assert_eq!(outage.end(), None);
        for _ in 0..3 {
            outage.count_failure(None, 7);
            advance(Duration::from_secs(10)).await;
        }
        assert_eq!(outage.end(), Some(EndedOutage { lasted: Duration::from_secs(30), attempts: 2, records_again: 21, is_logged: false }));
        assert_eq!(outage.end(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_tells_of_the_end_of_an_outage_only_if_it_told_of_the_outage() {
        let mut outage = Outage::new(Metrics::new("shop"));
        for (code, is_logged) in [(Code::SinkUnreachable, true), (Code::SinkUnreachable, false), (Code::SinkTls, true)] {
            outage.count_failure(None, 0);
            assert_eq!(outage.due_line(code).is_some(), is_logged);
            assert_eq!(outage.end().unwrap().is_logged, is_logged);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_one_restart_for_each_reason() {
        let metrics = Metrics::new("shop");
        let mut outage = Outage::new(metrics.clone());
        for reason in [RestartReason::SinkError, RestartReason::SourceError, RestartReason::SinkError] {
            outage.count_failure(Some(reason), 0);
        }
        let restarts = metrics.restarts();
        assert_eq!((restarts["sink_error"], restarts["source_error"], metrics.attempts(RestartReason::SinkError)), (1, 1, 2));
        outage.end();
        outage.count_failure(Some(RestartReason::SinkError), 0);
        assert_eq!(metrics.restarts()["sink_error"], 2);
    }
}
