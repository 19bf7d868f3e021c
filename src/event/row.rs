//! Rows and cells: borrowed views of the wire, visited cell by cell, never a tree of values.

/// One value of a row, borrowed from the wire, in the spelling that its source has: no source prints what a format would parse
/// again. The format decides how it is written.
#[derive(Clone, Copy)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// The log left the value out because it did not change. It is unknown, and not null. The event names the column.
    Unchanged,
    /// The row does not carry this column. The event does not mention it.
    Absent,
    /// True or false.
    Boolean(bool),
    /// An integer: decimal digits, with a sign if negative.
    Integer(&'a str),
    /// An integer of a source that has numbers.
    Signed(i64),
    /// An integer without a sign, of a source that has numbers.
    Unsigned(u64),
    /// A floating-point number as the source prints it: shortest digits, or `NaN`, `Infinity`, `-Infinity`.
    Float(&'a str),
    /// A floating-point number of a source that has numbers.
    Double(f64),
    /// An exact decimal number, which a floating-point number might not hold; or `NaN`, `Infinity`.
    Decimal(&'a str),
    /// Text, not escaped.
    Text(&'a str),
    /// The bytes of a binary column.
    Bytes(Bytes<'a>),
    /// Bytes in a column of text: a blob, or text that is not UTF-8.
    MisplacedBytes(Bytes<'a>),
    /// A complete JSON value, with its white space.
    Json(&'a str),
    /// `YYYY-MM-DD`. Outside the years 1 to 9999, as the source prints it.
    Date(&'a str),
    /// `HH:MM:SS[.fraction]`.
    Time(&'a str),
    /// `YYYY-MM-DD HH:MM:SS[.fraction]`. Infinity and years outside 1 to 9999 as the source prints them.
    Timestamp(&'a str),
    /// Like `Timestamp`, in UTC, with the suffix `+00`.
    TimestampUtc(&'a str),
    /// An ISO 8601 duration.
    Interval(&'a str),
    /// An array; its elements are cells.
    Array(&'a dyn Elements),
    /// A document; its fields are cells.
    Object(&'a dyn Fields),
}

/// Bytes as the wire carries them.
#[derive(Clone, Copy, Debug)]
pub enum Bytes<'a> {
    /// The bytes themselves.
    Raw(&'a [u8]),
    /// Two hexadecimal digits for each byte, in either case.
    Hex(&'a [u8]),
}

/// The elements of an array cell.
pub trait Elements {
    /// Calls `visit` for each element in order, and stops at the first error.
    ///
    /// # Errors
    /// The error of `visit`, or [`RowError::Malformed`] if the source's text is not an array.
    fn visit(&self, visit: &mut dyn FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError>;
}

/// The fields of an object cell.
pub trait Fields {
    /// Calls `visit` for each field in order, with its name, and stops at the first error.
    ///
    /// # Errors
    /// The error of `visit`, or [`RowError::Malformed`] if the source's bytes are not a document.
    fn visit(&self, visit: &mut dyn FnMut(&str, Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError>;
}

/// A row: one cell for each column of its relation, in table order.
pub trait Row {
    /// Calls `visit` for each cell in table order, and stops at the first error.
    ///
    /// # Errors
    /// The error of `visit`, or [`RowError::Malformed`] if the source's bytes are not a row of the relation.
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError>;
}

/// The row type of an event without rows: one that concerns a whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRow;

impl Row for NoRow {
    fn cells(&self, _visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        Ok(())
    }
}

/// Why a row could not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The bytes do not fit the relation.
    #[error("the row is malformed: {what}")]
    Malformed {
        /// Which part of the row is wrong, and what was expected.
        what: &'static str,
    },
    /// The record does not fit the 32-bit offsets of a batch.
    #[error("the row is larger than 4 GiB")]
    TooLarge,
}
