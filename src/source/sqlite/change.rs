//! Turns one row of the change log into events.

use crate::batch::BatchWriter;
use crate::event::{Event, Operation, Timestamp};
use crate::feed::Feed;
use crate::format::Encoder;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::layout::Layout;
use crate::source::sqlite::log_row::Heading;
use crate::source::sqlite::operation;
use crate::source::sqlite::row::{KeyError, RowView};
use crate::source::sqlite::token;

/// What a call of `fill` did.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) counts: [u64; Operation::ALL.len()],
    pub(super) filtered: u64,
    /// Whether the position moved.
    pub(super) moved: bool,
}

/// One row of the log on its way into a batch.
pub(super) struct Change<'a> {
    pub(super) feed: &'a Feed,
    pub(super) layout: &'a Layout,
    pub(super) encoder: &'a Encoder,
    pub(super) epoch: u32,
    /// Whether the row lies at or behind the feed's start.
    pub(super) started: bool,
    pub(super) heading: Heading,
}

/// The rows of one event.
#[derive(Clone, Copy)]
struct Rows<'r> {
    key: RowView<'r>,
    after: Option<RowView<'r>>,
    /// The row with the other key, where the key changed.
    counterpart: Option<RowView<'r>>,
}

impl Change<'_> {
    /// Writes the row's events: one, or two where its key changed.
    pub(super) fn write(&self, values: &[u8], out: &mut BatchWriter, tally: &mut Tally) -> Result<(), Error> {
        let failed = |source| Error::Row { table: self.layout.table.clone(), source };
        let holds = operation::holds(self.heading.op)
            .ok_or_else(|| Error::Malformed { what: format!("row {} of the change log", self.heading.seq) })?;
        let (old, new) = RowView::split(&self.layout.columns, values, holds.old_key).map_err(failed)?;
        if holds.old_key {
            self.check_key(&old)?;
        }
        if holds.values {
            self.check_key(&new)?;
        }
        let inserted = Rows { key: new, after: Some(new), counterpart: None };
        let deleted = Rows { key: old, after: None, counterpart: None };
        match self.heading.op {
            operation::INSERT => self.admitted(0, Operation::Insert, inserted, out, tally),
            operation::DELETE => self.admitted(0, Operation::Delete, deleted, out, tally),
            _ if old.same_key(&new).map_err(failed)? => self.admitted(0, Operation::Update, inserted, out, tally),
            // The keys are equal to the database, as `A` and `a` may be, and are not the same bytes: a delete and an insert.
            operation::REPLACE => {
                self.admitted(0, Operation::Delete, deleted, out, tally)?;
                self.admitted(1, Operation::Insert, inserted, out, tally)
            }
            _ => self.changed_key(old, new, out, tally),
        }
    }

    fn check_key(&self, row: &RowView<'_>) -> Result<(), Error> {
        row.check_key().map_err(|error| match error {
            KeyError::Null => Error::NullKey { table: self.layout.table.clone() },
            KeyError::Row(source) => Error::Row { table: self.layout.table.clone(), source },
        })
    }

    /// Writes an event if the feed's mask admits its operation.
    fn admitted(&self, index: u8, operation: Operation, rows: Rows<'_>, out: &mut BatchWriter, tally: &mut Tally) -> Result<(), Error> {
        tally.counts[operation as usize] += 1;
        if !self.feed.operations.admits(operation) {
            tally.filtered += 1;
            return Ok(());
        }
        self.event(index, operation, rows, out)
    }

    /// Writes an update that changes the key, as a delete and an insert. The mask is asked about the update.
    fn changed_key(&self, old: RowView<'_>, new: RowView<'_>, out: &mut BatchWriter, tally: &mut Tally) -> Result<(), Error> {
        tally.counts[Operation::Update as usize] += 1;
        if !self.feed.operations.admits(Operation::Update) {
            tally.filtered += 1;
            return Ok(());
        }
        self.event(0, Operation::Delete, Rows { key: old, after: None, counterpart: Some(new) }, out)?;
        self.event(1, Operation::Insert, Rows { key: new, after: Some(new), counterpart: Some(old) }, out)
    }

    fn event(&self, index: u8, operation: Operation, rows: Rows<'_>, out: &mut BatchWriter) -> Result<(), Error> {
        if !self.started {
            return Ok(());
        }
        let event = Event {
            operation,
            position: token::live(self.epoch, self.heading.seq, index),
            timestamp: Timestamp(self.heading.at),
            transaction: None,
            key: Some(rows.key),
            before: None,
            after: rows.after,
            counterpart: rows.counterpart,
        };
        self.encoder.write(&event, out).map_err(|source| Error::Row { table: self.layout.table.clone(), source })
    }
}
