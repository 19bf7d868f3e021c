//! Hands records to librdkafka without a copy of their bodies and without an allocation of our own.
//!
//! The crate's safe call copies each body, and allocates a C string for the topic and for each header's name.
//! Here the topic is a handle that is looked up once, header names are constants, and a body stays where it is:
//! in the arena of its batch, which lives until the last message of the batch is settled.

#![expect(unsafe_code, reason = "librdkafka is a C library, and it reads bodies in place")]

use super::context::{Client, Context};
use super::isolation::RecordIndex;
use crate::batch::{Ack, Batch, Record, Seq};
use crate::event::Operation;
use rdkafka::IntoOpaque;
use rdkafka::bindings::{
    rd_kafka_header_add, rd_kafka_headers_destroy, rd_kafka_headers_new, rd_kafka_headers_t, rd_kafka_producev, rd_kafka_resp_err_t,
    rd_kafka_topic_destroy, rd_kafka_topic_new, rd_kafka_topic_t, rd_kafka_vtype_t,
};
use rdkafka::client::Client as NativeClient;
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaErrorCode;
use std::ffi::{CStr, CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The partition of a record that goes where its key leads.
pub(super) const BY_KEY: i32 = -1;

/// What the messages of one submission share: their bytes, and the ack for all of them.
struct Delivery {
    /// Messages and guards that still point here.
    left: AtomicU32,
    /// Taken by the first loss, or by the last confirmation.
    ack: Mutex<Option<Ack>>,
    batch: Arc<Batch>,
    submitted: Instant,
}

impl Delivery {
    fn take_ack(&self) -> Option<Ack> {
        self.ack.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives `count` shares back; with the last one the batch is confirmed, unless a share was lost.
    /// Returns how long the batch was on its way, where it is confirmed now.
    ///
    /// # Safety
    /// The caller owns `count` shares of this delivery and does not use them afterwards.
    unsafe fn release(this: NonNull<Self>, count: u32) -> Option<Duration> {
        // SAFETY: a share is owned, so the delivery is alive.
        if unsafe { this.as_ref() }.left.fetch_sub(count, Ordering::AcqRel) != count {
            return None;
        }
        // SAFETY: no share is left, so nobody else points here; it was made by `Box::leak` in `Submission::new`.
        let delivery = unsafe { Box::from_raw(this.as_ptr()) };
        let ack = delivery.take_ack()?;
        ack.confirm(u32::try_from(delivery.batch.len()).expect("a batch's offsets are 32 bits"));
        Some(delivery.submitted.elapsed())
    }
}

/// The share of one message, which librdkafka carries and its delivery report brings back. Dropped, the message is lost.
pub(super) struct Share(NonNull<Delivery>);

// SAFETY: `Delivery` is `Sync`: an atomic, a mutex, and immutable parts that may be sent and shared.
unsafe impl Send for Share {}
// SAFETY: as above.
unsafe impl Sync for Share {}

impl Share {
    /// The broker has the message. Returns how long the batch was on its way, where this was its last.
    pub(super) fn confirm(self) -> Option<Duration> {
        let delivery = self.0;
        std::mem::forget(self);
        // SAFETY: the one share that `self` was.
        unsafe { Delivery::release(delivery, 1) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // SAFETY: a share is owned, so the delivery is alive.
        drop(unsafe { self.0.as_ref() }.take_ack());
        // SAFETY: the one share that `self` was.
        unsafe { Delivery::release(self.0, 1) };
    }
}

impl IntoOpaque for Share {
    fn into_ptr(self) -> *mut c_void {
        let pointer = self.0.as_ptr().cast();
        std::mem::forget(self);
        pointer
    }

    unsafe fn from_ptr(pointer: *mut c_void) -> Self {
        Self(NonNull::new(pointer.cast()).expect("every message carries its share"))
    }
}

/// A batch while it is handed over. Dropped before all its messages are with the client, the batch is lost.
pub(super) struct Submission {
    delivery: NonNull<Delivery>,
    /// Messages that are still to be handed over; their shares are ours.
    unsent: AtomicU32,
}

// SAFETY: as for `Share`.
unsafe impl Send for Submission {}
// SAFETY: as for `Share`.
unsafe impl Sync for Submission {}

impl Submission {
    /// Takes a batch and its ack over; each record is expected to become one message.
    pub(super) fn new(batch: Arc<Batch>, ack: Ack) -> Self {
        let messages = u32::try_from(batch.len()).expect("a batch's offsets are 32 bits");
        let delivery = Box::leak(Box::new(Delivery {
            left: AtomicU32::new(messages + 1),
            ack: Mutex::new(Some(ack)),
            batch,
            submitted: Instant::now(),
        }));
        Self { delivery: NonNull::from(delivery), unsent: AtomicU32::new(messages) }
    }

    fn delivery(&self) -> &Delivery {
        // SAFETY: the submission owns a share until it is dropped.
        unsafe { self.delivery.as_ref() }
    }

    /// The batch's number.
    pub(super) fn seq(&self) -> Seq {
        self.delivery().batch.seq()
    }

    /// The records, in order.
    pub(super) fn records(&self) -> impl Iterator<Item = Held<'_>> {
        (0..).zip(self.delivery().batch.records()).map(|(index, record)| Held { record, index, submission: self })
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        let unsent = *self.unsent.get_mut();
        if unsent != 0 {
            drop(self.delivery().take_ack());
        }
        // SAFETY: the shares of the messages that were not handed over, and the submission's own.
        unsafe { Delivery::release(self.delivery, unsent + 1) };
    }
}

/// A record whose bytes its submission holds.
pub(super) struct Held<'s> {
    /// The record.
    pub(super) record: Record<'s>,
    /// Its place in the batch.
    pub(super) index: u32,
    submission: &'s Submission,
}

impl Held<'_> {
    /// Where it lies.
    pub(super) fn record_index(&self) -> RecordIndex {
        (self.submission.seq(), self.index)
    }

    /// The record needs no message.
    pub(super) fn pass(&self) {
        self.carried_away();
        // SAFETY: the share of the message that is not made; the submission owns another.
        unsafe { Delivery::release(self.submission.delivery, 1) };
    }

    /// The record becomes so many messages, or so many more; the first one is expected from the beginning.
    pub(super) fn expect_copies(&self, copies: u32, is_first: bool) {
        let more = copies - u32::from(is_first);
        self.submission.delivery().left.fetch_add(more, Ordering::Relaxed);
        self.submission.unsent.fetch_add(more, Ordering::Relaxed);
    }

    /// A message has one of the submission's shares now.
    fn carried_away(&self) {
        // Nobody else writes this count.
        let unsent = self.submission.unsent.load(Ordering::Relaxed);
        self.submission.unsent.store(unsent - 1, Ordering::Relaxed);
    }
}

/// Why the client did not take a message.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Its queue is full.
    Full,
    /// Anything else.
    Failed(RDKafkaErrorCode),
}

/// A topic as the client knows it.
pub(super) struct Topic {
    handle: NonNull<rd_kafka_topic_t>,
    /// Keeps the client alive that made the handle.
    client: Arc<Client>,
}

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Topic {
    /// Makes the handle; `None` where the client refuses the name.
    pub(super) fn open(client: &Arc<Client>, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the client is alive, the name ends with a zero, no configuration is handed over.
        let handle = unsafe { rd_kafka_topic_new(client.client().native_ptr(), name.as_ptr(), ptr::null_mut()) };
        NonNull::new(handle).map(|handle| Self { handle, client: Arc::clone(client) })
    }

    /// Hands one message over. Without a time, 0, it carries the present one.
    pub(super) fn produce(&self, held: &Held<'_>, label: &Label<'_>, partition: i32, time: i64) -> Result<(), Refusal> {
        let record = &held.record;
        let headers = Headers::of(record, label);
        let (body, body_length) = record.body.map_or((ptr::null(), 0), |body| (body.as_ptr(), body.len()));
        let client: &NativeClient<Context> = self.client.client();
        // SAFETY: client and topic are alive and belong together. Each tag is followed by what librdkafka's documentation
        // of `rd_kafka_vtype_t` names for it. The key is copied. The body is neither copied nor freed: it lies in the
        // arena of the delivery that the message's opaque keeps alive until the message is reported. The headers become
        // the message's own when the call succeeds.
        let error = unsafe {
            rd_kafka_producev(
                client.native_ptr(),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
                self.handle.as_ptr(),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
                partition,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
                body.cast::<c_void>(),
                body_length,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
                record.key.as_ptr().cast::<c_void>(),
                record.key.len(),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
                held.submission.delivery.as_ptr().cast::<c_void>(),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
                time,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
                headers.as_ref().map_or(ptr::null_mut(), |headers| headers.0),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
            )
        };
        match error {
            rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                std::mem::forget(headers);
                held.carried_away();
                Ok(())
            }
            rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL => Err(Refusal::Full),
            other => Err(Refusal::Failed(other.into())),
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_topic_new`, given back once, before the client ends.
        unsafe { rd_kafka_topic_destroy(self.handle.as_ptr()) };
    }
}

/// What a message says of itself in its headers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Label<'l> {
    /// Nothing.
    Bare,
    /// What it is, and of which table.
    Event {
        /// `schema.table`.
        table: &'l str,
    },
    /// The same, and why it is not where it belongs.
    DeadLetter {
        /// `schema.table`.
        table: &'l str,
        /// The topic where it belongs.
        topic: &'l str,
        /// Code and message.
        error: &'l str,
    },
}

/// Headers of one message, until the message owns them.
struct Headers(*mut rd_kafka_headers_t);

impl Headers {
    /// `None` for a bare message.
    fn of(record: &Record<'_>, label: &Label<'_>) -> Option<Self> {
        let (Label::Event { table } | Label::DeadLetter { table, .. }) = *label else { return None };
        // SAFETY: makes an empty list.
        let headers = Self(unsafe { rd_kafka_headers_new(4) });
        headers.add(c"feedline-id", record.id);
        headers.add(c"feedline-op", record.head.operation.name().as_bytes());
        headers.add(c"feedline-table", table.as_bytes());
        if let Some(related) = record.related_key {
            let name = if record.head.operation == Operation::Delete { c"feedline-new-key" } else { c"feedline-old-key" };
            headers.add(name, related);
        }
        if let Label::DeadLetter { topic, error, .. } = *label {
            headers.add(c"feedline-destination", topic.as_bytes());
            headers.add(c"feedline-error", error.as_bytes());
        }
        Some(headers)
    }

    fn add(&self, name: &CStr, value: &[u8]) {
        // Slices and constants are never longer than `isize::MAX`.
        let (name_length, value_length) = (name.count_bytes().cast_signed(), value.len().cast_signed());
        // SAFETY: the list is alive and ours; name and value are copied with these lengths.
        let error = unsafe { rd_kafka_header_add(self.0, name.as_ptr(), name_length, value.as_ptr().cast(), value_length) };
        debug_assert_eq!(error, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "only a read-only list refuses a header");
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        // SAFETY: the list is still ours: a message that owns it forgets this guard.
        unsafe { rd_kafka_headers_destroy(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::{Held, Share, Submission};
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

    /// What the client does when it takes a message.
    fn carry(held: &Held<'_>) -> Share {
        held.carried_away();
        Share(held.submission.delivery)
    }

    #[tokio::test]
    async fn the_last_message_confirms_the_batch_and_lets_it_go() {
        let budget = Budget::new(1 << 20, 1 << 16);
        let (submission, mut settled) = submission(&budget).await;
        let mut shares: Vec<Share> = submission.records().map(|held| carry(&held)).collect();
        drop(submission);
        let last = shares.pop().unwrap();
        assert!(shares.into_iter().all(|share| share.confirm().is_none()));
        assert!(settled.try_recv().is_err() && budget.used_bytes() != 0, "the client still reads the last body");
        assert!(last.confirm().is_some());
        assert!(settled.try_recv().unwrap().confirmed);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn copies_are_one_record_that_is_confirmed_with_the_last_of_them() {
        let (submission, mut settled) = submission(&Budget::new(1 << 20, 1 << 16)).await;
        let mut shares = Vec::new();
        for held in submission.records() {
            held.expect_copies(3, true);
            held.expect_copies(1, false);
            shares.extend((0..4).map(|_| carry(&held)));
        }
        drop(submission);
        assert_eq!(shares.into_iter().filter_map(Share::confirm).count(), 1);
        assert!(settled.try_recv().unwrap().confirmed);
        assert!(settled.try_recv().is_err());
    }

    #[tokio::test]
    async fn records_that_need_no_message_are_confirmed_with_the_others() {
        let budget = Budget::new(1 << 20, 1 << 16);
        for messages in 0..RECORDS as usize {
            let (submission, mut settled) = submission(&budget).await;
            let shares: Vec<Share> = submission.records().take(messages).map(|held| carry(&held)).collect();
            submission.records().skip(messages).for_each(|held| held.pass());
            drop(submission);
            for share in shares {
                assert!(settled.try_recv().is_err());
                share.confirm();
            }
            assert!(settled.try_recv().unwrap().confirmed);
            assert_eq!(budget.used_bytes(), 0);
        }
    }

    #[tokio::test]
    async fn one_lost_message_loses_the_batch_at_once_and_for_good() {
        let budget = Budget::new(1 << 20, 1 << 16);
        let (submission, mut settled) = submission(&budget).await;
        let mut shares: Vec<Share> = submission.records().map(|held| carry(&held)).collect();
        drop(submission);
        drop(shares.remove(1));
        assert!(!settled.try_recv().unwrap().confirmed);
        assert!(shares.into_iter().all(|share| share.confirm().is_none()));
        assert!(settled.try_recv().is_err());
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_submission_that_is_given_up_loses_the_batch_but_keeps_it_for_the_client() {
        let budget = Budget::new(1 << 20, 1 << 16);
        let (submission, mut settled) = submission(&budget).await;
        let share = submission.records().next().map(|held| carry(&held)).unwrap();
        drop(submission);
        assert!(!settled.try_recv().unwrap().confirmed);
        assert_ne!(budget.used_bytes(), 0, "the client still reads the first body");
        assert!(share.confirm().is_none());
        assert_eq!(budget.used_bytes(), 0);
    }
}
