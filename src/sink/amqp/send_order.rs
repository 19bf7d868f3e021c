//! Decides which events may be in flight together, for each value of `sink.ordering`.

use super::options::Ordering;
use crate::batch::Record;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

/// The events in flight, as far as the ordering needs to know them.
pub(super) enum SendOrder {
    /// Any events may be in flight together.
    GoBack,
    /// At most one event of each key may be in flight.
    PerKey(KeysInFlight),
}

/// The keys that have an event in flight.
#[derive(Default)]
pub(super) struct KeysInFlight {
    hasher: RandomState,
    /// Hashes of feed and key. Two keys with the same hash wait for each other, which costs time only.
    hashes: HashSet<u64>,
    /// Whether a table-wide event is in flight: no other event may be.
    is_table_wide: bool,
}

impl SendOrder {
    pub(super) fn new(ordering: Ordering) -> Self {
        match ordering {
            Ordering::GoBack => Self::GoBack,
            Ordering::PerKey => Self::PerKey(KeysInFlight::default()),
        }
    }

    /// Whether the event may be sent now.
    pub(super) fn admits(&self, record: &Record<'_>) -> bool {
        match self {
            Self::GoBack => true,
            Self::PerKey(keys) if record.head.operation.is_table_wide() => keys.hashes.is_empty() && !keys.is_table_wide,
            Self::PerKey(keys) => !keys.is_table_wide && !keys.hashes.contains(&keys.hash(record)),
        }
    }

    /// Notes that the event is being sent.
    pub(super) fn sent(&mut self, record: &Record<'_>) {
        match self {
            Self::GoBack => {}
            Self::PerKey(keys) if record.head.operation.is_table_wide() => keys.is_table_wide = true,
            Self::PerKey(keys) => {
                keys.hashes.insert(keys.hash(record));
            }
        }
    }

    /// Whether everything sent after a refused event is sent again with it.
    pub(super) const fn goes_back(&self) -> bool {
        matches!(self, Self::GoBack)
    }

    /// Notes that the event is confirmed or refused.
    pub(super) fn settled(&mut self, record: &Record<'_>) {
        match self {
            Self::GoBack => {}
            Self::PerKey(keys) if record.head.operation.is_table_wide() => keys.is_table_wide = false,
            Self::PerKey(keys) => {
                keys.hashes.remove(&keys.hash(record));
            }
        }
    }
}

impl KeysInFlight {
    fn hash(&self, record: &Record<'_>) -> u64 {
        self.hasher.hash_one((record.head.feed, record.key))
    }
}
