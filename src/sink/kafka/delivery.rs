//! Counts what becomes of a batch's messages: when the last one is confirmed the batch's ack is, and when one is lost the batch is.
//!
//! librdkafka reads record bodies in place, in the arena of their batch. So each message holds a reference to its batch, as the opaque pointer
//! that librdkafka returns with the delivery report. There is one allocation per batch, and none per message.

#![expect(unsafe_code, reason = "librdkafka carries the reference to a batch as a plain pointer")]

use super::isolation::RecordIndex;
use crate::batch::{Ack, Batch, Record, Seq};
use rdkafka::IntoOpaque;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A batch whose messages are on their way. Owned by its references together.
struct Delivery {
    /// How many references there are: one for each message that is not settled, and one for the submission.
    references: AtomicU32,
    /// Taken by the first loss, or by the last confirmation.
    ack: Mutex<Option<Ack>>,
    batch: Arc<Batch>,
    submitted: Instant,
}

impl Delivery {
    fn take_ack(&self) -> Option<Ack> {
        self.ack.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives back `count` references. The last one confirms the batch, unless a message was lost. Returns how long the batch was on
    /// its way, if it is confirmed now.
    ///
    /// # Safety
    /// The caller owns `count` references to this delivery and does not use them afterwards.
    unsafe fn release(this: NonNull<Self>, count: u32) -> Option<Duration> {
        // SAFETY: the caller owns a reference, so the delivery is alive.
        if unsafe { this.as_ref() }.references.fetch_sub(count, Ordering::AcqRel) != count {
            return None;
        }
        // SAFETY: no reference is left, so nobody else points here; it was made by `Box::leak` in `Submission::new`.
        let delivery = unsafe { Box::from_raw(this.as_ptr()) };
        let ack = delivery.take_ack()?;
        ack.confirm(u32::try_from(delivery.batch.len()).expect("a batch's offsets are 32 bits"));
        Some(delivery.submitted.elapsed())
    }
}

/// One message's reference to its batch, carried by librdkafka. If it is dropped, the message is lost.
pub(super) struct MessageRef(NonNull<Delivery>);

// SAFETY: `Delivery` is `Sync`: an atomic, a mutex, and immutable parts that may be sent and shared.
unsafe impl Send for MessageRef {}
// SAFETY: as above.
unsafe impl Sync for MessageRef {}

impl MessageRef {
    /// The broker has the message. Returns how long the batch was on its way, if this was its last message.
    pub(super) fn confirm(self) -> Option<Duration> {
        let delivery = self.0;
        std::mem::forget(self);
        // SAFETY: this gives back the one reference that `self` was.
        unsafe { Delivery::release(delivery, 1) }
    }
}

impl Drop for MessageRef {
    fn drop(&mut self) {
        // SAFETY: `self` is a reference, so the delivery is alive.
        drop(unsafe { self.0.as_ref() }.take_ack());
        // SAFETY: this gives back the one reference that `self` was.
        unsafe { Delivery::release(self.0, 1) };
    }
}

impl IntoOpaque for MessageRef {
    fn into_ptr(self) -> *mut c_void {
        let pointer = self.0.as_ptr().cast();
        std::mem::forget(self);
        pointer
    }

    unsafe fn from_ptr(pointer: *mut c_void) -> Self {
        Self(NonNull::new(pointer.cast()).expect("every message carries its reference"))
    }
}

/// A batch that is being handed to the client. If it is dropped before all messages are handed over, the batch is lost.
pub(super) struct Submission {
    delivery: NonNull<Delivery>,
    /// Messages that are still to be handed over. The submission owns their references.
    unsent: AtomicU32,
}

// SAFETY: as for `MessageRef`.
unsafe impl Send for Submission {}
// SAFETY: as for `MessageRef`.
unsafe impl Sync for Submission {}

impl Submission {
    /// Takes over a batch and its ack. Each record is expected to become one message.
    pub(super) fn new(batch: Arc<Batch>, ack: Ack) -> Self {
        let messages = u32::try_from(batch.len()).expect("a batch's offsets are 32 bits");
        let delivery = Box::leak(Box::new(Delivery {
            references: AtomicU32::new(messages + 1),
            ack: Mutex::new(Some(ack)),
            batch,
            submitted: Instant::now(),
        }));
        Self { delivery: NonNull::from(delivery), unsent: AtomicU32::new(messages) }
    }

    fn delivery(&self) -> &Delivery {
        // SAFETY: the submission owns a reference until it is dropped.
        unsafe { self.delivery.as_ref() }
    }

    /// The batch's number.
    pub(super) fn seq(&self) -> Seq {
        self.delivery().batch.seq()
    }

    /// The records, in order.
    pub(super) fn records(&self) -> impl Iterator<Item = PendingRecord<'_>> {
        (0..).zip(self.delivery().batch.records()).map(|(index, record)| PendingRecord { record, index, submission: self })
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        let unsent = *self.unsent.get_mut();
        if unsent != 0 {
            drop(self.delivery().take_ack());
        }
        // SAFETY: the references of the messages that were not handed over, and the submission's own.
        unsafe { Delivery::release(self.delivery, unsent + 1) };
    }
}

/// A record of a submission, not handed over yet.
pub(super) struct PendingRecord<'s> {
    /// Its bytes, which the submission keeps alive.
    pub(super) record: Record<'s>,
    /// Its index in the batch.
    pub(super) index: u32,
    submission: &'s Submission,
}

impl PendingRecord<'_> {
    /// Its batch and its index there.
    pub(super) fn record_index(&self) -> RecordIndex {
        (self.submission.seq(), self.index)
    }

    /// Settles the record without a message.
    pub(super) fn skip(&self) {
        self.handed_over();
        // SAFETY: the reference of the message that is not made; the submission owns another one.
        unsafe { Delivery::release(self.submission.delivery, 1) };
    }

    /// Expects `count` messages, or as many more if `is_first` is false. One message is expected from the start.
    pub(super) fn expect_messages(&self, count: u32, is_first: bool) {
        let more = count - u32::from(is_first);
        self.submission.delivery().references.fetch_add(more, Ordering::Relaxed);
        self.submission.unsent.fetch_add(more, Ordering::Relaxed);
    }

    /// The pointer for the message's opaque: a [`MessageRef`] once the client has taken the message.
    pub(super) const fn opaque(&self) -> *mut c_void {
        self.submission.delivery.as_ptr().cast()
    }

    /// One of the submission's references now belongs to a message that the client has taken.
    pub(super) fn handed_over(&self) {
        // No other thread writes this count.
        let unsent = self.submission.unsent.load(Ordering::Relaxed);
        self.submission.unsent.store(unsent - 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{MessageRef, PendingRecord, Submission};
    use crate::batch::{Ack, Batch, Budget, Ending, Seq, Settled};
    use crate::checkpoint::{Progress, ResumeToken};
    use crate::event::{FeedId, Head, Operation, Timestamp};
    use std::sync::Arc;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    const RECORDS: u32 = 3;

    async fn submission(budget: &Budget) -> (Submission, UnboundedReceiver<Settled>) {
        let mut writer = budget.writer().await;
        for _ in 0..RECORDS {
            let mut record = writer.begin(Head { feed: FeedId(0), operation: Operation::Insert, timestamp: Timestamp(0) });
            record.end_id();
            record.end_key();
            record.arena().extend_from_slice(b"{}");
            record.end(Ending::Closed, false).unwrap();
        }
        let (batch, _): (Batch, _) = writer.seal(Seq(1), Progress::live(ResumeToken("1".into())));
        let (sender, settled) = unbounded_channel();
        (Submission::new(Arc::new(batch), Ack::new(Seq(1), 1, RECORDS, sender)), settled)
    }

    /// Hands a record over, as to a client that takes it.
    fn hand_over(record: &PendingRecord<'_>) -> MessageRef {
        record.handed_over();
        MessageRef(record.submission.delivery)
    }

    #[tokio::test]
    async fn the_last_message_confirms_the_batch_and_frees_it() {
        let budget = Budget::new(1 << 20, 1 << 16);
        let (submission, mut settled) = submission(&budget).await;
        let mut messages: Vec<MessageRef> = submission.records().map(|record| hand_over(&record)).collect();
        drop(submission);
        let last = messages.pop().unwrap();
        assert!(messages.into_iter().all(|message| message.confirm().is_none()));
        assert!(settled.try_recv().is_err() && budget.used_bytes() != 0, "the client still reads the last body");
        assert!(last.confirm().is_some());
        assert!(settled.try_recv().unwrap().confirmed);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn copies_of_a_record_are_confirmed_with_the_last_of_them() {
        let (submission, mut settled) = submission(&Budget::new(1 << 20, 1 << 16)).await;
        let mut messages = Vec::new();
        for record in submission.records() {
            record.expect_messages(3, true);
            record.expect_messages(1, false);
            messages.extend((0..4).map(|_| hand_over(&record)));
        }
        drop(submission);
        assert_eq!(messages.into_iter().filter_map(MessageRef::confirm).count(), 1);
        assert!(settled.try_recv().unwrap().confirmed);
        assert!(settled.try_recv().is_err());
    }

    #[tokio::test]
    async fn skipped_records_are_confirmed_with_the_others() {
        let budget = Budget::new(1 << 20, 1 << 16);
        for count in 0..RECORDS as usize {
            let (submission, mut settled) = submission(&budget).await;
            let messages: Vec<MessageRef> = submission.records().take(count).map(|record| hand_over(&record)).collect();
            submission.records().skip(count).for_each(|record| record.skip());
            drop(submission);
            for message in messages {
                assert!(settled.try_recv().is_err());
                message.confirm();
            }
            assert!(settled.try_recv().unwrap().confirmed);
            assert_eq!(budget.used_bytes(), 0);
        }
    }

    #[tokio::test]
    async fn one_lost_message_loses_the_batch_at_once() {
        let budget = Budget::new(1 << 20, 1 << 16);
        let (submission, mut settled) = submission(&budget).await;
        let mut messages: Vec<MessageRef> = submission.records().map(|record| hand_over(&record)).collect();
        drop(submission);
        drop(messages.remove(1));
        assert!(!settled.try_recv().unwrap().confirmed);
        assert!(messages.into_iter().all(|message| message.confirm().is_none()));
        assert!(settled.try_recv().is_err());
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_dropped_submission_loses_the_batch_but_keeps_its_memory_for_the_client() {
        let budget = Budget::new(1 << 20, 1 << 16);
        let (submission, mut settled) = submission(&budget).await;
        let message = submission.records().next().map(|record| hand_over(&record)).unwrap();
        drop(submission);
        assert!(!settled.try_recv().unwrap().confirmed);
        assert_ne!(budget.used_bytes(), 0, "the client still reads the first body");
        assert!(message.confirm().is_none());
        assert_eq!(budget.used_bytes(), 0);
    }
}
