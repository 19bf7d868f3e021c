//! How fast the prefeed goes: what is told of it, and what it is held to.

use super::Plan;
use crate::event::FeedId;
use crate::feed::Feeds;
use crate::pipeline::stream::{Interrupted, Stream};
use crate::source::{Prefeed, Scanned, Source};
use crate::status::metrics::Metrics;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often the log says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Tells how far the prefeed is, in the log and in metrics.
#[derive(Debug)]
pub(super) struct Report {
    feeds: Arc<Feeds>,
    metrics: Metrics,
    begun: Instant,
    told_at: Instant,
    rows: u64,
    expected: u64,
    /// By feed: rows so far, rows expected.
    tables: Vec<(u64, Option<u64>)>,
}

impl Report {
    pub(super) async fn begin<S, P>(plan: &Plan, stream: &mut Stream<'_, S>, prefeed: &mut P) -> Result<Self, Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let mut tables = vec![(0, None); plan.feeds.len()];
        for feed in plan.unfinished() {
            tables[feed.id.index()].1 = stream.tended(prefeed.expected_rows(feed.id)).await??;
        }
        let expected = tables.iter().filter_map(|(_, expected)| *expected).sum();
        plan.metrics.prefeed_rows_expected.count(expected);
        let pending = plan.unfinished().count();
        tracing::info!(tables = pending, expected_rows = expected, "prefeed");
        let now = Instant::now();
        Ok(Self { feeds: Arc::clone(&plan.feeds), metrics: plan.metrics.clone(), begun: now, told_at: now, rows: 0, expected, tables })
    }

    /// Counts what was read.
    pub(super) fn rows(&mut self, feed: FeedId, scanned: &Scanned) {
        self.rows += scanned.rows;
        let (rows, expected) = &mut self.tables[feed.index()];
        *rows += scanned.rows;
        let (rows, expected) = (*rows, *expected);
        let table = &self.feeds.get(feed).name;
        let left = self.seconds_left();
        self.metrics.prefeed_remaining_seconds.set(left);
        if scanned.done {
            tracing::info!(%table, rows, "table read: its rows are on their way");
        } else if TELL_EVERY <= self.told_at.elapsed() {
            self.told_at = Instant::now();
            let left = left.map(f64::round);
            tracing::info!(%table, rows, table_expected = expected, rows_in_all = self.rows, expected = self.expected, seconds_left = left, "prefeed");
        }
    }

    /// At the rate so far; `None` where nothing is known.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn seconds_left(&self) -> Option<f64> {
        let left = self.expected.saturating_sub(self.rows) as f64;
        (0 < self.rows).then(|| left * self.begun.elapsed().as_secs_f64() / self.rows as f64)
    }

    pub(super) fn complete(&self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        tracing::info!(rows = self.rows, seconds, "prefeed complete: every existing row is on its way");
    }
}

/// Holds the prefeed to a rate.
#[derive(Clone, Debug)]
pub(in crate::pipeline) struct RateLimit {
    bytes_per_second: Option<NonZeroU64>,
    /// Before it nothing more is read.
    next: Instant,
}

impl RateLimit {
    /// At most this many bytes of events a second.
    pub(in crate::pipeline) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { bytes_per_second, next: Instant::now() }
    }

    /// Counts bytes that were read.
    pub(super) fn count(&mut self, bytes: usize) {
        if let Some(rate) = self.bytes_per_second {
            // Time that passed unused is not saved up.
            let nanoseconds = (bytes as u64).saturating_mul(1_000_000_000) / rate;
            self.next = self.next.max(Instant::now()) + Duration::from_nanos(nanoseconds);
        }
    }

    /// How long until more may be read.
    pub(super) fn pause(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::RateLimit;
    use std::num::NonZeroU64;
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept() {
        let begun = Instant::now();
        let mut rate_limit = RateLimit::new(NonZeroU64::new(1000));
        for _ in 0..10 {
            rate_limit.count(500);
            tokio::time::sleep(rate_limit.pause()).await;
        }
        assert_eq!(begun.elapsed().as_millis(), 5000 + 1 - 1);
        let mut free = RateLimit::new(None);
        free.count(usize::MAX);
        assert_eq!(free.pause(), Duration::ZERO);
        assert!(begun.elapsed() < Duration::from_millis(5100));
    }
}
