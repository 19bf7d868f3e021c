//! SCAN-CUT: existing rows and live events on one line, so that no key ever goes backwards.
//!
//! A slice holds the log, opens a snapshot whose exact place in the log (the cut) is known, reads rows as the snapshot shows them, carries the
//! log to that place, and then sends the rows. For each key what is sent is then: events up to the cut, the row at the cut, events after it, up
//! to the next cut, and so on. A row that is deleted between two slices has its delete between them; a row that is read again is newer. No key
//! is compared outside the database, and nothing is written to it.

use crate::batch::{BatchWriter, Seq};
use crate::checkpoint::{FeedState, Layout, Mark, Progress};
use crate::event::FeedId;
use crate::feed::{Feed, Feeds};
use crate::pipeline::held::INSTANT;
use crate::pipeline::stream::{Interrupted, Limit, Stream};
use crate::source::{Prefeed, Source, TableChange, ToRead};
use crate::status::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

mod file;
mod progress;
mod slice;

pub(super) use progress::RateLimit;
use progress::Report;
use slice::Sliced;

/// How long a snapshot may take to open before live events go on for a while.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long live events go on after that the first time, and at most.
const OPEN_PAUSE: Duration = Duration::from_secs(15);
const OPEN_PAUSE_MAX: Duration = Duration::from_mins(2);
/// The longest slice once any feed is live: so long may live events wait.
const SLICE_BESIDE_LIVE: Duration = Duration::from_secs(15);
/// How long live events may be held by a slice and the attempt at the next one together.
const HELD_MAX: Duration = Duration::from_secs(20);
/// How many tables one slice may lock.
const SLICE_TABLES_MAX: usize = 256;
/// The next row's number from which on a slice ends: its nine digits are almost used up.
const SLICE_ROWS_MAX: u32 = 999_000_000;
/// How many batches of rows a slice reads at least, if three quarters of the memory hold them: so much is its share beside live events that fill
/// the rest.
const SLICE_BATCHES: usize = 128;

/// What is left of the prefeed; outlives the sessions of the feed half.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) feeds: Arc<Feeds>,
    /// By [`FeedId`].
    pub(super) states: Vec<FeedState>,
    /// By [`FeedId`].
    pub(super) layouts: Vec<Option<Layout>>,
    /// Number of the newest slice.
    pub(super) slice: u32,
    /// Whether that number is durable and not used yet.
    pub(super) is_numbered: bool,
    /// The newest batch in which a feed begins, until it is known to be durable.
    pub(super) begun: Option<Seq>,
    /// The longest slice while nothing is live yet.
    pub(super) slice_max: Duration,
    /// Since when live events are held: when the log was last carried further.
    pub(super) held_since: Instant,
    /// How fast rows may be read.
    pub(super) rate_limit: RateLimit,
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

    /// Shows how many tables are still to be read: of none it is known at once.
    pub(super) fn show_pending(&self) {
        let pending = self.unfinished().count();
        self.metrics.prefeed_tables_pending.count(pending as u64);
        if pending == 0 {
            self.metrics.prefeed_remaining_seconds.set(0.0);
        }
    }

    fn unfinished(&self) -> impl Iterator<Item = &Feed> + Clone {
        self.feeds.iter().filter(|feed| !self.is_finished(feed.id))
    }

    /// The unfinished feeds of the lowest stage that has any, as many as one slice takes: one that is not read from the database alone,
    /// tables together. A file that has begun is finished before anything else, since the source keeps its log for it.
    fn next_feeds(&self) -> Vec<FeedId> {
        if let Some(begun) = self.begun_file() {
            return vec![begun];
        }
        let Some(stage) = self.unfinished().map(|feed| feed.stage).min() else { return Vec::new() };
        let of_stage = self.unfinished().filter(|feed| feed.stage == stage);
        match of_stage.clone().find(|feed| !self.is_read(feed)) {
            Some(other) => vec![other.id],
            None => of_stage.map(|feed| feed.id).take(SLICE_TABLES_MAX).collect(),
        }
    }

    /// Whether its rows come from the database: as its prefeed says, or as an operator asked by `checkpoint rewind`.
    fn is_read(&self, feed: &Feed) -> bool {
        let state = &self.states[feed.id.index()];
        feed.prefeed.is_read() || matches!(state, FeedState::Reading { .. } | FeedState::Again { start: Some(_), .. })
    }

    fn any_is_live(&self) -> bool {
        self.states.iter().any(|state| matches!(state, FeedState::Live { .. } | FeedState::Again { start: Some(_), .. }))
    }

    /// How long the next snapshot may take to open.
    fn patience(&self) -> Duration {
        let left = HELD_MAX.saturating_sub(self.held_since.elapsed());
        if self.any_is_live() { left.min(OPEN_TIMEOUT) } else { OPEN_TIMEOUT }
    }

    fn to_read(&self, feeds: &[FeedId]) -> Vec<ToRead> {
        let after = |id: &FeedId| match &self.states[id.index()] {
            FeedState::Reading { after, .. } => after.clone(),
            _ => None,
        };
        feeds.iter().map(|id| ToRead { feed: *id, after: after(id) }).collect()
    }

    fn mark(&self, id: FeedId, state: &FeedState) -> Mark {
        Mark { feed: self.feeds.get(id).name.clone(), state: state.clone(), layout: None }
    }

    /// Sends every row that is still to be sent, with live events between the slices.
    pub(super) async fn run<S, P>(&mut self, stream: &mut Stream<'_, S>, prefeed: &mut P) -> Result<(), Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        self.settle(stream).await?;
        // How the tables look must be known no later than their first rows: what changes from then on is noticed.
        stream.keep_alive().await?;
        self.take_note(stream).await?;
        let mut report = Report::begin(self, stream, prefeed).await?;
        self.held_since = Instant::now();
        let mut pause = OPEN_PAUSE;
        while !self.is_done() {
            let feeds = self.next_feeds();
            self.show_pending();
            self.make_ready(stream).await?;
            let sliced = match feeds[..] {
                [file] if self.is_loading(file) => self.load(file, stream, prefeed, &mut report).await?,
                _ => {
                    let memory = self.reserve(stream).await?;
                    self.slice(&feeds, memory, stream, prefeed, &mut report).await?
                }
            };
            match sliced {
                Sliced::Read => pause = OPEN_PAUSE,
                Sliced::Blocked => {
                    self.live(stream, sleep(pause)).await?;
                    pause = (2 * pause).min(OPEN_PAUSE_MAX);
                }
            }
            self.take_note(stream).await?;
        }
        self.show_pending();
        report.complete();
        Ok(())
    }

    /// Notes how tables look now; those whose rows changed without a word in the log are to be read again.
    pub(super) async fn take_note<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), Interrupted<S::Error>> {
        let table_changes = stream.table_changes();
        if table_changes.is_empty() {
            return Ok(());
        }
        let marks = table_changes.into_iter().map(|table_change| self.note(table_change)).collect();
        let progress = Progress { token: stream.handed_over().clone(), marks, slice: None, urgent: false };
        let outgoing = stream.outgoing().await?;
        stream.send(outgoing, progress);
        Ok(())
    }

    fn note(&mut self, table_change: TableChange) -> Mark {
        let TableChange { feed: id, layout, reread } = table_change;
        let feed = self.feeds.get(id);
        let state = &mut self.states[id.index()];
        if let Some(reread) = reread {
            let (start, pending_reset) = match &*state {
                FeedState::Reading { start, .. } | FeedState::Live { start } => (Some(start.clone()), false),
                FeedState::Again { start: Some(start), reset } => (Some(start.clone()), *reset),
                // Its rows are still to be read: they will be read as they are by then.
                FeedState::Pending | FeedState::Loading { .. } | FeedState::Again { start: None, .. } => (None, false),
            };
            let reason = reread.reason;
            match start {
                Some(start) if feed.prefeed.is_read() => {
                    tracing::warn!(table = %feed.name, reason, reset = reread.reset, "rows changed without a word in the log: reading the table again");
                    *state = FeedState::Again { start: Some(start), reset: reread.reset || pending_reset };
                }
                Some(_) => tracing::warn!(
                    table = %feed.name,
                    reason,
                    "rows changed without a word in the log; they are not read again, since feeds.prefeed is not \"snapshot\" for this table"
                ),
                None => {}
            }
        }
        self.layouts[id.index()] = Some(layout.clone());
        Mark { layout: Some(layout), ..self.mark(id, &self.states[id.index()]) }
    }

    /// Waits for the rate and for the slice's number, while live events go on. The number is durable before it is used, so that a replay numbers
    /// its rows anew.
    async fn make_ready<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), Interrupted<S::Error>> {
        let pause = self.rate_limit.pause();
        if !pause.is_zero() {
            self.live(stream, sleep(pause)).await?;
        }
        if !self.is_numbered {
            self.slice += 1;
            let progress = Progress { token: stream.handed_over().clone(), marks: Vec::new(), slice: Some(self.slice), urgent: true };
            let outgoing = stream.outgoing().await?;
            let sent = stream.send(outgoing, progress);
            self.live_until_durable(sent, stream).await?;
            self.is_numbered = true;
        }
        Ok(())
    }

    /// Waits for the memory in which a slice reads its rows, while live events go on. It is asked for at once: live events, which would fill all
    /// that the broker lets go, come behind it.
    async fn reserve<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<Vec<BatchWriter>, Interrupted<S::Error>> {
        let budget = stream.budget().clone();
        let mut memory = None;
        let reserved = async { memory = Some(budget.writers(SLICE_BATCHES).await) };
        self.live(stream, reserved).await?;
        memory.ok_or(Interrupted::Stopped)
    }

    /// Live events go on until `sent` is durable.
    async fn live_until_durable<S: Source>(&mut self, sent: Seq, stream: &mut Stream<'_, S>) -> Result<(), Interrupted<S::Error>> {
        let durable = stream.becomes_durable(sent);
        self.live(stream, durable).await?;
        stream.durable(sent).await
    }

    fn is_loading(&self, id: FeedId) -> bool {
        matches!(self.states[id.index()], FeedState::Loading { .. })
    }

    /// Whether the log stays where it is: a file is being sent, and nothing is live that would wait. Then it need not be read twice.
    fn holds_log(&self) -> bool {
        self.begun_file().is_some() && !self.any_is_live()
    }

    /// Live events go on until `leave`, unless the log is held.
    async fn live<S: Source, T>(
        &mut self,
        stream: &mut Stream<'_, S>,
        leave: impl Future<Output = T>,
    ) -> Result<(), Interrupted<S::Error>> {
        if self.holds_log() {
            return stream.tended(leave).await.map(drop);
        }
        let begun = Instant::now();
        stream.pump(Limit::Endless, leave).await?;
        if INSTANT <= begun.elapsed() {
            self.held_since = Instant::now();
        }
        Ok(())
    }

    /// After a gap the feed's rows are read anew, and its live events count from that cut on. Returns what is to be remembered;
    /// `None` where the feed has not begun, and so has lost nothing.
    pub(super) fn forget(&mut self, id: FeedId) -> Option<Mark> {
        let state = &mut self.states[id.index()];
        if matches!(state, FeedState::Pending | FeedState::Loading { .. }) {
            return None;
        }
        *state = FeedState::Again { start: None, reset: true };
        Some(self.mark(id, &self.states[id.index()]))
    }
}
