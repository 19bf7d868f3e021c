//! The memory of one batch, and the pool that it is taken from.

use super::arena::Buffers;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What a batch costs besides its buffers: the batch itself, its ack and its entry in the ledger.
pub(super) const BATCH_OVERHEAD_BYTES: usize = 512;
/// Spare buffers kept for later batches; more are freed.
const SPARE_MAX: usize = 8;

/// All memory of a budget, and buffers for reuse.
#[derive(Debug)]
pub(super) struct Pool {
    /// One permit for each free byte.
    free: Arc<Semaphore>,
    limit_bytes: usize,
    batch_bytes: usize,
    spare: Mutex<Vec<Buffers>>,
    spare_max: usize,
    eased: Notify,
}

impl Pool {
    pub(super) fn new(limit_bytes: usize, batch_bytes: usize) -> Self {
        assert!(batch_bytes <= limit_bytes && u32::try_from(batch_bytes).is_ok(), "a batch fits the budget");
        Self {
            free: Arc::new(Semaphore::new(limit_bytes)),
            limit_bytes,
            batch_bytes,
            spare: Mutex::new(Vec::new()),
            spare_max: SPARE_MAX.min(limit_bytes / batch_bytes),
            eased: Notify::new(),
        }
    }

    pub(super) async fn acquire(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).expect("at most three quarters of a semaphore's permits are asked for");
        Arc::clone(&self.free).acquire_many_owned(bytes).await.expect("never closed")
    }

    /// Buffers of an earlier batch, or new ones.
    pub(super) fn take_spare(&self) -> Buffers {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.limit_bytes - self.free.available_permits()
    }

    pub(super) const fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    pub(super) const fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.free.available_permits() < self.limit_bytes / 4 * 3
    }

    pub(super) async fn eased(&self) {
        loop {
            let eased = self.eased.notified();
            if !self.is_crowded() {
                return;
            }
            eased.await;
        }
    }

    fn notify_if_eased(&self) {
        if !self.is_crowded() {
            self.eased.notify_waiters();
        }
    }
}

/// Memory held by one batch. Given back when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    permit: Option<OwnedSemaphorePermit>,
    pool: Arc<Pool>,
}

impl Lease {
    pub(super) const fn new(permit: OwnedSemaphorePermit, pool: Arc<Pool>) -> Self {
        Self { permit: Some(permit), pool }
    }

    /// Fits the buffers and the charged memory to what a sealed batch holds: a small batch is copied out of its large buffers.
    pub(super) fn fit(&mut self, buffers: Buffers) -> Buffers {
        let buffers = if buffers.used_bytes() < buffers.capacity_bytes() / 2 {
            let fitted = buffers.fitted();
            self.recycle(buffers);
            fitted
        } else {
            buffers
        };
        let charge = buffers.capacity_bytes() + BATCH_OVERHEAD_BYTES;
        let Some(permit) = &mut self.permit else { return buffers };
        if let Some(surplus) = permit.num_permits().checked_sub(charge) {
            drop(permit.split(surplus));
            self.pool.notify_if_eased();
        } else {
            // A record is larger than a batch. It is charged only as far as memory is free: waiting here would be waiting for itself.
            let wanted = u32::try_from(charge - permit.num_permits()).unwrap_or(u32::MAX);
            let available = u32::try_from(self.pool.free.available_permits()).unwrap_or(u32::MAX);
            if let Ok(more) = Arc::clone(&self.pool.free).try_acquire_many_owned(wanted.min(available)) {
                permit.merge(more);
            }
        }
        buffers
    }

    /// Takes over the memory of `others`, one by one, until it holds `bytes` or there are no others.
    pub(super) fn cover(&mut self, bytes: usize, mut others: impl Iterator<Item = Self>) {
        let Some(permit) = &mut self.permit else { return };
        while permit.num_permits() < bytes
            && let Some(mut other) = others.next()
        {
            if let Some(more) = other.permit.take() {
                permit.merge(more);
            }
        }
    }

    /// Keeps buffers for a later batch, unless they are much smaller or larger than a batch.
    pub(super) fn recycle(&self, mut buffers: Buffers) {
        if buffers.capacity_bytes() < self.pool.batch_bytes / 2 || 2 * self.pool.batch_bytes < buffers.capacity_bytes() {
            return;
        }
        buffers.clear();
        let mut spare = self.pool.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < self.pool.spare_max {
            spare.push(buffers);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.permit = None;
        self.pool.notify_if_eased();
    }
}
