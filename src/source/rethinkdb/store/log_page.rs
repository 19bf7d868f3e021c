//! A page of the log, read at once and taken row by row.

use super::super::error::Error;
use super::file::next_seq;
use crate::event::{Operation, Timestamp};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use std::ops::Range;
use std::path::Path;

/// A page is complete when its documents have this many bytes. One large document may exceed it.
const BYTES: usize = 256 * 1024;
/// The most rows of a page.
const ROWS: usize = 2048;

/// Rows of the log. The memory of its texts serves the next page too.
#[derive(Debug, Default)]
pub(crate) struct LogPage {
    text: String,
    rows: Vec<Stored>,
    /// How many were taken.
    taken: usize,
    /// Where it ends.
    end: i64,
}

/// A row of a page, whose documents are in the page's text.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    seq: i64,
    tid: i64,
    operation: Operation,
    received_at: Timestamp,
    old: Option<Range<usize>>,
    new: Option<Range<usize>>,
    is_compensating: bool,
}

/// One change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogRow<'p> {
    pub(crate) seq: i64,
    /// The table's number in the store.
    pub(crate) tid: i64,
    pub(crate) operation: Operation,
    pub(crate) received_at: Timestamp,
    pub(crate) old: Option<&'p str>,
    pub(crate) new: Option<&'p str>,
    /// A scan found the difference: no changefeed told it.
    pub(crate) is_compensating: bool,
}

impl LogPage {
    /// Reads the rows from this number on, in place of those that it holds.
    pub(crate) fn read(&mut self, connection: &Connection, path: &Path, from: i64) -> Result<(), Error> {
        self.text.clear();
        self.text.shrink_to(4 * BYTES);
        self.rows.clear();
        self.taken = 0;
        let failed = |source| Error::store("read the log of", path, source);
        // Rows and the log's end are of one moment.
        let transaction = connection.unchecked_transaction().map_err(failed)?;
        self.end = next_seq(&transaction).map_err(failed)?;
        self.fill(&transaction, from).map_err(failed)
    }

    fn fill(&mut self, connection: &Connection, from: i64) -> rusqlite::Result<()> {
        let mut statement =
            connection.prepare_cached("SELECT seq, tid, op, at, old, new, compensating FROM log WHERE seq >= ?1 ORDER BY seq")?;
        let mut rows = statement.query([from])?;
        while self.text.len() < BYTES && self.rows.len() < ROWS {
            let Some(row) = rows.next()? else { return Ok(()) };
            let operation = match row.get::<_, u8>(2)? {
                0 => Operation::Insert,
                1 => Operation::Update,
                2 => Operation::Delete,
                other => return Err(rusqlite::Error::IntegralValueOutOfRange(2, other.into())),
            };
            let mut document = |index: usize| -> rusqlite::Result<Option<Range<usize>>> {
                match row.get_ref(index)? {
                    ValueRef::Null => Ok(None),
                    value => {
                        let start = self.text.len();
                        self.text.push_str(value.as_str()?);
                        Ok(Some(start..self.text.len()))
                    }
                }
            };
            let (old, new) = (document(4)?, document(5)?);
            let (seq, tid, received_at) = (row.get(0)?, row.get(1)?, Timestamp(row.get(3)?));
            self.rows.push(Stored { seq, tid, operation, received_at, old, new, is_compensating: row.get(6)? });
        }
        // The page is full: the log may go on behind it.
        self.end = self.rows.last().map_or(from, |row| row.seq + 1);
        Ok(())
    }

    /// The next row, without taking it.
    pub(crate) fn peek(&self) -> Option<LogRow<'_>> {
        let row = self.rows.get(self.taken)?;
        let document = |place: &Option<Range<usize>>| place.clone().map(|place| &self.text[place]);
        let (old, new) = (document(&row.old), document(&row.new));
        let Stored { seq, tid, operation, received_at, is_compensating, .. } = *row;
        Some(LogRow { seq, tid, operation, received_at, old, new, is_compensating })
    }

    /// Every row of the log before this number was read.
    pub(crate) const fn end(&self) -> i64 {
        self.end
    }

    /// Takes the row that [`Self::peek`] shows.
    pub(crate) const fn advance(&mut self) {
        self.taken += 1;
    }
}
