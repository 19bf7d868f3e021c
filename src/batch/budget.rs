//! The memory budget: one number bounds the bytes between the source's socket and the broker's confirmation.

use super::lease::{BATCH_OVERHEAD_BYTES, Lease, Pool};
use super::writer::BatchWriter;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Hands out memory for batches. Clones share the same limit.
///
/// Memory is taken before a batch is filled. It is given back when the batch is dropped, which is when the broker has confirmed it and all
/// batches before it. A batch may exceed its memory by one record.
#[derive(Clone, Debug)]
pub struct Budget {
    pool: Arc<Pool>,
}

impl Budget {
    /// A budget of `limit_bytes`, handed out `batch_bytes` at a time.
    ///
    /// # Panics
    /// When a batch does not fit the limit or 32 bits; the configuration's ranges rule both out.
    #[must_use]
    pub fn new(limit_bytes: usize, batch_bytes: usize) -> Self {
        Self { pool: Arc::new(Pool::new(limit_bytes, batch_bytes)) }
    }

    /// Waits for the memory of one batch. Cancel safe.
    pub async fn writer(&self) -> BatchWriter {
        let permit = self.pool.acquire(self.pool.batch_bytes()).await;
        self.lend(permit)
    }

    /// Waits for the memory of up to `most` batches at once, and of no more than three quarters of the budget. Requests are served in order: a
    /// later one gets nothing first. Cancel safe.
    pub async fn writers(&self, most: usize) -> Vec<BatchWriter> {
        let batch_bytes = self.pool.batch_bytes();
        let count = (self.limit_bytes() / 4 * 3 / batch_bytes).min(most).max(1);
        let mut permit = self.pool.acquire(count * batch_bytes).await;
        let permits = std::iter::from_fn(|| permit.split(batch_bytes));
        permits.map(|permit| self.lend(permit)).collect()
    }

    fn lend(&self, permit: OwnedSemaphorePermit) -> BatchWriter {
        let buffers = self.pool.take_spare();
        BatchWriter::new(buffers, self.pool.batch_bytes() - BATCH_OVERHEAD_BYTES, Lease::new(permit, Arc::clone(&self.pool)))
    }

    /// Bytes in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.pool.used_bytes()
    }

    /// The limit.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.pool.limit_bytes()
    }

    /// Whether more than a quarter of the budget is in use: then small batches are merged.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.pool.is_crowded()
    }

    /// Waits until the budget is not crowded. Cancel safe.
    pub async fn eased(&self) {
        self.pool.eased().await;
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;
    use crate::batch::lease::BATCH_OVERHEAD_BYTES;
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
    async fn memory_is_taken_before_a_batch_is_filled_and_given_back_with_it() {
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
    async fn a_small_batch_is_charged_for_what_it_holds() {
        let budget = Budget::new(4 * BATCH_BYTES, BATCH_BYTES);
        drop(batch(&budget, BATCH_BYTES).await);
        let small = batch(&budget, 100).await;
        assert!((100 + BATCH_OVERHEAD_BYTES..1024).contains(&budget.used_bytes()), "{}", budget.used_bytes());
        assert_eq!(small.size_bytes(), 100);
    }

    #[tokio::test]
    async fn a_record_larger_than_a_batch_is_charged_as_far_as_memory_is_free() {
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
    async fn several_writers_are_lent_at_once_and_before_later_requests() {
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
        assert!(several.len() == 2 && one.is_err(), "free memory goes to the first request");
        assert_eq!(budget.used_bytes(), budget.limit_bytes());
        drop(several);
        assert_eq!(budget.used_bytes(), 6 * BATCH_BYTES);
    }

    #[tokio::test]
    async fn a_record_that_is_larger_than_its_batch_takes_the_memory_of_others() {
        let budget = Budget::new(8 * BATCH_BYTES, BATCH_BYTES);
        let mut writers = budget.writers(6).await.into_iter();
        let mut out = writers.next().unwrap();
        out.absorb(&mut writers);
        assert_eq!(writers.len(), 5, "an empty writer needs no more than its own memory");
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
