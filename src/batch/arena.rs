//! The buffers that hold a batch's records, reused for later batches.

use super::record::Entry;

/// The bytes of a batch's records, and where each record is.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) arena: Vec<u8>,
    pub(super) entries: Vec<Entry>,
}

impl Buffers {
    /// Allocated bytes, used or not.
    pub(super) const fn capacity_bytes(&self) -> usize {
        self.arena.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Bytes in use.
    pub(super) const fn used_bytes(&self) -> usize {
        self.arena.len() + self.entries.len() * size_of::<Entry>()
    }

    pub(super) fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }

    /// A copy without spare capacity.
    pub(super) fn fitted(&self) -> Self {
        Self { arena: self.arena.as_slice().to_vec(), entries: self.entries.as_slice().to_vec() }
    }
}
