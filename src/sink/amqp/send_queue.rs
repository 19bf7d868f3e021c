//! What is still to be sent, in its order.

use super::error::Error;
use crate::batch::{Ack, Batch, Record};
use crate::status::metrics::DeadLetter;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::Instant;

/// A batch and what is owed for it.
pub(super) struct Submission {
    pub(super) batch: Arc<Batch>,
    pub(super) ack: Ack,
    pub(super) begun: Instant,
}

/// An event of a batch. While one is left that is not confirmed, the batch is not; dropped before, it is lost.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) submission: Arc<Submission>,
    record: usize,
    /// Why it goes to the dead letters, if it does.
    pub(super) letter: Option<Box<Letter>>,
}

/// What its destination does not take.
#[derive(Clone)]
pub(super) struct Letter {
    pub(super) reason: DeadLetter,
    pub(super) error: Error,
}

impl Entry {
    pub(super) fn record(&self) -> Record<'_> {
        self.submission.batch.record(self.record)
    }

    /// The same event as a dead letter.
    pub(super) fn into_letter(mut self, reason: DeadLetter, error: Error) -> Self {
        self.letter = Some(Box::new(Letter { reason, error }));
        self
    }
}

/// What is still to be sent: first what was refused and goes again, then the batch at hand.
#[derive(Default)]
pub(super) struct SendQueue {
    again: VecDeque<Entry>,
    batch: Option<(Arc<Submission>, usize)>,
}

impl SendQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.again.is_empty() && self.batch.is_none()
    }

    /// Takes the next batch, once the one before it is sent.
    pub(super) fn take(&mut self, submission: Submission) {
        debug_assert!(self.batch.is_none(), "one batch after the other");
        self.batch = Some((Arc::new(submission), 0));
        self.drop_sent_batch();
    }

    /// Takes back what was sent and goes again, before all else.
    pub(super) fn take_back(&mut self, mut entries: VecDeque<Entry>) {
        entries.append(&mut self.again);
        self.again = entries;
    }

    /// The next event, if it may be sent now.
    pub(super) fn next_if(&mut self, admits: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        if let Some(entry) = self.again.front() {
            return if admits(entry) { self.again.pop_front() } else { None };
        }
        let (submission, record) = self.batch.as_mut()?;
        let entry = Entry { submission: Arc::clone(submission), record: *record, letter: None };
        if !admits(&entry) {
            return None;
        }
        *record += 1;
        self.drop_sent_batch();
        Some(entry)
    }

    fn drop_sent_batch(&mut self) {
        if self.batch.as_ref().is_some_and(|(submission, record)| submission.batch.len() <= *record) {
            self.batch = None;
        }
    }
}
