//! Reports the prefeed's progress in the log and in metrics.

use super::plan::Plan;
use crate::event::{FeedId, Operation};
use crate::feed::Feeds;
use crate::pipeline::stream::{Stream, StreamInterrupt};
use crate::source::{Prefeed, Source, file};
use crate::status::Publisher;
use crate::status::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often progress is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The progress of a prefeed.
#[derive(Debug)]
pub(super) struct Report {
    feeds: Arc<Feeds>,
    metrics: Metrics,
    status: Publisher,
    begun: Instant,
    logged_at: Instant,
    rows: u64,
    expected: u64,
    /// By feed: rows so far, rows expected.
    tables: Vec<(u64, Option<u64>)>,
}

impl Report {
    pub(super) async fn begin<S, P>(plan: &Plan, stream: &mut Stream<'_, S>, prefeed: &mut P) -> Result<Self, StreamInterrupt<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let mut tables = vec![(0, None); plan.feeds.len()];
        for feed in plan.unfinished() {
            tables[feed.id.index()].1 = match file::expected_rows(feed) {
                None => stream.keep_alive_while(prefeed.expected_rows(feed.id)).await??,
                expected => expected,
            };
        }
        let expected = tables.iter().filter_map(|(_, expected)| *expected).sum();
        plan.show_pending();
        plan.status.publish(|status| {
            for (feed, (_, expected)) in status.feeds.iter_mut().flatten().zip(&tables) {
                feed.rows_expected = expected.or(feed.rows_expected);
            }
        });
        plan.metrics.prefeed_rows_expected.count(expected);
        let pending = plan.unfinished().count();
        tracing::info!(tables = pending, expected_rows = expected, "prefeed");
        let now = Instant::now();
        let (feeds, metrics, status) = (Arc::clone(&plan.feeds), plan.metrics.clone(), plan.status.clone());
        Ok(Self { feeds, metrics, status, begun: now, logged_at: now, rows: 0, expected, tables })
    }

    /// Counts rows that were read.
    pub(super) fn rows(&mut self, feed: FeedId, read: u64, done: bool) {
        self.metrics.source.add_events(Operation::Read, read);
        self.rows += read;
        self.status.note(|status| {
            if let Some(feed) = status.feeds.as_mut().and_then(|feeds| feeds.get_mut(feed.index())) {
                feed.rows += read;
            }
        });
        let (rows, expected) = &mut self.tables[feed.index()];
        *rows += read;
        let (rows, expected) = (*rows, *expected);
        let table = &self.feeds.get(feed).name;
        let left = self.seconds_left();
        self.metrics.prefeed_remaining_seconds.set(left);
        if done {
            tracing::info!(%table, rows, "table read: its rows are on their way");
        } else if LOG_EVERY <= self.logged_at.elapsed() {
            self.logged_at = Instant::now();
            let left = left.map(f64::round);
            tracing::info!(%table, rows, table_expected = expected, rows_in_all = self.rows, expected = self.expected, seconds_left = left, "prefeed");
        }
    }

    /// Estimated from the rate so far; `None` before the first row.
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
