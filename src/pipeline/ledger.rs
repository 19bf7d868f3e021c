//! Receipts in any order in, progress in order out.

use crate::batch::{Ack, Batch, Seq, Settled};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The commits of the deliver half: every batch that is not confirmed with all before it.
#[derive(Debug)]
pub struct Ledger {
    /// Number of the oldest batch in the commits.
    first: Seq,
    slots: VecDeque<Slot>,
    /// How many of the slots this session has been given.
    submitted: usize,
    attempt: u32,
    settled: mpsc::UnboundedSender<Settled>,
}

#[derive(Debug)]
struct Slot {
    batch: Arc<Batch>,
    confirmed: bool,
}

/// A ack of the present session was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost(pub Seq);

impl Ledger {
    /// Empty commits whose first batch will be `first`; what is settled arrives on the receiver.
    #[must_use]
    pub fn new(first: Seq) -> (Self, mpsc::UnboundedReceiver<Settled>) {
        let (settled, receiver) = mpsc::unbounded_channel();
        (Self { first, slots: VecDeque::new(), submitted: 0, attempt: 0, settled }, receiver)
    }

    /// Takes a batch into the commits.
    ///
    /// # Panics
    /// When it is not the next: batches come in order.
    pub fn track(&mut self, batch: Batch) {
        assert_eq!(batch.seq().0, self.first.0 + self.slots.len() as u64, "batches come in order");
        self.slots.push_back(Slot { batch: Arc::new(batch), confirmed: false });
    }

    /// The next batch to be given to the session, with its ack. A batch without records is confirmed as it stands.
    ///
    /// # Panics
    /// Never: a batch's offsets fit 32 bits, and so does their number.
    pub fn next_submission(&mut self) -> Option<(Arc<Batch>, Ack)> {
        loop {
            let slot = self.slots.get_mut(self.submitted)?;
            self.submitted += 1;
            if slot.batch.is_empty() {
                slot.confirmed = true;
                continue;
            }
            let records = u32::try_from(slot.batch.len()).expect("a batch's index fits 32 bits");
            let ack = Ack::new(slot.batch.seq(), self.attempt, records, self.settled.clone());
            return Some((Arc::clone(&slot.batch), ack));
        }
    }

    /// Begins a new session: all that is in the commits will be given to it again, oldest first. Returns how many records
    /// the last session had been given.
    ///
    /// A batch confirmed behind an unconfirmed one is sent again too: a reader would else see the lost one after it.
    pub fn go_back(&mut self) -> u64 {
        self.attempt += 1;
        let records = self.slots.iter().take(self.submitted).map(|slot| slot.batch.len() as u64).sum();
        self.submitted = 0;
        for slot in &mut self.slots {
            slot.confirmed = false;
        }
        records
    }

    /// CommitTracker one settlement. What an earlier session says does not count.
    ///
    /// # Errors
    /// When the present session lost the batch.
    pub fn settle(&mut self, settled: Settled) -> Result<(), Lost> {
        if settled.attempt != self.attempt {
            return Ok(());
        }
        if !settled.confirmed {
            return Err(Lost(settled.seq));
        }
        let index = settled.seq.0.checked_sub(self.first.0).and_then(|index| usize::try_from(index).ok());
        if let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) {
            slot.confirmed = true;
        }
        Ok(())
    }

    /// Takes the oldest batch out of the commits when it is confirmed: the confirmed prefix, batch by batch (I2).
    pub fn pop_confirmed(&mut self) -> Option<Arc<Batch>> {
        if !self.slots.front()?.confirmed {
            return None;
        }
        self.first = self.first.next();
        self.submitted -= 1;
        self.slots.pop_front().map(|slot| slot.batch)
    }

    /// Whether every batch is confirmed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Records in the commits.
    #[must_use]
    pub fn unconfirmed_records(&self) -> u64 {
        self.slots.iter().map(|slot| slot.batch.len() as u64).sum()
    }
}
