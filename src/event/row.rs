//! Rows as their source shows them: borrowed views of the wire, visited cell by cell, never a tree of values.

use crate::event::{FeedId, Operation, Timestamp};
use std::fmt;
use std::sync::Arc;

/// One value of a row, borrowed from the wire. What it looks like in an event is the format's decision.
#[derive(Clone, Copy)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// The log left the value out because it did not change: unknown here, and not null. An event names the column.
    Unchanged,
    /// The row does not carry this column at all; an event says nothing of it.
    Absent,
    /// A truth value.
    Boolean(bool),
    /// An integer's decimal digits, with a sign where negative.
    Integer(&'a str),
    /// A floating point number as its source prints it: shortest digits, or `NaN`, `Infinity`, `-Infinity`.
    Float(&'a str),
    /// An exact number that a floating point number cannot hold; `NaN` and `Infinity` included.
    Decimal(&'a str),
    /// Text, to be escaped.
    Text(&'a str),
    /// A complete JSON string literal with its quotes: text that its source has escaped already.
    Quoted(&'a str),
    /// Bytes of a binary column.
    Bytes(Bytes<'a>),
    /// Bytes where a reader expects text: a blob in a text column, or text that is not UTF-8.
    MisplacedBytes(Bytes<'a>),
    /// A complete JSON value, white space as written.
    Json(&'a str),
    /// `YYYY-MM-DD`, or the source's text for dates outside the years 1 to 9999.
    Date(&'a str),
    /// `HH:MM:SS[.fraction]`.
    Time(&'a str),
    /// `YYYY-MM-DD HH:MM:SS[.fraction]`, or the source's text for infinity and years outside 1 to 9999.
    Timestamp(&'a str),
    /// As `Timestamp`, in UTC, with the suffix `+00`.
    TimestampUtc(&'a str),
    /// ISO 8601 duration.
    Interval(&'a str),
    /// An array's elements, themselves cells.
    Array(&'a dyn Elements),
}

/// Bytes as the wire carries them.
#[derive(Clone, Copy, Debug)]
pub enum Bytes<'a> {
    /// As they are.
    Raw(&'a [u8]),
    /// Two hexadecimal digits a byte, either case.
    Hex(&'a [u8]),
}

/// The elements of an array cell.
pub trait Elements {
    /// Calls `visit` for each element in order; stops at its first error.
    ///
    /// # Errors
    /// What `visit` returns, or that the source's text is not an array.
    fn visit(&self, visit: &mut dyn FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError>;
}

/// A row: its cells in table order, as many as its relation has columns.
pub trait Row {
    /// Calls `visit` for each cell in table order; stops at its first error.
    ///
    /// # Errors
    /// What `visit` returns, or that the source's bytes are not a row of the relation.
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError>;
}

/// The row of an event that has none: one that speaks of a whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRow;

impl Row for NoRow {
    fn cells(&self, _visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        Ok(())
    }
}

/// Why a row could not be written down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The bytes are not what the relation announces; `what` names the part.
    #[error("row is malformed: {what}")]
    Malformed {
        /// Which part of the row, and what was expected there.
        what: &'static str,
    },
    /// The record would not fit a batch's 32-bit offsets.
    #[error("row is larger than 4 GiB")]
    TooLarge,
}

/// A table as the log describes it now. A format is told of each before its first row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The feed to which the table belongs.
    pub feed: FeedId,
    /// Schema name; `main` for SQLite.
    pub schema: Arc<str>,
    /// Table name.
    pub table: Arc<str>,
    /// Columns in table order.
    pub columns: Vec<Column>,
}

/// One column of a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name.
    pub name: Arc<str>,
    /// Whether it is part of the key that events carry.
    pub key: bool,
}

/// A place in the log of one source: printable, of fixed width there, and sorting as bytes in log order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    bytes: [u8; Self::LENGTH_MAX],
    length: u8,
}

impl Position {
    /// The longest position, in bytes.
    pub const LENGTH_MAX: usize = 62;

    /// The position that these ASCII bytes spell.
    ///
    /// # Panics
    /// When there are more than [`Self::LENGTH_MAX`] of them: a source's layout is fixed when it is written.
    #[must_use]
    pub fn new(ascii: &[u8]) -> Self {
        let mut bytes = [0; Self::LENGTH_MAX];
        bytes[..ascii.len()].copy_from_slice(ascii);
        Self { bytes, length: u8::try_from(ascii.len()).expect("62 fits") }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

/// An event's place in its source transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// The source's name of the transaction.
    pub id: &'a str,
    /// Counts from 0 over the events of the transaction that this pipeline publishes.
    pub index: u64,
}

/// One change, ready to be written down. `R` is the source's row.
#[derive(Clone, Copy)]
pub struct Event<'a, R> {
    /// What happened.
    pub operation: Operation,
    /// Where in the log.
    pub position: Position,
    /// Record time, see [`crate::event::Head::timestamp`].
    pub timestamp: Timestamp,
    /// The transaction, where the log shows transactions. Such a record stays open until
    /// [`crate::format::Format::close`] says whether it was the last.
    pub transaction: Option<Transaction<'a>>,
    /// The row that carries the key: every key column must be present in it. `None` for table-wide operations.
    pub key: Option<R>,
    /// The old row, where the log carries more of it than the key.
    pub before: Option<R>,
    /// The new row; `None` for deletes and table-wide operations.
    pub after: Option<R>,
    /// The row with the other key, where this event is half of a key change: the new one on a delete, the old one on an insert.
    pub counterpart: Option<R>,
}
