//! Feeds whose changed rows the log does not identify.

use crate::event::FeedId;
use crate::source::postgres::error::Error;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Such feeds, shared by the log that finds them and the connector that opens the next log.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnkeyedFeeds(Arc<Mutex<BTreeSet<FeedId>>>);

impl UnkeyedFeeds {
    /// Adds the feed that an error of this kind names.
    pub(super) fn note(&self, error: &Error) {
        if let Error::KeyUnknown { feed, .. } = error {
            self.lock().insert(*feed);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeSet<FeedId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
