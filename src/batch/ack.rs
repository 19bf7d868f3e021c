//! The sink's debt for one batch: confirmed record by record, or lost.

use crate::batch::Seq;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::mpsc;

/// What became of one submission of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The batch.
    pub seq: Seq,
    /// Which submission of it: what an earlier one says no longer counts.
    pub attempt: u32,
    /// Whether every record is confirmed; if not, at least one is lost.
    pub confirmed: bool,
}

/// Owed by the sink for each batch. Settled by as many confirmations as the batch has records;
/// dropped before that, the batch is lost: a forgotten ack can only repeat records, never skip them.
///
/// Cheap to clone and to share: a confirmation is one atomic subtraction, from any thread.
#[derive(Clone, Debug)]
pub struct Ack(Arc<AckCount>);

/// The shared count behind a [`Ack`]; a client's own callback may carry it as its opaque.
#[derive(Debug)]
pub struct AckCount {
    seq: Seq,
    attempt: u32,
    owed: AtomicU32,
    settled: mpsc::UnboundedSender<Settled>,
}

impl Ack {
    /// A ack for `records` records of batch `seq`.
    #[must_use]
    pub fn new(seq: Seq, attempt: u32, records: u32, settled: mpsc::UnboundedSender<Settled>) -> Self {
        Self(Arc::new(AckCount { seq, attempt, owed: AtomicU32::new(records), settled }))
    }

    /// The sink has `records` more records of the batch durably.
    pub fn confirm(&self, records: u32) {
        self.0.confirm(records);
    }

    /// The count itself, for a callback that takes an [`Arc`].
    #[must_use]
    pub fn into_count(self) -> Arc<AckCount> {
        self.0
    }
}

impl AckCount {
    /// As [`Ack::confirm`].
    ///
    /// # Panics
    /// When more is confirmed than is owed: the sink counted a record twice.
    pub fn confirm(&self, records: u32) {
        let owed = self.owed.fetch_sub(records, Ordering::AcqRel);
        assert!(records <= owed, "more confirmations than records in batch {}", self.seq.0);
        if owed == records {
            self.settle(true);
        }
    }

    fn settle(&self, confirmed: bool) {
        // A closed channel means that the pipeline has ended: nobody is left to tell.
        let _ended = self.settled.send(Settled { seq: self.seq, attempt: self.attempt, confirmed });
    }
}

impl Drop for AckCount {
    fn drop(&mut self) {
        if *self.owed.get_mut() != 0 {
            self.settle(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ack, Settled};
    use crate::batch::Seq;
    use tokio::sync::mpsc;

    #[test]
    fn the_last_confirmation_settles() {
        let (sender, mut settled) = mpsc::unbounded_channel();
        let ack = Ack::new(Seq(7), 1, 3, sender);
        ack.confirm(2);
        assert!(settled.try_recv().is_err());
        ack.confirm(1);
        assert_eq!(settled.try_recv(), Ok(Settled { seq: Seq(7), attempt: 1, confirmed: true }));
    }

    #[test]
    fn a_dropped_receipt_is_lost() {
        let (sender, mut settled) = mpsc::unbounded_channel();
        let ack = Ack::new(Seq(7), 2, 3, sender);
        ack.confirm(2);
        drop(ack);
        assert_eq!(settled.try_recv(), Ok(Settled { seq: Seq(7), attempt: 2, confirmed: false }));
    }
}
