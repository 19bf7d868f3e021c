//! Tells of a broker that confirms nothing, and what its client last complained of.

use crate::pipeline::health::Health;
use crate::status::metrics::SinkMetrics;
use std::time::Duration;
use tokio::time::Instant;

/// After how long it is told, and how often.
const TOLD_AFTER: Duration = Duration::from_secs(15);
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// Whether it was told, and when.
#[derive(Debug, Default)]
pub(super) struct Stall {
    told_at: Option<Instant>,
}

impl Stall {
    /// Looks, and tells where it is time.
    pub(super) fn look(&mut self, health: &Health, metrics: &SinkMetrics) {
        let now = Instant::now();
        // A session that ended is told of by itself.
        let Some(still) = health.still(now) else {
            self.told_at = None;
            return;
        };
        if still < TOLD_AFTER {
            if self.told_at.take().is_some() {
                tracing::info!("the broker confirms events again");
            }
            return;
        }
        if self.told_at.is_none_or(|at| TOLD_EVERY <= now.saturating_duration_since(at)) {
            self.told_at = Some(now);
            let complaint = metrics.complaint().unwrap_or_else(|| "nothing".to_owned());
            tracing::warn!(seconds = still.as_secs(), client_says = complaint, "the broker has events and confirms none; they wait");
        }
    }
}
