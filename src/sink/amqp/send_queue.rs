//! The events that are still to be sent, in order.

use super::error::Error;
use crate::batch::{Ack, Batch, Record};
use crate::status::metrics::DeadLetter;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::Instant;

/// A batch, its ack, and when it was submitted.
pub(super) struct Submission {
    pub(super) batch: Arc<Batch>,
    pub(super) ack: Ack,
    pub(super) begun: Instant,
}

/// An event of a batch. When the last entry of a batch is dropped before all are confirmed, the batch's ack reports it as lost.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) submission: Arc<Submission>,
    record: usize,
    /// Set if the event is sent as a dead letter.
    pub(super) dead_letter: Option<Box<DeadLetterCause>>,
}

/// Why an event is sent as a dead letter.
#[derive(Clone)]
pub(super) struct DeadLetterCause {
    pub(super) reason: DeadLetter,
    pub(super) error: Error,
}

impl Entry {
    pub(super) fn record(&self) -> Record<'_> {
        self.submission.batch.record(self.record)
    }

    /// The same event as a dead letter.
    pub(super) fn into_dead_letter(mut self, reason: DeadLetter, error: Error) -> Self {
        self.dead_letter = Some(Box::new(DeadLetterCause { reason, error }));
        self
    }
}

/// The events to send: first those to send again, then the rest of the current batch.
#[derive(Default)]
pub(super) struct SendQueue {
    resend: VecDeque<Entry>,
    /// The current batch, and the index of its next record.
    batch: Option<(Arc<Submission>, usize)>,
}

impl SendQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.resend.is_empty() && self.batch.is_none()
    }

    /// Adds the next batch. The one before must have been sent whole.
    pub(super) fn push_batch(&mut self, submission: Submission) {
        debug_assert!(self.batch.is_none(), "the batch before is sent");
        self.batch = Some((Arc::new(submission), 0));
        self.drop_sent_batch();
    }

    /// Adds events to send again, before all others.
    pub(super) fn push_front(&mut self, mut entries: VecDeque<Entry>) {
        entries.append(&mut self.resend);
        self.resend = entries;
    }

    /// The next event, if `admits` lets it be sent now.
    pub(super) fn pop_if(&mut self, admits: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        if let Some(entry) = self.resend.front() {
            return if admits(entry) { self.resend.pop_front() } else { None };
        }
        let (submission, record) = self.batch.as_mut()?;
        let entry = Entry { submission: Arc::clone(submission), record: *record, dead_letter: None };
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
