//! Rows and cells: borrowed views of the wire, visited cell by cell, never a tree of values.

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
