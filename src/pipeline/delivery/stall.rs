//! Logs when the broker confirms nothing for a while, with the last error of its client.

use crate::status::Status;
use crate::status::metrics::SinkMetrics;
use std::time::Duration;
use tokio::time::Instant;

/// After how long it is logged, and how often.
const LOG_AFTER: Duration = Duration::from_secs(15);
const LOG_EVERY: Duration = Duration::from_mins(1);

/// When the stall was last logged.
#[derive(Debug, Default)]
pub(super) struct StallReport {
    logged_at: Option<Instant>,
}

impl StallReport {
    /// Logs a stall or its end, if it is time.
    pub(super) fn check(&mut self, status: &Status, metrics: &SinkMetrics) {
        let now = Instant::now();
        // The end of a session is logged elsewhere.
        let Some(unconfirmed_for) = status.unconfirmed_for(now) else {
            self.logged_at = None;
            return;
        };
        if unconfirmed_for < LOG_AFTER {
            if self.logged_at.take().is_some() {
                tracing::info!("the broker confirms events again");
            }
            return;
        }
        if self.logged_at.is_none_or(|at| LOG_EVERY <= now.saturating_duration_since(at)) {
            self.logged_at = Some(now);
            let complaint = metrics.complaint().unwrap_or_else(|| "nothing".to_owned());
            tracing::warn!(
                seconds = unconfirmed_for.as_secs(),
                client_says = complaint,
                "the broker has events and confirms none; they wait"
            );
        }
    }
}
