//! Which events may be on their way together.

use super::Ordering;
use crate::batch::Record;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

/// What is on its way, as far as the ordering asks.
pub(super) enum Order {
    /// Any events.
    GoBack,
    /// One event of each key.
    PerKey(Keys),
}

/// The keys that have an event on its way.
#[derive(Default)]
pub(super) struct Keys {
    state: RandomState,
    /// Hashes of feed and key: two keys of one hash wait for each other, which costs a confirm and changes nothing.
    held: HashSet<u64>,
    /// Whether an event of a whole table is on its way: it goes alone.
    is_alone: bool,
}

impl Order {
    pub(super) fn new(ordering: Ordering) -> Self {
        match ordering {
            Ordering::GoBack => Self::GoBack,
            Ordering::PerKey => Self::PerKey(Keys::default()),
        }
    }

    /// Whether the event may go now.
    pub(super) fn admits(&self, record: &Record<'_>) -> bool {
        match self {
            Self::GoBack => true,
            Self::PerKey(keys) if record.head.operation.is_table_wide() => keys.held.is_empty() && !keys.is_alone,
            Self::PerKey(keys) => !keys.is_alone && !keys.held.contains(&keys.hash(record)),
        }
    }

    /// The event goes.
    pub(super) fn hold(&mut self, record: &Record<'_>) {
        match self {
            Self::GoBack => {}
            Self::PerKey(keys) if record.head.operation.is_table_wide() => keys.is_alone = true,
            Self::PerKey(keys) => {
                keys.held.insert(keys.hash(record));
            }
        }
    }

    /// Whether everything behind a refused event is sent again with it.
    pub(super) const fn goes_back(&self) -> bool {
        matches!(self, Self::GoBack)
    }

    /// The event is settled.
    pub(super) fn release(&mut self, record: &Record<'_>) {
        match self {
            Self::GoBack => {}
            Self::PerKey(keys) if record.head.operation.is_table_wide() => keys.is_alone = false,
            Self::PerKey(keys) => {
                keys.held.remove(&keys.hash(record));
            }
        }
    }
}

impl Keys {
    fn hash(&self, record: &Record<'_>) -> u64 {
        self.state.hash_one((record.head.feed, record.key))
    }
}
