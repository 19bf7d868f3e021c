//! Finding the one record that a broker refuses: it refuses whole requests, and does not say which record is to blame.
//!
//! The session that met the refusal ends. The next sends record by record, until it knows which one is refused, and ends too; the
//! one after it sends that record to the dead letters. No session goes on after a delivery error, as everywhere.

use super::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

/// What a session does about the refusal that ended an earlier one.
#[derive(Clone, Debug, Default)]
pub(super) enum Care {
    /// Nothing: there was none.
    #[default]
    None,
    /// So many batches are sent record by record.
    Alone {
        /// Those that may hold the record.
        batches: usize,
    },
    /// One record goes to the dead letters.
    Known {
        /// Its id.
        id: Vec<u8>,
        /// Why.
        refusal: Error,
    },
}

impl Care {
    /// Whether each record is waited for before the next is sent.
    pub(super) const fn is_alone(&self) -> bool {
        matches!(self, Self::Alone { .. })
    }

    /// Why a record is refused, where it is known to be.
    pub(super) fn refusal(&self, record_id: &[u8]) -> Option<Error> {
        match self {
            Self::Known { id, refusal } if id == record_id => Some(refusal.clone()),
            _ => None,
        }
    }

    /// A batch was sent.
    pub(super) fn sent(&mut self) {
        if let Self::Alone { batches } = self {
            *batches -= 1;
            if *batches == 0 {
                *self = Self::None;
            }
        }
    }
}

/// What one session leaves to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Legacy(Arc<Mutex<Care>>);

impl Legacy {
    /// Leaves it.
    pub(super) fn leave(&self, care: Care) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = care;
    }

    /// Takes it, once.
    pub(super) fn take(&self) -> Care {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
