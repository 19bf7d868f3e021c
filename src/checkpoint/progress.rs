//! Progress: what is known once a batch is confirmed, and the state of each feed.

use crate::checkpoint::token::{Layout, ResumeToken, ScanPosition};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A feed's name, which stays the same over restarts: `schema.table`. A part that contains a dot or a quote is quoted as in SQL.
pub type FeedName = Arc<str>;

/// From where a feed's live events are published, and how far its existing rows have been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum FeedState {
    /// Before the feed's first cut. Its live events are not published.
    Pending,
    /// The rows of the feed's file are being sent. Its live events are not published before the last of them.
    Loading {
        /// The log's position before the first of these rows; live events begin there. `None` until it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<ResumeToken>,
        /// The last confirmed row; `None` before the first.
        after: Option<ScanPosition>,
    },
    /// The feed's rows are being read. Live events are published from `start` on.
    Reading {
        /// The cut under which the first row was read.
        start: ResumeToken,
        /// The last confirmed row; `None` before the first.
        after: Option<ScanPosition>,
    },
    /// All rows must be read again, because some changed in a way that is not in the log.
    Again {
        /// From where on live events are published; they are not interrupted. `None` after a gap: then from the cut under which the
        /// rows are read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<ResumeToken>,
        /// Whether a `reset` comes first, because rows may be gone: readers must then forget every row that is not sent again.
        reset: bool,
    },
    /// All rows are sent, or the feed has no prefeed. Live events are published from `start` on.
    Live {
        /// The feed's first cut; without a prefeed, the position where the log began.
        start: ResumeToken,
    },
}

impl FeedState {
    /// From where on live events are published; `None` before the first cut.
    #[must_use]
    pub const fn start(&self) -> Option<&ResumeToken> {
        match self {
            Self::Pending | Self::Loading { .. } => None,
            Self::Again { start, .. } => start.as_ref(),
            Self::Reading { start, .. } | Self::Live { start } => Some(start),
        }
    }

    /// From where on the feed needs the log: like [`Self::start`], but also while the feed's file is being sent.
    #[must_use]
    pub const fn since(&self) -> Option<&ResumeToken> {
        match self {
            Self::Loading { start, .. } => start.as_ref(),
            Self::Pending | Self::Again { .. } | Self::Reading { .. } | Self::Live { .. } => self.start(),
        }
    }

    /// Whether readers may have rows of this feed.
    #[must_use]
    pub const fn may_have_sent(&self) -> bool {
        match self {
            Self::Pending | Self::Again { start: None, reset: false } | Self::Loading { after: None, .. } => false,
            Self::Loading { after: Some(_), .. } | Self::Reading { .. } | Self::Again { .. } | Self::Live { .. } => true,
        }
    }
}

/// The new state of one feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The feed's name.
    pub feed: FeedName,
    /// Its state from this batch on.
    pub state: FeedState,
    /// The layout of its table, if it is new.
    pub layout: Option<Layout>,
}

/// What is known once a batch and all earlier ones are confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where to resume the log.
    pub token: ResumeToken,
    /// The feeds whose state changes with this batch. Empty for live batches.
    pub marks: Vec<Mark>,
    /// The number of the prefeed slice that the batch opens, if it opens one.
    pub slice: Option<u32>,
    /// Whether the checkpoint must be saved at once, because later batches wait until it is durable.
    pub urgent: bool,
}

impl Progress {
    /// Progress in the log only.
    #[must_use]
    pub const fn live(token: ResumeToken) -> Self {
        Self { token, marks: Vec::new(), slice: None, urgent: false }
    }
}
