//! Gives the rows of an event to the emitter.

use super::definitions::{Definitions, Published, Table};
use super::transaction::{Stage, Transaction};
use super::{Applied, Flow};
use crate::event::{Operation, RowError};
use crate::source::Emitter;
use crate::source::mysql::binlog::{Change, RowChange, Rows};
use crate::source::mysql::error::Error;
use crate::source::mysql::kind::Space;
use crate::source::mysql::row::LogRow;
use crate::source::mysql::token::Token;

impl Flow {
    /// Applies the rows of an event that were not read yet, as far as the batch takes them.
    pub(super) fn rows(&mut self, rows: &Rows<'_>, out: &mut Emitter<'_, Token>) -> Result<Applied, Error> {
        let Self { definitions, transaction, rows_read, space, unpacked, .. } = self;
        let transaction = transaction.as_mut().ok_or(Error::Protocol { what: "a transaction around rows" })?;
        let table = definitions.get(rows.table).ok_or(Error::Protocol { what: "a definition before its rows" })?;
        let operation = match rows.change {
            Change::Insert => Operation::Insert,
            Change::Update => Operation::Update,
            Change::Delete => Operation::Delete,
        };
        let Some(columns) = &table.columns else {
            // No feed needs them, and how many they are cannot be told.
            out.skip(operation);
            transaction.next_row();
            return Ok(Applied::Whole);
        };
        let unpacked = rows.rows.unpack(unpacked)?;
        let mut changes = match rows.changes(columns, unpacked) {
            Ok(changes) => changes,
            Err(_) if table.published.is_none() => return Ok(Applied::Whole),
            Err(malformed) => return Err(malformed.into()),
        };
        for _ in 0..*rows_read {
            changes.next_row()?;
        }
        while let Some(change) = changes.next_row()? {
            if out.is_full() {
                return Ok(Applied::Part);
            }
            match &table.published {
                None => out.skip(operation),
                // They are given once the transaction is committed, or never.
                Some(_) if matches!(transaction.stage, Stage::Xa | Stage::CutOff) => {}
                Some(published) => {
                    let row = Row { definitions: &*definitions, table, published, operation, space };
                    row.give(&change, transaction, out)?;
                }
            }
            transaction.next_row();
            *rows_read += 1;
        }
        *rows_read = 0;
        Ok(Applied::Whole)
    }
}

/// A row of a feed's table.
struct Row<'a> {
    definitions: &'a Definitions,
    table: &'a Table,
    published: &'a Published,
    operation: Operation,
    space: &'a Space,
}

impl Row<'_> {
    /// Gives it to the emitter.
    fn give(&self, change: &RowChange<'_>, transaction: &mut Transaction, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        let ordinal = transaction.row().ordinal;
        let (definition, shapes) = match self.published {
            Published::Readable { definition, shapes } => (definition, shapes),
            Published::Unreadable(feed) => {
                let position = format!("{:?}", out.position(ordinal));
                return Err(self.definitions.problem(*feed, self.table.columns.as_deref().unwrap_or_default(), &position));
            }
        };
        transaction.is_published = true;
        let Some(mut admitted) = out.admit(definition, self.operation, transaction.row(), ordinal) else { return Ok(()) };
        let name = || self.definitions.feed(definition.feed()).name.to_string();
        let old = change.old.map(|old| LogRow::whole(shapes, old, self.space));
        let new = change.new.map(|new| match change.old {
            Some(old) => LogRow::changed(shapes, old, new, self.space),
            None => LogRow::whole(shapes, new, self.space),
        });
        // A new row must be complete, an old one must say which row it was.
        let missing =
            old.and_then(|old| old.first_missing(true)).or_else(|| new.filter(|_| old.is_none()).and_then(|new| new.first_missing(false)));
        if let Some(missing) = missing {
            let column = self.table.columns.as_ref().and_then(|columns| columns.get(missing)).and_then(|column| column.name.clone());
            let what = format!(
                "a row of table {} at {:?} lacks column {:?} (binlog_row_image was not FULL)",
                name(),
                admitted.position(),
                column.unwrap_or_default()
            );
            return Err(Error::LogLost { what });
        }
        let before = old.filter(LogRow::shows_more_than_key);
        let written = match (old, new) {
            (Some(old), Some(new)) if old.is_rekeyed_by(&new) => admitted.change_key(old, before, new),
            (Some(_), Some(new)) => admitted.update(before, new),
            (None, Some(new)) => admitted.insert(new),
            (Some(old), None) => admitted.delete(old, before),
            (None, None) => Err(RowError::Malformed { what: "a row" }),
        };
        written.map_err(|source| Error::Row { table: name(), position: format!("{:?}", out.position(ordinal)), source })
    }
}
