//! The head of a record: feed, operation and time.

use crate::event::operation::Operation;
use serde::{Deserialize, Serialize};

/// Index of a feed in this run. It can change at a restart; the feed's name does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeedId(pub u32);

impl FeedId {
    /// The feed's index in a list of all feeds.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A time: microseconds since 1970-01-01T00:00:00Z, by the clock of the machine that recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The current time of this machine.
    #[must_use]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// Seconds since 1970, with a fraction.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit 53 bits")]
    pub const fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Milliseconds since 1970, truncated.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// What a record says of itself beside its key and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The feed that the record belongs to.
    pub feed: FeedId,
    /// The event's operation.
    pub operation: Operation,
    /// Commit time of a live event. For a prefeed row, the time when its slice was opened.
    pub timestamp: Timestamp,
}
