//! SCAN-CUT: existing rows and live events on one line, so that no key ever goes backwards.
//!
//! A slice holds the log, opens a snapshot whose exact place in the log (the cut) is known, carries the log to that place,
//! and then sends rows as the snapshot shows them. For each key what is sent is then: events up to the cut, the row at the cut,
//! events after it, up to the next cut, and so on. A row that is deleted between two slices has its delete between them; a row
//! that is read again is newer. No key is compared outside the database, and nothing is written to it.

use crate::change::FeedId;
use crate::checkpoint::{FeedState, Progress};
use crate::feed::Feeds;
use crate::metrics::Metrics;
use crate::pipeline::feed::{Interrupted, Limit, Stream};
use crate::source::{Cut, Prefeed, Slice, Source};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a snapshot may take to open before live events go on for a while.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long live events go on after that.
const OPEN_PAUSE: Duration = Duration::from_secs(15);
/// The longest slice once any feed is live: so long may live events wait.
const SLICE_BESIDE_LIVE: Duration = Duration::from_secs(15);
/// How many tables one slice may lock.
const SLICE_TABLES_MAX: usize = 256;
/// The next row's number from which on a slice ends: its nine digits are almost used up.
const SLICE_ROWS_MAX: u32 = 999_000_000;

/// What is left of the prefeed; outlives the sessions of the feed half.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) feeds: Arc<Feeds>,
    /// By [`FeedId`].
    pub(super) states: Vec<FeedState>,
    /// Number of the newest slice.
    pub(super) slice: u32,
    /// The longest slice while nothing is live yet.
    pub(super) slice_max: Duration,
    pub(super) metrics: Metrics,
}

impl Plan {
    fn is_finished(&self, id: FeedId) -> bool {
        matches!(self.states[id.index()], FeedState::Live { .. })
    }

    /// Whether every row is sent.
    pub(super) fn is_done(&self) -> bool {
        self.feeds.iter().all(|feed| self.is_finished(feed.id))
    }

    /// The unfinished feeds of the lowest stage that has any, as many as one slice takes.
    fn next_feeds(&self) -> Vec<FeedId> {
        let unfinished = self.feeds.iter().filter(|feed| !self.is_finished(feed.id));
        let Some(stage) = unfinished.clone().map(|feed| feed.stage).min() else { return Vec::new() };
        unfinished.filter(|feed| feed.stage == stage).map(|feed| feed.id).take(SLICE_TABLES_MAX).collect()
    }

    /// Sends every row that is still to be sent, with live events between the slices.
    pub(super) async fn run<S, P>(&mut self, stream: &mut Stream<'_, S>, prefeed: &mut P) -> Result<(), Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        self.expect_rows(stream, prefeed).await?;
        while !self.is_done() {
            let feeds = self.next_feeds();
            self.show_pending();
            self.slice(&feeds, stream, prefeed).await?;
        }
        self.show_pending();
        tracing::info!("prefeed complete: every existing row is on its way");
        Ok(())
    }

    async fn expect_rows<S, P>(&self, stream: &mut Stream<'_, S>, prefeed: &mut P) -> Result<(), Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let mut expected = 0;
        for feed in self.feeds.iter().filter(|feed| !self.is_finished(feed.id)) {
            expected += stream.tended(prefeed.expected_rows(feed.id)).await??.unwrap_or(0);
        }
        self.metrics.prefeed_rows_expected.set(i64::try_from(expected).unwrap_or(i64::MAX));
        tracing::info!(expected_rows = expected, "prefeed");
        Ok(())
    }

    fn show_pending(&self) {
        let pending = self.feeds.iter().filter(|feed| !self.is_finished(feed.id)).count();
        self.metrics.prefeed_tables_pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
    }

    async fn slice<S, P>(&mut self, feeds: &[FeedId], stream: &mut Stream<'_, S>, prefeed: &mut P) -> Result<(), Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        // The log is held from here on: nothing pumps it until the cut is known.
        let Ok(opened) = stream.tended(tokio::time::timeout(OPEN_TIMEOUT, prefeed.open(feeds))).await? else {
            tracing::warn!(
                timeout_seconds = OPEN_TIMEOUT.as_secs(),
                "no snapshot could be opened, a transaction may be holding it up; live events go on, then it is tried again"
            );
            stream.tended(prefeed.close()).await??;
            return stream.pump(Limit::Moment(Instant::now() + OPEN_PAUSE)).await;
        };
        let cut = opened?;
        stream.pump(Limit::Cut(&cut.token)).await?;
        let slice = self.begin(feeds, &cut, stream).await?;
        let scanned = self.scan(feeds, slice, stream, prefeed).await;
        // A snapshot that is kept would hold up the source: it is released whatever happened.
        let closed = stream.tended(prefeed.close()).await?;
        let newest = scanned?;
        closed?;
        // The next stage begins when this one is delivered whole.
        if self.next_feeds().first() == feeds.first() { Ok(()) } else { stream.durable(newest).await }
    }

    /// Makes the slice's number, and the cut as the start of the feeds that begin here, durable before any row of it is sent:
    /// a replay must number its rows anew and begin the feeds at the same place.
    async fn begin<S: Source>(&mut self, feeds: &[FeedId], cut: &Cut, stream: &mut Stream<'_, S>) -> Result<Slice, Interrupted<S::Error>> {
        self.slice += 1;
        let mut marks = Vec::new();
        for id in feeds {
            let state = &mut self.states[id.index()];
            if *state == FeedState::Pending {
                *state = FeedState::Reading { start: cut.token.clone(), after: None };
                stream.start(*id, &cut.token);
                marks.push((self.feeds.get(*id).name.clone(), state.clone()));
            }
        }
        let out = stream.writer().await?;
        let progress = Progress { token: cut.token.clone(), marks, slice: Some(self.slice), urgent: true };
        let seq = stream.hand_over(out, progress).await?;
        stream.durable(seq).await?;
        Ok(Slice { number: self.slice, next_row: 0 })
    }

    /// Sends rows until all are sent, the slice is over, or somebody waits for what the snapshot holds.
    async fn scan<S, P>(
        &mut self,
        feeds: &[FeedId],
        mut slice: Slice,
        stream: &mut Stream<'_, S>,
        prefeed: &mut P,
    ) -> Result<crate::batch::Seq, Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let token = stream.handed_over().clone();
        let any_live = self.feeds.iter().any(|feed| self.is_finished(feed.id));
        let longest = if any_live { self.slice_max.min(SLICE_BESIDE_LIVE) } else { self.slice_max }.min(P::SLICE_MAX);
        let end = Instant::now() + longest;
        let mut newest = stream.newest();
        for id in feeds {
            while let FeedState::Reading { start, after } = &self.states[id.index()] {
                let mut out = stream.writer().await?;
                let scanned = stream.tended(prefeed.scan(*id, after.as_ref(), &mut slice, &mut out)).await??;
                let state = if scanned.done {
                    FeedState::Live { start: start.clone() }
                } else {
                    FeedState::Reading { start: start.clone(), after: scanned.after.or_else(|| after.clone()) }
                };
                let marks = vec![(self.feeds.get(*id).name.clone(), state.clone())];
                let progress = Progress { token: token.clone(), marks, slice: None, urgent: false };
                newest = stream.hand_over(out, progress).await?;
                self.states[id.index()] = state;
                let over = end <= Instant::now() || SLICE_ROWS_MAX <= slice.next_row;
                if over || stream.tended(prefeed.is_waited_for()).await?? {
                    return Ok(newest);
                }
            }
        }
        Ok(newest)
    }
}
