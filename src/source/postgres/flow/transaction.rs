//! The current transaction: numbers its events, and keeps its newest record open until the next event or the commit.

use crate::batch::BatchWriter;
use crate::event::{Event, Operation, Position, RowError, Timestamp, Transaction as EventTransaction};
use crate::format::{Encoder, Format};
use crate::source::postgres::pgoutput::{Begin, EPOCH_MICROSECONDS};
use crate::source::postgres::row::WireRow;
use crate::source::postgres::token::{Inside, Lsn, Token};
use std::io::Write as _;

/// Distance between the ordinals of two rows. The insert of a key change takes the ordinal after its delete.
const ORDINAL_STEP: u64 = 10;
/// `timeline(8)-commit(16)-1-ordinal(16)`.
const POSITION_LENGTH: usize = 44;
const ORDINAL_LENGTH: usize = 16;

#[derive(Debug)]
pub(super) struct Transaction {
    commit: Lsn,
    committed_at: Timestamp,
    id: String,
    position: [u8; POSITION_LENGTH],
    /// Ordinal of the current row.
    ordinal: u64,
    /// Index of the next published event.
    index: u64,
    /// An earlier connection handed over the events before this ordinal.
    floor: u64,
    /// Whether an earlier connection handed over the whole transaction.
    is_known: bool,
    /// Ordinal and index of the newest event, while its record is open.
    open: Option<(u64, u64)>,
}

/// An event without its position.
#[derive(Clone, Copy)]
pub(super) struct Draft<'a> {
    pub(super) operation: Operation,
    /// Added to the row's ordinal: 1 for the insert of a key change, otherwise 0.
    pub(super) offset: u64,
    pub(super) key: Option<WireRow<'a>>,
    pub(super) before: Option<WireRow<'a>>,
    pub(super) after: Option<WireRow<'a>>,
    pub(super) counterpart: Option<WireRow<'a>>,
}

impl Draft<'_> {
    pub(super) const fn of(operation: Operation) -> Self {
        Self { operation, offset: 0, key: None, before: None, after: None, counterpart: None }
    }
}

impl Transaction {
    /// A transaction that begins. Everything before `from` has been handed over.
    pub(super) fn new(begin: &Begin, timeline: u32, from: &Token) -> Self {
        let commit = Lsn(begin.commit_lsn);
        let mut position = [b'0'; POSITION_LENGTH];
        let _length_fits = write!(&mut position[..], "{timeline:08X}-{:016X}-1-", commit.0);
        let here = from.inside.filter(|inside| inside.commit == commit);
        let earlier = from.inside.is_some_and(|inside| commit < inside.commit);
        Self {
            commit,
            committed_at: Timestamp(begin.committed_at.saturating_add(EPOCH_MICROSECONDS)),
            id: begin.xid.to_string(),
            position,
            ordinal: 0,
            index: here.map_or(0, |inside| inside.index),
            floor: here.map_or(0, |inside| inside.ordinal),
            // Compared by order, never for equality: a commit that begins exactly at the boundary is new.
            is_known: commit < from.boundary || earlier,
            open: None,
        }
    }

    /// Where to resume inside the transaction after its last closed record; `None` at its start.
    pub(super) fn resume_at(&self) -> Option<Inside> {
        if self.is_known {
            return None;
        }
        let (ordinal, index) = self.open.unwrap_or((self.ordinal.max(self.floor), self.index));
        (ordinal != 0).then_some(Inside { commit: self.commit, ordinal, index })
    }

    pub(super) const fn commit(&self) -> Lsn {
        self.commit
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn is_admitted_by(&self, start: &Token) -> bool {
        start.admits(self.commit, self.ordinal)
    }

    pub(super) const fn next_row(&mut self) {
        self.ordinal += ORDINAL_STEP;
    }

    /// The position of the current row's event, for an error.
    pub(super) fn position(&self, offset: u64) -> String {
        let mut position = self.position;
        put_ordinal(&mut position, self.ordinal + offset);
        String::from_utf8_lossy(&position).into_owned()
    }

    /// Writes an event, unless it was handed over earlier. Its record stays open; returns whether the previous record was closed.
    pub(super) fn publish(
        &mut self,
        draft: &Draft<'_>,
        encoder: &Encoder,
        format: &Format,
        out: &mut BatchWriter,
    ) -> Result<bool, RowError> {
        let ordinal = self.ordinal + draft.offset;
        if self.is_known || ordinal < self.floor {
            return Ok(false);
        }
        let closes = self.open.take().is_some();
        if closes {
            format.close(out, false);
        }
        put_ordinal(&mut self.position, ordinal);
        let event = Event {
            operation: draft.operation,
            position: Position::new(&self.position),
            timestamp: self.committed_at,
            transaction: Some(EventTransaction { id: &self.id, index: self.index }),
            key: draft.key,
            before: draft.before,
            after: draft.after,
            counterpart: draft.counterpart,
        };
        encoder.write(&event, out)?;
        self.open = Some((ordinal, self.index));
        self.index += 1;
        Ok(closes)
    }
}

fn put_ordinal(position: &mut [u8; POSITION_LENGTH], mut ordinal: u64) {
    for digit in position[POSITION_LENGTH - ORDINAL_LENGTH..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(ordinal % 10).unwrap_or_default();
        ordinal /= 10;
    }
}
