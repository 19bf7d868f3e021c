//! The ledger: takes acks in any order, and releases batches in order.

use crate::batch::{Ack, Batch, Seq, Settled};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Every batch that is not confirmed, or that follows one that is not.
#[derive(Debug)]
pub struct Ledger {
    /// Sequence number of the oldest batch.
    first: Seq,
    entries: VecDeque<Entry>,
    /// How many batches the current session was given.
    submitted: usize,
    attempt: u32,
    settled: mpsc::UnboundedSender<Settled>,
}

#[derive(Debug)]
struct Entry {
    batch: Arc<Batch>,
    confirmed: bool,
}

/// The current session lost this batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost(pub Seq);

impl Ledger {
    /// An empty ledger whose first batch will be `first`. Results of acks arrive on the receiver.
    #[must_use]
    pub fn new(first: Seq) -> (Self, mpsc::UnboundedReceiver<Settled>) {
        let (settled, receiver) = mpsc::unbounded_channel();
        (Self { first, entries: VecDeque::new(), submitted: 0, attempt: 0, settled }, receiver)
    }

    /// Adds a batch. One without records counts as confirmed at once if all before it are: it needs no session.
    ///
    /// # Panics
    /// When it is not the next batch: batches come in order.
    pub fn track(&mut self, batch: Batch) {
        assert_eq!(batch.seq().0, self.first.0 + self.entries.len() as u64, "batches come in order");
        let confirmed = batch.is_empty() && self.is_empty();
        self.submitted += usize::from(confirmed);
        self.entries.push_back(Entry { batch: Arc::new(batch), confirmed });
    }

    /// The next batch for the session, with its ack. A batch without records counts as confirmed at once.
    ///
    /// # Panics
    /// Never: a batch's offsets fit 32 bits, and so does their number.
    pub fn next_submission(&mut self) -> Option<(Arc<Batch>, Ack)> {
        loop {
            let entry = self.entries.get_mut(self.submitted)?;
            self.submitted += 1;
            if entry.batch.is_empty() {
                entry.confirmed = true;
                continue;
            }
            let records = u32::try_from(entry.batch.len()).expect("a batch's index fits 32 bits");
            let ack = Ack::new(entry.batch.seq(), self.attempt, records, self.settled.clone());
            return Some((Arc::clone(&entry.batch), ack));
        }
    }

    /// Begins a new session: it will be given all batches again, oldest first. Returns how many records the last session was given.
    ///
    /// A confirmed batch behind an unconfirmed one is sent again too: otherwise a reader would see the lost batch after it.
    pub fn go_back(&mut self) -> u64 {
        self.attempt += 1;
        let records = self.entries.iter().take(self.submitted).map(|entry| entry.batch.len() as u64).sum();
        self.submitted = 0;
        for entry in &mut self.entries {
            entry.confirmed = false;
        }
        records
    }

    /// Applies the result of one ack. Results of earlier sessions do not count.
    ///
    /// # Errors
    /// When the current session lost the batch.
    pub fn settle(&mut self, settled: Settled) -> Result<(), Lost> {
        if settled.attempt != self.attempt {
            return Ok(());
        }
        if !settled.confirmed {
            return Err(Lost(settled.seq));
        }
        let index = settled.seq.0.checked_sub(self.first.0).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.confirmed = true;
        }
        Ok(())
    }

    /// Removes the oldest batch if it is confirmed. Called until `None`, it returns the confirmed prefix (I2).
    pub fn pop_confirmed(&mut self) -> Option<Arc<Batch>> {
        if !self.entries.front()?.confirmed {
            return None;
        }
        self.first = self.first.next();
        self.submitted -= 1;
        self.entries.pop_front().map(|entry| entry.batch)
    }

    /// Whether there are no batches: all are confirmed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
