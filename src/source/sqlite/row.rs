//! Maps a row of SQLite to an event's cells, by storage class. The log and the prefeed share the mapping.

use crate::event::{Bytes, Cell, Fields, Row, RowError};
use crate::source::sqlite::layout::LayoutColumn;
use crate::source::sqlite::page::{StoredValue, take_value};

/// A row, borrowed from its page.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowView<'p> {
    columns: &'p [LayoutColumn],
    /// The values of the key columns only, or of all columns.
    values: &'p [u8],
    keys_only: bool,
}

/// Why a row has no usable key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyError {
    /// A key column holds NULL.
    Null,
    /// The page cannot be decoded.
    Row(RowError),
}

impl<'p> RowView<'p> {
    /// A row of key columns only, in table order. The others are absent.
    pub(super) const fn key(columns: &'p [LayoutColumn], values: &'p [u8]) -> Self {
        Self { columns, values, keys_only: true }
    }

    /// A whole row.
    pub(super) const fn whole(columns: &'p [LayoutColumn], values: &'p [u8]) -> Self {
        Self { columns, values, keys_only: false }
    }

    /// Splits the values of a log row into old key and row. The old key comes first.
    pub(super) fn split(columns: &'p [LayoutColumn], values: &'p [u8], old_key: bool) -> Result<(Self, Self), RowError> {
        let mut rest = values;
        if old_key {
            for _ in columns.iter().filter(|column| column.key) {
                take_value(&mut rest)?;
            }
        }
        let keys = &values[..values.len() - rest.len()];
        Ok((Self::key(columns, keys), Self::whole(columns, rest)))
    }

    /// Calls `visit` with each value of the key, and with its encoding in the page.
    fn keys(&self, mut visit: impl FnMut(StoredValue<'p>, &'p [u8])) -> Result<(), RowError> {
        let mut rest = self.values;
        for column in self.columns.iter().filter(|column| column.key || !self.keys_only) {
            let before = rest;
            let value = take_value(&mut rest)?;
            if column.key {
                visit(value, &before[..before.len() - rest.len()]);
            }
        }
        Ok(())
    }

    /// Copies the key's values into `key`, encoded as in the page.
    pub(super) fn copy_key(&self, key: &mut Vec<u8>) -> Result<(), RowError> {
        key.clear();
        self.keys(|_, bytes| key.extend_from_slice(bytes))
    }

    /// Checks that no key column holds NULL, which SQLite allows in a primary key that is not declared NOT NULL.
    pub(super) fn check_key(&self) -> Result<(), KeyError> {
        let mut null = false;
        self.keys(|value, _| null |= value == StoredValue::Null).map_err(KeyError::Row)?;
        if null { Err(KeyError::Null) } else { Ok(()) }
    }

    /// Whether both rows' keys are the same bytes. 1 and 1.0 are not the same, and neither are their keys in an event.
    pub(super) fn same_key(&self, other: &RowView<'_>) -> Result<bool, RowError> {
        let mut ours: [Option<&[u8]>; 8] = [None; 8];
        let mut count = 0;
        self.keys(|_, bytes| {
            if let Some(slot) = ours.get_mut(count) {
                *slot = Some(bytes);
            }
            count += 1;
        })?;
        if count <= ours.len() {
            let (mut index, mut same) = (0, true);
            other.keys(|_, bytes| {
                same &= ours.get(index).copied().flatten() == Some(bytes);
                index += 1;
            })?;
            return Ok(same && index == count);
        }
        // A key of more columns is copied to be compared.
        let (mut left, mut right) = (Vec::new(), Vec::new());
        self.keys(|_, bytes| left.extend_from_slice(bytes))?;
        other.keys(|_, bytes| right.extend_from_slice(bytes))?;
        Ok(left == right)
    }
}

impl Row for RowView<'_> {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        let mut rest = self.values;
        for column in self.columns {
            if self.keys_only && !column.key {
                visit(Cell::Absent)?;
                continue;
            }
            match take_value(&mut rest)? {
                value if column.key => visit_key(value, column.blob, visit)?,
                StoredValue::Null => visit(Cell::Null)?,
                StoredValue::Integer(number) => visit(Cell::Signed(number))?,
                StoredValue::Real(number) => visit(Cell::Double(number))?,
                StoredValue::Text(text) => match std::str::from_utf8(text) {
                    Ok(text) => visit(Cell::Text(text))?,
                    Err(_) => visit(Cell::MisplacedBytes(Bytes::Raw(text)))?,
                },
                StoredValue::Blob(blob) if column.blob => visit(Cell::Bytes(Bytes::Raw(blob)))?,
                StoredValue::Blob(blob) => visit(Cell::MisplacedBytes(Bytes::Raw(blob)))?,
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(RowError::Malformed { what: "more values than columns" }) }
    }
}

/// Visits a value of a key. No two values that SQLite distinguishes may look alike in an event, so a value of a type that is unusual in
/// its column names its type.
fn visit_key(value: StoredValue<'_>, is_for_blobs: bool, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
    match value {
        StoredValue::Null => visit(Cell::Null),
        StoredValue::Integer(number) => visit(Cell::Signed(number)),
        StoredValue::Real(number) if number.is_infinite() => visit(Cell::Object(&Tagged("real", Cell::Double(number)))),
        StoredValue::Real(number) => visit(Cell::Double(number)),
        StoredValue::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if is_for_blobs => visit(Cell::Object(&Tagged("text", Cell::Text(text)))),
            Ok(text) => visit(Cell::Text(text)),
            Err(_) => visit(Cell::Object(&Tagged("text_base64", Cell::Bytes(Bytes::Raw(bytes))))),
        },
        StoredValue::Blob(blob) if is_for_blobs => visit(Cell::Bytes(Bytes::Raw(blob))),
        StoredValue::Blob(blob) => visit(Cell::MisplacedBytes(Bytes::Raw(blob))),
    }
}

/// A value with the name of its type: an object of one field.
struct Tagged<'v>(&'static str, Cell<'v>);

impl Fields for Tagged<'_> {
    fn visit(&self, visit: &mut dyn FnMut(&str, Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        visit(self.0, self.1)
    }
}
