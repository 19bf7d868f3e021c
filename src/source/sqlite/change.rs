//! Reads one row of the change log as a change, for the emitter.

use crate::event::{Operation, RowError, Timestamp};
use crate::source::emitter::{Admitted, Definition, Emitter};
use crate::source::prefix::position_prefix;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::layout::Layout;
use crate::source::sqlite::log_row::Heading;
use crate::source::sqlite::operation;
use crate::source::sqlite::row::{KeyError, RowView};
use crate::source::sqlite::token::LogPosition;

/// One row of the log, with the version of its table.
pub(super) struct Change<'a> {
    pub(super) layout: &'a Layout,
    pub(super) definition: &'a Definition,
    pub(super) epoch: u32,
    pub(super) heading: Heading,
}

impl Change<'_> {
    /// Gives the row's changes to `out`: one, or two where a row was replaced by one with another key.
    pub(super) fn write(&self, values: &[u8], out: &mut Emitter<'_, LogPosition>) -> Result<(), Error> {
        let holds = operation::holds(self.heading.op)
            .ok_or_else(|| Error::Malformed { what: format!("row {} of the change log", self.heading.seq) })?;
        let (old, new) = RowView::split(&self.layout.columns, values, holds.old_key).map_err(|source| self.failed(source))?;
        if holds.old_key {
            self.check_key(&old)?;
        }
        if holds.values {
            self.check_key(&new)?;
        }
        out.go_to(&position_prefix(self.epoch, self.heading.seq.cast_unsigned()), Timestamp(self.heading.at));
        match self.heading.op {
            operation::INSERT => self.change(0, Operation::Insert, out, |row| row.insert(new)),
            operation::DELETE => self.change(0, Operation::Delete, out, |row| row.delete(old, None)),
            _ if old.same_key(&new).map_err(|source| self.failed(source))? => {
                self.change(0, Operation::Update, out, |row| row.update(None, new))
            }
            // The keys are equal to the database, as `A` and `a` may be, and are not the same bytes: a delete and an insert.
            operation::REPLACE => {
                self.change(0, Operation::Delete, out, |row| row.delete(old, None))?;
                self.change(1, Operation::Insert, out, |row| row.insert(new))
            }
            _ => self.change(0, Operation::Update, out, |row| row.change_key(old, None, new)),
        }
    }

    fn check_key(&self, row: &RowView<'_>) -> Result<(), Error> {
        row.check_key().map_err(|error| match error {
            KeyError::Null => Error::NullKey { table: self.layout.table.clone() },
            KeyError::Row(source) => self.failed(source),
        })
    }

    fn change(
        &self,
        ordinal: u64,
        operation: Operation,
        out: &mut Emitter<'_, LogPosition>,
        write: impl FnOnce(Admitted<'_, LogPosition>) -> Result<(), RowError>,
    ) -> Result<(), Error> {
        let admitted = out.admit(self.definition, operation, self.heading.seq, ordinal);
        admitted.map_or(Ok(()), write).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: RowError) -> Error {
        Error::Row { table: self.layout.table.clone(), source }
    }
}
