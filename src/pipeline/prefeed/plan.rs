//! What is left of the prefeed: the state of each feed, and which feeds are read next.

use super::rate_limit::RateLimit;
use crate::batch::Seq;
use crate::checkpoint::{FeedState, Layout, Mark};
use crate::event::FeedId;
use crate::feed::{Feed, Feeds};
use crate::pipeline::settings::Settings;
use crate::source::{Resume, TableChange, ToRead};
use crate::status::metrics::Metrics;
use crate::status::{FeedPhase, FeedStatus, Publisher};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a snapshot may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest slice while any feed is live: live events wait that long.
pub(super) const SLICE_BESIDE_LIVE: Duration = Duration::from_secs(15);
/// How long a slice and the attempt to open the next one may hold live events together.
const HELD_MAX: Duration = Duration::from_secs(20);
/// How many tables one slice may lock.
const SLICE_TABLES_MAX: usize = 256;
/// A slice ends when the number of its next row reaches this: row numbers have nine digits.
pub(super) const SLICE_ROWS_MAX: u32 = 999_000_000;

/// What is left of the prefeed. It outlives the sessions of the source side.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) feeds: Arc<Feeds>,
    /// By [`FeedId`].
    pub(crate) states: Vec<FeedState>,
    /// By [`FeedId`].
    pub(crate) layouts: Vec<Option<Layout>>,
    /// Number of the newest slice.
    pub(super) slice: u32,
    /// Whether that number is durable and not used yet.
    pub(super) is_numbered: bool,
    /// The newest batch at which a feed begins, until that is known to be durable.
    pub(super) begun: Option<Seq>,
    /// The longest slice while no feed is live.
    pub(super) slice_max: Duration,
    /// Since when live events are held: when log was last handed over.
    pub(super) held_since: Instant,
    pub(super) rate_limit: RateLimit,
    pub(super) metrics: Metrics,
    pub(super) status: Publisher,
}

impl Plan {
    /// The plan of a run that resumes after slice number `slice`.
    pub(crate) fn new(feeds: Arc<Feeds>, resume: Resume, slice: u32, settings: &Settings, metrics: Metrics, status: Publisher) -> Self {
        Self {
            feeds,
            states: resume.feeds,
            layouts: resume.layouts,
            slice,
            is_numbered: false,
            begun: None,
            slice_max: settings.prefeed_slice,
            held_since: Instant::now(),
            rate_limit: RateLimit::new(settings.prefeed_bytes_per_second),
            metrics,
            status,
        }
    }

    fn is_finished(&self, id: FeedId) -> bool {
        matches!(self.states[id.index()], FeedState::Live { .. })
    }

    /// Whether every row is sent.
    pub(crate) fn is_done(&self) -> bool {
        self.feeds.iter().all(|feed| self.is_finished(feed.id))
    }

    /// Shows in the status how far each feed is. If all are done, the remaining time is 0.
    pub(crate) fn show_pending(&self) {
        let unread = |feed: &Feed| FeedStatus { name: Arc::clone(&feed.name), phase: FeedPhase::Pending, rows: 0, rows_expected: None };
        self.status.publish(|status| {
            let shown = status.feeds.get_or_insert_with(|| self.feeds.iter().map(unread).collect());
            for (feed, state) in shown.iter_mut().zip(&self.states) {
                feed.phase = phase(state);
            }
        });
        if self.is_done() {
            self.metrics.prefeed_remaining_seconds.set(0.0);
        }
    }

    pub(super) fn unfinished(&self) -> impl Iterator<Item = &Feed> + Clone {
        self.feeds.iter().filter(|feed| !self.is_finished(feed.id))
    }

    /// The unfinished feeds of the lowest stage, as many as one slice takes: tables together, any other feed alone.
    /// A file that was begun comes before anything else, since the source keeps its log for it.
    pub(super) fn next_feeds(&self) -> Vec<FeedId> {
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

    /// The feed whose file is being sent: the source keeps its log for it.
    pub(crate) fn begun_file(&self) -> Option<FeedId> {
        let is_begun = |feed: &&Feed| matches!(self.states[feed.id.index()], FeedState::Loading { start: Some(_), .. });
        self.feeds.iter().find(is_begun).map(|feed| feed.id)
    }

    /// Whether the feed's rows come from the database: because of its prefeed setting, or because of `checkpoint rewind`.
    pub(super) fn is_read(&self, feed: &Feed) -> bool {
        let state = &self.states[feed.id.index()];
        feed.prefeed.is_read() || matches!(state, FeedState::Reading { .. } | FeedState::Again { start: Some(_), .. })
    }

    pub(super) fn is_loading(&self, id: FeedId) -> bool {
        matches!(self.states[id.index()], FeedState::Loading { .. })
    }

    pub(super) fn any_is_live(&self) -> bool {
        self.states.iter().any(|state| matches!(state, FeedState::Live { .. } | FeedState::Again { start: Some(_), .. }))
    }

    /// Whether no log is read: a file is being sent, and no live feed waits. So the log need not be read twice.
    pub(super) fn holds_log(&self) -> bool {
        self.begun_file().is_some() && !self.any_is_live()
    }

    /// How long the next snapshot may take to open.
    pub(super) fn open_timeout(&self) -> Duration {
        let left = HELD_MAX.saturating_sub(self.held_since.elapsed());
        if self.any_is_live() { left.min(OPEN_TIMEOUT) } else { OPEN_TIMEOUT }
    }

    pub(super) fn to_read(&self, feeds: &[FeedId]) -> Vec<ToRead> {
        let after = |id: &FeedId| match &self.states[id.index()] {
            FeedState::Reading { after, .. } => after.clone(),
            _ => None,
        };
        feeds.iter().map(|id| ToRead { feed: *id, after: after(id) }).collect()
    }

    pub(super) fn mark(&self, id: FeedId, state: &FeedState) -> Mark {
        Mark { feed: self.feeds.get(id).name.clone(), state: state.clone(), layout: None }
    }

    /// Keeps a table's new layout. If its rows changed and the log does not show it, the table is to be read again. Returns what the checkpoint must
    /// hold.
    pub(super) fn note(&mut self, table_change: TableChange) -> Mark {
        let TableChange { feed: id, layout, reread } = table_change;
        let feed = self.feeds.get(id);
        let state = &mut self.states[id.index()];
        if let Some(reread) = reread {
            let (start, pending_reset) = match &*state {
                FeedState::Reading { start, .. } | FeedState::Live { start } => (Some(start.clone()), false),
                FeedState::Again { start: Some(start), reset } => (Some(start.clone()), *reset),
                // Its rows are still to be read, and will be read as they are then.
                FeedState::Pending | FeedState::Loading { .. } | FeedState::Again { start: None, .. } => (None, false),
            };
            let reason = reread.reason;
            match start {
                Some(start) if feed.prefeed.is_read() => {
                    tracing::warn!(
                        table = %feed.name,
                        reason,
                        reset = reread.reset,
                        "rows changed, and the log does not show it: reading the table again"
                    );
                    *state = FeedState::Again { start: Some(start), reset: reread.reset || pending_reset };
                }
                Some(_) => tracing::warn!(
                    table = %feed.name,
                    reason,
                    "rows changed, and the log does not show it; they are not read again, since feeds.prefeed of this table is not \"snapshot\""
                ),
                None => {}
            }
        }
        self.layouts[id.index()] = Some(layout.clone());
        Mark { layout: Some(layout), ..self.mark(id, &self.states[id.index()]) }
    }

    /// Has a feed read again by a command, after a reset; its live events go on. Returns what the checkpoint must hold.
    pub(super) fn reread_on_request(&mut self, id: FeedId) -> Mark {
        let state = &mut self.states[id.index()];
        // Without a start, its rows are still to be read anyway.
        if let Some(start) = state.start().cloned() {
            tracing::warn!(table = %self.feeds.get(id).name, "reading the table again by a command, after a reset");
            *state = FeedState::Again { start: Some(start), reset: true };
        }
        self.mark(id, &self.states[id.index()])
    }

    /// Has a feed read again after a gap. Its live events count from the next cut on. Returns what the checkpoint must hold; `None` if the feed
    /// has not begun, and so misses nothing.
    pub(crate) fn reread_after_gap(&mut self, id: FeedId) -> Option<Mark> {
        let state = &mut self.states[id.index()];
        if matches!(state, FeedState::Pending | FeedState::Loading { .. }) {
            return None;
        }
        *state = FeedState::Again { start: None, reset: true };
        Some(self.mark(id, &self.states[id.index()]))
    }
}

const fn phase(state: &FeedState) -> FeedPhase {
    match state {
        FeedState::Live { .. } => FeedPhase::Live,
        FeedState::Reading { .. } | FeedState::Loading { start: Some(_), .. } => FeedPhase::Reading,
        FeedState::Pending | FeedState::Loading { start: None, .. } | FeedState::Again { .. } => FeedPhase::Pending,
    }
}
