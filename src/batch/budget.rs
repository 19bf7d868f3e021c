//! Room: bytes between the socket and the broker's confirmation, bounded by one number.

use crate::batch::{Batch, BatchWriter, Buffers};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Hands out room for batches. Clones share the same bound.
///
/// Room is taken before a batch is filled and given back when its last holder drops it, which is when the broker
/// has confirmed it and all before it. A batch may exceed its room by one record.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    room: Arc<Semaphore>,
    limit_bytes: usize,
    batch_bytes: usize,
    spare: Mutex<Vec<Buffers>>,
    spare_max: usize,
    eased: Notify,
}

/// Room held by one batch.
#[derive(Debug)]
pub(crate) struct Lease {
    permit: Option<OwnedSemaphorePermit>,
    shared: Arc<Shared>,
}

impl Budget {
    /// Spare buffers kept for the next batches; the rest goes back to the allocator.
    const SPARE_MAX: usize = 8;

    /// Room of `limit_bytes` in all, handed out `batch_bytes` at a time.
    ///
    /// # Panics
    /// When a batch does not fit the limit or 32 bits; the configuration's ranges rule both out.
    #[must_use]
    pub fn new(limit_bytes: usize, batch_bytes: usize) -> Self {
        assert!(batch_bytes <= limit_bytes && u32::try_from(batch_bytes).is_ok(), "a batch fits the room");
        Self {
            shared: Arc::new(Shared {
                room: Arc::new(Semaphore::new(limit_bytes)),
                limit_bytes,
                batch_bytes,
                spare: Mutex::new(Vec::new()),
                spare_max: Self::SPARE_MAX.min(limit_bytes / batch_bytes),
                eased: Notify::new(),
            }),
        }
    }

    /// Waits for the room of one batch. Cancel safe.
    pub async fn writer(&self) -> BatchWriter {
        let permit = self.acquire(self.shared.batch_bytes).await;
        self.lend(permit)
    }

    /// Waits for the memory of several batches together, up to three quarters of all: who asks later gets none before. Cancel safe.
    pub async fn writers(&self, most: usize) -> Vec<BatchWriter> {
        let batch_bytes = self.shared.batch_bytes;
        let count = (self.shared.limit_bytes / 4 * 3 / batch_bytes).min(most).max(1);
        let mut permit = self.acquire(count * batch_bytes).await;
        let permits = std::iter::from_fn(|| permit.split(batch_bytes));
        permits.map(|permit| self.lend(permit)).collect()
    }

    async fn acquire(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).expect("at most three quarters of a semaphore's permits are asked for");
        Arc::clone(&self.shared.room).acquire_many_owned(bytes).await.expect("never closed")
    }

    fn lend(&self, permit: OwnedSemaphorePermit) -> BatchWriter {
        let buffers = self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let lease = Lease { permit: Some(permit), shared: Arc::clone(&self.shared) };
        BatchWriter::new(buffers, self.shared.batch_bytes - Batch::OVERHEAD_BYTES, lease)
    }

    /// Bytes in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.shared.limit_bytes - self.shared.room.available_permits()
    }

    /// The bound.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.shared.limit_bytes
    }

    /// Whether so much waits for the broker that small batches are to be merged: more than a quarter of the room.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.shared.is_crowded()
    }

    /// Waits until the room is not crowded. Cancel safe.
    pub async fn eased(&self) {
        loop {
            let eased = self.shared.eased.notified();
            if !self.is_crowded() {
                return;
            }
            eased.await;
        }
    }
}

impl Shared {
    fn is_crowded(&self) -> bool {
        self.room.available_permits() < self.limit_bytes / 4 * 3
    }

    fn tell_when_eased(&self) {
        if !self.is_crowded() {
            self.eased.notify_waiters();
        }
    }
}

impl Lease {
    /// Sizes room and buffers to what a sealed batch holds: a small batch is copied out of its large buffers.
    pub(crate) fn fit(&mut self, buffers: Buffers) -> Buffers {
        let buffers = if buffers.used_bytes() < buffers.capacity_bytes() / 2 {
            let fitted = buffers.fitted();
            self.recycle(buffers);
            fitted
        } else {
            buffers
        };
        let charge = buffers.capacity_bytes() + Batch::OVERHEAD_BYTES;
        let Some(permit) = &mut self.permit else { return buffers };
        if let Some(surplus) = permit.num_permits().checked_sub(charge) {
            drop(permit.split(surplus));
            self.shared.tell_when_eased();
        } else {
            // A record larger than a batch: charged as far as there is room, so that it never waits for itself.
            let wanted = u32::try_from(charge - permit.num_permits()).unwrap_or(u32::MAX);
            let available = u32::try_from(self.shared.room.available_permits()).unwrap_or(u32::MAX);
            if let Ok(more) = Arc::clone(&self.shared.room).try_acquire_many_owned(wanted.min(available)) {
                permit.merge(more);
            }
        }
        buffers
    }

    /// Takes what others hold until it is so many bytes, as far as there are others.
    pub(crate) fn cover(&mut self, bytes: usize, mut others: impl Iterator<Item = Self>) {
        let Some(permit) = &mut self.permit else { return };
        while permit.num_permits() < bytes
            && let Some(mut other) = others.next()
        {
            if let Some(more) = other.permit.take() {
                permit.merge(more);
            }
        }
    }

    /// Keeps buffers for a later batch, unless one huge record has swollen them.
    pub(crate) fn recycle(&self, mut buffers: Buffers) {
        if buffers.capacity_bytes() < self.shared.batch_bytes / 2 || 2 * self.shared.batch_bytes < buffers.capacity_bytes() {
            return;
        }
        buffers.clear();
        let mut spare = self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < self.shared.spare_max {
            spare.push(buffers);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.permit = None;
        self.shared.tell_when_eased();
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;
    use crate::batch::{Batch, BatchWriter, Ending, Seq};
    use crate::checkpoint::{Progress, ResumeToken};
    use crate::event::{FeedId, Head, Operation, Timestamp};
    use std::time::Duration;

    const BATCH_BYTES: usize = 1 << 16;

    fn write(out: &mut BatchWriter, body_bytes: usize) {
        let mut record = out.begin(Head { feed: FeedId(0), operation: Operation::Insert, timestamp: Timestamp(0) });
        let length = record.arena().len() + body_bytes;
        record.arena().resize(length, b'x');
        record.end(Ending::Closed, false).unwrap();
    }

    async fn batch(budget: &Budget, body_bytes: usize) -> Batch {
        let mut out: BatchWriter = budget.writer().await;
        write(&mut out, body_bytes);
        out.seal(Seq(1), Progress::live(ResumeToken("t".into()))).0
    }

    #[tokio::test]
    async fn room_is_taken_before_a_batch_is_filled_and_comes_back_with_it() {
        let budget = Budget::new(4 * BATCH_BYTES, BATCH_BYTES);
        let out = budget.writer().await;
        assert_eq!(budget.used_bytes(), BATCH_BYTES);
        drop(out);
        assert_eq!(budget.used_bytes(), 0);
        let full = batch(&budget, BATCH_BYTES / 2).await;
        assert!((BATCH_BYTES / 2..=BATCH_BYTES).contains(&budget.used_bytes()));
        drop(full);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_small_batch_occupies_what_it_holds() {
        let budget = Budget::new(4 * BATCH_BYTES, BATCH_BYTES);
        drop(batch(&budget, BATCH_BYTES).await);
        let small = batch(&budget, 100).await;
        assert!((100 + Batch::OVERHEAD_BYTES..1024).contains(&budget.used_bytes()), "{}", budget.used_bytes());
        assert_eq!(small.size_bytes(), 100);
    }

    #[tokio::test]
    async fn a_record_larger_than_a_batch_is_charged_as_far_as_there_is_room() {
        let budget = Budget::new(4 * BATCH_BYTES, BATCH_BYTES);
        let large = batch(&budget, 2 * BATCH_BYTES).await;
        assert!(budget.used_bytes() >= 2 * BATCH_BYTES);
        let huge = batch(&budget, 10 * BATCH_BYTES).await;
        assert_eq!(budget.used_bytes(), budget.limit_bytes());
        drop((large, huge));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_until_a_batch_is_given_back() {
        let budget = Budget::new(2 * BATCH_BYTES, BATCH_BYTES);
        let (first, _second) = (budget.writer().await, budget.writer().await);
        assert!(tokio::time::timeout(Duration::from_mins(1), budget.writer()).await.is_err());
        let (third, ()) = tokio::join!(budget.writer(), async { drop(first) });
        assert_eq!(budget.used_bytes(), 2 * BATCH_BYTES);
        drop(third);
    }

    #[tokio::test(start_paused = true)]
    async fn several_writers_come_together_and_before_who_asks_later() {
        let budget = Budget::new(8 * BATCH_BYTES, BATCH_BYTES);
        assert_eq!(budget.writers(3).await.len(), 3);
        assert_eq!(budget.writers(100).await.len(), 6);
        let mut used = Vec::new();
        for _ in 0..8 {
            used.push(budget.writer().await);
        }
        let several = budget.writers(2);
        let (several, one, ()) = tokio::join!(biased; several, tokio::time::timeout(Duration::from_mins(1), budget.writer()), async {
            drop(used.drain(..2));
        });
        assert!(several.len() == 2 && one.is_err(), "what is free goes to who asked first");
        assert_eq!(budget.used_bytes(), budget.limit_bytes());
        drop(several);
        assert_eq!(budget.used_bytes(), 6 * BATCH_BYTES);
    }

    #[tokio::test]
    async fn a_record_that_is_larger_than_its_batch_takes_the_room_of_others() {
        let budget = Budget::new(8 * BATCH_BYTES, BATCH_BYTES);
        let mut writers = budget.writers(6).await.into_iter();
        let mut out = writers.next().unwrap();
        out.absorb(&mut writers);
        assert_eq!(writers.len(), 5, "an empty one needs no more than its own");
        write(&mut out, 3 * BATCH_BYTES);
        out.absorb(&mut writers);
        assert_eq!((writers.len(), budget.used_bytes()), (2, 6 * BATCH_BYTES));
        let sealed = out.seal(Seq(1), Progress::live(ResumeToken("t".into()))).0;
        drop(writers);
        assert!((3 * BATCH_BYTES..=4 * BATCH_BYTES).contains(&budget.used_bytes()), "{}", budget.used_bytes());
        drop(sealed);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_quarter_in_use_is_crowded_until_it_eases() {
        let budget = Budget::new(8 * BATCH_BYTES, BATCH_BYTES);
        let (first, second) = (budget.writer().await, budget.writer().await);
        assert!(!budget.is_crowded());
        budget.eased().await;
        let third = budget.writer().await;
        assert!(budget.is_crowded());
        assert!(tokio::time::timeout(Duration::from_mins(1), budget.eased()).await.is_err());
        tokio::join!(budget.eased(), async { drop(third) });
        assert!(!budget.is_crowded());
        drop((first, second));
    }
}
