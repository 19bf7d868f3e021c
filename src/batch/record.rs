//! One record of a batch: what the broker receives.

use crate::event::{FeedId, Head, Operation, Timestamp};

/// A record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'b> {
    /// Feed, operation and time.
    pub head: Head,
    /// `name/position`: the same on every replay.
    pub id: &'b [u8],
    /// The key, as the format writes it.
    pub key: &'b [u8],
    /// The other key, where this record is one of the two that a key change becomes.
    pub related_key: Option<&'b [u8]>,
    /// The event; `None` is a tombstone.
    pub body: Option<&'b [u8]>,
}

/// Locates one record in the arena, where its parts follow each other: id, key, related key, body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) timestamp: Timestamp,
    pub(super) feed: FeedId,
    pub(super) start: u32,
    pub(super) key_length: u32,
    pub(super) related_length: u32,
    pub(super) body_length: u32,
    pub(super) id_length: u16,
    pub(super) operation: Operation,
    pub(super) tombstone: bool,
}

const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    /// Where the body begins in the arena.
    pub(super) const fn body_start(&self) -> usize {
        self.start as usize + self.id_length as usize + self.key_length as usize + self.related_length as usize
    }

    pub(super) fn view<'b>(&self, arena: &'b [u8]) -> Record<'b> {
        let (id, rest) = arena[self.start as usize..].split_at(usize::from(self.id_length));
        let (key, rest) = rest.split_at(self.key_length as usize);
        let (related, rest) = rest.split_at(self.related_length as usize);
        Record {
            head: Head { feed: self.feed, operation: self.operation, timestamp: self.timestamp },
            id,
            key,
            related_key: (!related.is_empty()).then_some(related),
            body: (!self.tombstone).then(|| &rest[..self.body_length as usize]),
        }
    }
}
