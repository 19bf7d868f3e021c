//! A sealed batch: records in source order, and the progress that they bring.

use super::arena::Buffers;
use super::lease::Lease;
use super::record::Record;
use super::seq::Seq;
use crate::checkpoint::Progress;
use crate::event::Timestamp;

/// Records in source order, with the progress that they bring. Gives its memory back when dropped.
#[derive(Debug)]
pub struct Batch {
    pub(super) seq: Seq,
    pub(super) buffers: Buffers,
    pub(super) progress: Progress,
    pub(super) lease: Lease,
}

impl Batch {
    /// Its sequence number.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.seq
    }

    /// What is known once this batch and all before it are confirmed.
    #[must_use]
    pub const fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Number of records.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.buffers.entries.len()
    }

    /// Whether it has no records, only progress.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.buffers.entries.is_empty()
    }

    /// Bytes of all records.
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.buffers.arena.len()
    }

    /// The record at this index.
    ///
    /// # Panics
    /// Where the batch has no such record.
    #[must_use]
    pub fn record(&self, index: usize) -> Record<'_> {
        self.buffers.entries[index].view(&self.buffers.arena)
    }

    /// Its records, in order.
    #[must_use]
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.buffers.entries.iter().map(|entry| entry.view(&self.buffers.arena))
    }

    /// Commit time of the oldest live record.
    #[must_use]
    pub fn oldest_live(&self) -> Option<Timestamp> {
        self.buffers.entries.iter().find(|entry| !entry.operation.is_prefeed()).map(|entry| entry.timestamp)
    }

    /// Commit time of the newest live record.
    #[must_use]
    pub fn newest_live(&self) -> Option<Timestamp> {
        self.buffers.entries.iter().rfind(|entry| !entry.operation.is_prefeed()).map(|entry| entry.timestamp)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.lease.recycle(std::mem::take(&mut self.buffers));
    }
}
