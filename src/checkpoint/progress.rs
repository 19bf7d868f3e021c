//! Progress: what is known once a batch is confirmed, and the state of each feed.

use crate::checkpoint::token::{Layout, ResumeToken, ScanPosition};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A feed's name over restarts: `schema.table`, a part that holds a dot or a quote quoted as SQL does.
pub type FeedName = Arc<str>;

/// Where a feed begins and how far its existing rows have been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum FeedState {
    /// Its first cut is still to come: its live events are not published.
    Pending,
    /// The rows of its file are being sent; its live events are not published before the last of them.
    Loading {
        /// Where the log was before the first of them: there its live events begin. `None` before that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<ResumeToken>,
        /// The last row confirmed; `None` before the first.
        after: Option<ScanPosition>,
    },
    /// Its rows are being read; live events count from `start` on.
    Reading {
        /// The cut under which its first row was read.
        start: ResumeToken,
        /// The last row confirmed; `None` before the first.
        after: Option<ScanPosition>,
    },
    /// All its rows are to be read anew, because some changed without a word in the log.
    Again {
        /// From where on its live events count: they go on. `None` after a gap: then they count from the cut under which it is read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<ResumeToken>,
        /// Whether readers are to forget rows that are not repeated: some may be gone.
        reset: bool,
    },
    /// All its rows are sent, or none were asked for; live events count from `start` on.
    Live {
        /// The feed's first cut, or where the log began for a feed without a prefeed.
        start: ResumeToken,
    },
}

impl FeedState {
    /// From where on live events are published; `None` while the first cut is to come.
    #[must_use]
    pub const fn start(&self) -> Option<&ResumeToken> {
        match self {
            Self::Pending | Self::Loading { .. } => None,
            Self::Again { start, .. } => start.as_ref(),
            Self::Reading { start, .. } | Self::Live { start } => Some(start),
        }
    }

    /// From where on the log holds events of the feed that are published, now or once its file is sent.
    #[must_use]
    pub const fn since(&self) -> Option<&ResumeToken> {
        match self {
            Self::Loading { start, .. } => start.as_ref(),
            Self::Pending | Self::Again { .. } | Self::Reading { .. } | Self::Live { .. } => self.start(),
        }
    }

    /// Whether readers may hold rows of the feed.
    #[must_use]
    pub const fn may_have_sent(&self) -> bool {
        match self {
            Self::Pending | Self::Again { start: None, reset: false } | Self::Loading { after: None, .. } => false,
            Self::Loading { after: Some(_), .. } | Self::Reading { .. } | Self::Again { .. } | Self::Live { .. } => true,
        }
    }
}

/// What becomes known of one feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The feed.
    pub feed: FeedName,
    /// Its state from here on.
    pub state: FeedState,
    /// How its source sees its table from here on, where that is new.
    pub layout: Option<Layout>,
}

/// What is known once a batch and all before it are confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where to resume the log.
    pub token: ResumeToken,
    /// Feeds of which this batch changes something; empty on live batches.
    pub marks: Vec<Mark>,
    /// The prefeed slice to which the batch belongs, when it opens one.
    pub slice: Option<u32>,
    /// Whether what follows waits until this is durable, so that the checkpoint is saved at once.
    pub urgent: bool,
}

impl Progress {
    /// Progress of the log alone.
    #[must_use]
    pub const fn live(token: ResumeToken) -> Self {
        Self { token, marks: Vec::new(), slice: None, urgent: false }
    }
}
