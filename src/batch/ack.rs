//! Acks: the sink's obligation to confirm each record of a batch. A dropped ack means that the batch is lost.

use super::seq::Seq;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::mpsc;

/// What became of one submission of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The batch.
    pub seq: Seq,
    /// Which submission of it: results of an earlier one no longer count.
    pub attempt: u32,
    /// Whether every record is confirmed; if not, at least one is lost.
    pub confirmed: bool,
}

/// Given to the sink with each batch. It is settled when every record is confirmed. If it is dropped before, the batch counts as lost:
/// a forgotten ack can repeat records, but never skip them.
///
/// Cheap to clone and to share: a confirmation is one atomic subtraction, from any thread.
#[derive(Clone, Debug)]
pub struct Ack(Arc<AckCount>);

/// The count of unconfirmed records behind an [`Ack`]. A client's callback may carry it as its opaque pointer.
#[derive(Debug)]
pub struct AckCount {
    seq: Seq,
    attempt: u32,
    unconfirmed: AtomicU32,
    settled: mpsc::UnboundedSender<Settled>,
}

impl Ack {
    /// An ack for `records` records of batch `seq`.
    #[must_use]
    pub fn new(seq: Seq, attempt: u32, records: u32, settled: mpsc::UnboundedSender<Settled>) -> Self {
        Self(Arc::new(AckCount { seq, attempt, unconfirmed: AtomicU32::new(records), settled }))
    }

    /// `records` more records of the batch are durable in the sink.
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
    /// When more records are confirmed than the batch has: the sink counted one twice.
    pub fn confirm(&self, records: u32) {
        let before = self.unconfirmed.fetch_sub(records, Ordering::AcqRel);
        assert!(records <= before, "more confirmations than records in batch {}", self.seq.0);
        if before == records {
            self.settle(true);
        }
    }

    fn settle(&self, confirmed: bool) {
        // The channel is closed when the pipeline has ended: nobody needs the result then.
        let _ended = self.settled.send(Settled { seq: self.seq, attempt: self.attempt, confirmed });
    }
}

impl Drop for AckCount {
    fn drop(&mut self) {
        if *self.unconfirmed.get_mut() != 0 {
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
    fn a_dropped_ack_is_lost() {
        let (sender, mut settled) = mpsc::unbounded_channel();
        let ack = Ack::new(Seq(7), 2, 3, sender);
        ack.confirm(2);
        drop(ack);
        assert_eq!(settled.try_recv(), Ok(Settled { seq: Seq(7), attempt: 2, confirmed: false }));
    }
}
