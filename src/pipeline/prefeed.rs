//! SCAN-CUT: existing rows and live events on one line, so that no key ever goes backwards.
//!
//! A slice holds the log, opens a snapshot whose exact place in the log (the cut) is known, carries the log to that place,
//! and then sends rows as the snapshot shows them. What has to be waited for is waited for between the slices ([`Held`]). For each key what is sent is then: events up to the cut, the row at the cut,
//! events after it, up to the next cut, and so on. A row that is deleted between two slices has its delete between them; a row
//! that is read again is newer. No key is compared outside the database, and nothing is written to it.

use crate::batch::Seq;
use crate::change::{FeedId, Timestamp};
use crate::checkpoint::{FeedState, Layout, Mark, Progress, ResumeToken};
use crate::feed::{Feed, Feeds, PrefeedKind};
use crate::metrics::Metrics;
use crate::pipeline::feed::{Interrupted, Limit, Outgoing, Stream};
use crate::pipeline::held::{Held, INSTANT};
use crate::source::{Cut, Opened, Prefeed, Scanned, Sighting, Slice, Source, ToRead};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

mod file;
mod progress;

pub(super) use progress::Pace;
use progress::Report;

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
    pub(super) pace: Pace,
    pub(super) metrics: Metrics,
}

/// A slice that is being read.
struct Reading<'r> {
    feeds: &'r [FeedId],
    cut: &'r Cut,
    slice: Slice,
}

/// How a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sliced {
    /// Rows were read.
    Read,
    /// No snapshot could be opened.
    Blocked,
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
            let first = self.make_ready(stream).await?;
            let sliced = match feeds[..] {
                [file] if self.is_loading(file) => self.load(file, first, stream, prefeed, &mut report).await?,
                _ => self.slice(&feeds, first, stream, prefeed, &mut report).await?,
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
        let sightings = stream.sightings();
        if sightings.is_empty() {
            return Ok(());
        }
        let marks = sightings.into_iter().map(|sighting| self.note(sighting)).collect();
        let progress = Progress { token: stream.handed_over().clone(), marks, slice: None, urgent: false };
        let outgoing = stream.outgoing().await?;
        stream.send(outgoing, progress);
        Ok(())
    }

    fn note(&mut self, sighting: Sighting) -> Mark {
        let Sighting { feed: id, layout, reread } = sighting;
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

    /// Waits for all that can be waited for before a snapshot is held, while live events go on: the rate, the broker, and the slice's number,
    /// which is durable before it is used, so that a replay numbers its rows anew. With it comes what the slice's first batch needs.
    async fn make_ready<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<Outgoing, Interrupted<S::Error>> {
        let pause = self.pace.pause();
        if !pause.is_zero() {
            self.live(stream, sleep(pause)).await?;
        }
        if !self.is_numbered {
            self.slice += 1;
            let progress = Progress { token: stream.handed_over().clone(), marks: Vec::new(), slice: Some(self.slice), urgent: true };
            let outgoing = stream.outgoing().await?;
            // All that was sent before it is confirmed then: whatever the last slice filled is free again.
            let sent = stream.send(outgoing, progress);
            self.live_until_durable(sent, stream).await?;
            self.is_numbered = true;
        }
        stream.outgoing().await
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

    async fn slice<S, P>(
        &mut self,
        feeds: &[FeedId],
        first: Outgoing,
        stream: &mut Stream<'_, S>,
        prefeed: &mut P,
        report: &mut Report,
    ) -> Result<Sliced, Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        // The log is held from here on: nothing pumps it until the cut is known.
        let needs_snapshot = feeds.iter().all(|id| self.is_read(self.feeds.get(*id)));
        let opened = if needs_snapshot {
            stream.tended(prefeed.open(&self.to_read(feeds), self.patience())).await??
        } else {
            Opened::Cut(Cut { token: stream.handed_over().clone(), opened_at: Timestamp::now() })
        };
        let cut = match opened {
            Opened::Cut(cut) => cut,
            Opened::Blocked { by } => {
                tracing::warn!(by, "no snapshot could be opened; live events go on, then it is tried again");
                return Ok(Sliced::Blocked);
            }
        };
        let longest = if self.any_is_live() { self.slice_max.min(SLICE_BESIDE_LIVE) } else { self.slice_max }.min(P::SLICE_MAX);
        let mut held = Held::new(prefeed, longest);
        let read = self.read(feeds, &cut, first, stream, &mut held, report).await;
        // A snapshot that is kept would hold up the source: it is released whatever happened.
        let closed = stream.tended(prefeed.close()).await?;
        read?;
        closed?;
        // What could not be waited for under the snapshot is waited for without it.
        self.settle(stream).await?;
        stream.pump(Limit::Cut(&cut.token), pending::<()>()).await?;
        Ok(Sliced::Read)
    }

    /// Carries the log to the cut and sends rows from there, until all are sent or the slice is to end.
    async fn read<S, P>(
        &mut self,
        feeds: &[FeedId],
        cut: &Cut,
        first: Outgoing,
        stream: &mut Stream<'_, S>,
        held: &mut Held<'_, P>,
        report: &mut Report,
    ) -> Result<(), Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        if !stream.carry(&cut.token, held).await? {
            return Ok(());
        }
        self.held_since = Instant::now();
        self.is_numbered = false;
        let mut reading = Reading { feeds, cut, slice: Slice { number: self.slice, next_row: 0 } };
        if !self.begin(&reading, stream, held).await? || !self.reset(&mut reading, stream, held).await? {
            return Ok(());
        }
        if let Some(begun) = self.begun {
            if !stream.durable_under(begun, held).await? {
                return Ok(());
            }
            self.begun = None;
        }
        self.scan(reading, first, stream, held, report).await
    }

    /// Waits until where the feeds begin is durable: no record after it is sent before.
    async fn settle<S: Source>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), Interrupted<S::Error>> {
        if let Some(begun) = self.begun {
            stream.durable(begun).await?;
            self.begun = None;
        }
        Ok(())
    }

    /// Has the pending feeds begin at the cut, so that a replay begins them at the same place; whether it came to that before the slice is to
    /// end.
    async fn begin<S, P>(
        &mut self,
        reading: &Reading<'_>,
        stream: &mut Stream<'_, S>,
        held: &mut Held<'_, P>,
    ) -> Result<bool, Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let (feeds, cut) = (reading.feeds, reading.cut);
        let pending = feeds.iter().copied().filter(|id| self.states[id.index()] == FeedState::Pending).collect::<Vec<_>>();
        if pending.is_empty() {
            return Ok(true);
        }
        let Some(outgoing) = stream.outgoing_under(held).await? else { return Ok(false) };
        let begun = FeedState::Reading { start: cut.token.clone(), after: None };
        let marks = pending.iter().map(|id| self.mark(*id, &begun)).collect();
        self.begun = Some(stream.send(outgoing, Progress { token: cut.token.clone(), marks, slice: None, urgent: true }));
        for id in pending {
            self.states[id.index()] = begun.clone();
            stream.start(id, &cut.token);
        }
        Ok(true)
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

    /// Says of the tables that are read anew that they are, by the first numbers of the slice; whether it came to that before the slice is to end.
    async fn reset<S, P>(
        &mut self,
        reading: &mut Reading<'_>,
        stream: &mut Stream<'_, S>,
        held: &mut Held<'_, P>,
    ) -> Result<bool, Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let cut = reading.cut;
        for id in reading.feeds {
            let FeedState::Again { start, reset } = self.states[id.index()].clone() else { continue };
            let Some(mut outgoing) = stream.outgoing_under(held).await? else { return Ok(false) };
            if reset {
                stream.tended(held.prefeed.reset(*id, cut, &mut reading.slice, &mut outgoing.out)).await??;
            }
            let begins = start.is_none();
            let start = start.unwrap_or_else(|| cut.token.clone());
            let next = match self.feeds.get(*id).prefeed {
                PrefeedKind::File(_) if begins => FeedState::Loading { start: Some(start.clone()), after: None },
                PrefeedKind::None if begins => FeedState::Live { start: start.clone() },
                _ => FeedState::Reading { start: start.clone(), after: None },
            };
            let is_live = next.start().is_some();
            let sent = self.send(*id, next, &cut.token, begins, outgoing, stream);
            if begins {
                if is_live {
                    stream.start(*id, &start);
                }
                self.begun = Some(sent);
            }
        }
        Ok(true)
    }

    /// Sends rows until all are sent or the slice is to end; a batch of them at least.
    async fn scan<S, P>(
        &mut self,
        reading: Reading<'_>,
        first: Outgoing,
        stream: &mut Stream<'_, S>,
        held: &mut Held<'_, P>,
        report: &mut Report,
    ) -> Result<(), Interrupted<S::Error>>
    where
        S: Source,
        P: Prefeed<Error = S::Error>,
    {
        let Reading { feeds, cut, mut slice } = reading;
        let mut first = Some(first);
        for id in feeds {
            while !self.is_finished(*id) {
                let outgoing = match first.take() {
                    None => stream.outgoing_under(held).await?,
                    first => first,
                };
                let Some(mut outgoing) = outgoing else { return Ok(()) };
                let out = &mut outgoing.out;
                let FeedState::Reading { start, after } = self.states[id.index()].clone() else { break };
                let scanned = stream.tended(held.prefeed.scan(*id, after.as_ref(), &mut slice, out)).await??;
                self.pace.count(out.size_bytes());
                report.rows(*id, &scanned);
                let further = match scanned {
                    Scanned { done: true, .. } => FeedState::Live { start },
                    Scanned { after: further, .. } => FeedState::Reading { start, after: further.or(after) },
                };
                self.send(*id, further, &cut.token, false, outgoing, stream);
                let pause = self.pace.pause();
                if INSTANT < pause || SLICE_ROWS_MAX <= slice.next_row || stream.tended(held.is_over()).await?? {
                    return Ok(());
                }
                stream.tended(sleep(pause)).await?;
            }
        }
        Ok(())
    }

    /// Hands over records of a feed, and with them what is known of it once they are confirmed. The plan knows it no sooner: a
    /// session that ends before has handed over nothing.
    fn send<S: Source>(
        &mut self,
        id: FeedId,
        state: FeedState,
        token: &ResumeToken,
        urgent: bool,
        outgoing: Outgoing,
        stream: &mut Stream<'_, S>,
    ) -> Seq {
        let progress = Progress { token: token.clone(), marks: vec![self.mark(id, &state)], slice: None, urgent };
        let seq = stream.send(outgoing, progress);
        if matches!(state, FeedState::Loading { .. }) {
            stream.keep(seq);
        }
        self.states[id.index()] = state;
        seq
    }
}
