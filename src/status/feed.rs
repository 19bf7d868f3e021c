//! How far a feed's existing rows have come.

use std::sync::Arc;

/// A feed, and how far its existing rows have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedStatus {
    /// Its name.
    pub name: Arc<str>,
    /// What it does.
    pub phase: FeedPhase,
    /// Rows that this process has read for it.
    pub rows: u64,
    /// Rows that were expected when the prefeed began, an estimate; `None` where it is not known.
    pub rows_expected: Option<u64>,
}

/// What a feed does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedPhase {
    /// Its rows are still to be read.
    Pending,
    /// Some of its rows are sent.
    Reading,
    /// All its rows are sent, or it has no prefeed.
    Live,
}

impl FeedPhase {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Reading => "reading",
            Self::Live => "live",
        }
    }
}
