//! Rows that were added, changed or removed.
//!
//! Source: MySQL 9.7 `libs/mysql/binlog/event/rows_event.h` (`Rows_event`), `sql/log_event.cc` (`Rows_log_event::unpack`); MariaDB 11.4
//! `sql/log_event.h` (`Rows_log_event`).

use super::bytes::{Malformed, Reader, bit};
use super::compression::{Packed, Packing};
use super::storage::Storage;
use super::table_map::TableColumn;
use super::value::Value;

/// What happened to the rows of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They were added.
    Insert,
    /// They were changed: each comes twice, old and new.
    Update,
    /// They were removed.
    Delete,
}

/// Rows of one table that changed in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows<'a> {
    /// What happened to them.
    pub change: Change,
    /// The number of the table's definition.
    pub table: u64,
    /// How many columns the table has.
    columns: usize,
    /// Which columns the old rows carry, and the new ones; only one of them is used unless rows were changed.
    old_columns: &'a [u8],
    new_columns: &'a [u8],
    /// Whether new rows may carry changes to JSON values instead of the values.
    is_partial: bool,
    /// The rows.
    pub rows: Packed<'a>,
}

/// The version of an event: since version 2 there is room for more fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
    /// Version 2, with changes to JSON values.
    Partial,
}

/// The number of a table that stands for none: the event only ends a statement.
const NO_TABLE: u64 = 0xFF_FFFF;

/// Reads the event; `None` where it has no rows.
pub(super) fn rows(body: &[u8], change: Change, version: Version, packing: Packing) -> Result<Option<Rows<'_>>, Malformed> {
    let mut reader = Reader::new(body, "event: rows");
    let table = reader.little(6)?;
    reader.take(2)?;
    if version != Version::One {
        // The length counts itself.
        let more = reader.length(2)?.checked_sub(2).ok_or(reader.malformed())?;
        reader.take(more)?;
    }
    if table == NO_TABLE {
        return Ok(None);
    }
    let columns = reader.packed_length()?;
    let first = reader.take(columns.div_ceil(8))?;
    let new_columns = if change == Change::Update { reader.take(columns.div_ceil(8))? } else { first };
    let rows = Packed::new(reader.rest(), packing);
    let is_partial = version == Version::Partial;
    Ok(Some(Rows { change, table, columns, old_columns: first, new_columns, is_partial, rows }))
}

/// The state of one row: its old one and its new one, as far as the log carries them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowChange<'a> {
    /// `None` for a row that was added.
    pub old: Option<Image<'a>>,
    /// `None` for a row that was removed.
    pub new: Option<Image<'a>>,
}

/// A row in one state. Its bytes have been checked and are complete.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Image<'a> {
    columns: &'a [TableColumn],
    present: &'a [u8],
    nulls: &'a [u8],
    /// Which JSON columns carry changes, by their number among the JSON columns.
    partial: &'a [u8],
    values: &'a [u8],
}

impl<'a> Rows<'a> {
    /// The rows, of which [`Packed::unpack`] returned the bytes.
    ///
    /// # Errors
    /// Where the table has another number of columns, or the rows carry none.
    pub fn changes<'r>(&self, columns: &'r [TableColumn], unpacked: &'r [u8]) -> Result<RowChanges<'r>, Malformed>
    where
        'a: 'r,
    {
        if columns.len() != self.columns {
            return Err(Malformed("event: rows of another number of columns than their table has"));
        }
        if unpacked.is_empty() {
            // With binlog_row_image = MINIMAL, MySQL logs an INSERT of nothing but defaults into a table without a key as no bytes at all.
            return Err(Malformed("event: rows that carry no column"));
        }
        Ok(RowChanges { event: *self, columns, reader: Reader::new(unpacked, "event: rows") })
    }
}

/// The rows of an event, one after the other.
#[derive(Clone, Debug)]
pub struct RowChanges<'a> {
    event: Rows<'a>,
    columns: &'a [TableColumn],
    reader: Reader<'a>,
}

impl<'a> RowChanges<'a> {
    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// Where the bytes are no row of the table.
    pub fn next_row(&mut self) -> Result<Option<RowChange<'a>>, Malformed> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let Rows { change, old_columns, new_columns, is_partial, .. } = self.event;
        let before = self.reader.len();
        let old = if change == Change::Insert { None } else { Some(self.image(old_columns, false)?) };
        let new = if change == Change::Delete { None } else { Some(self.image(new_columns, is_partial)?) };
        // Rows of no bytes would never end.
        if self.reader.len() == before { Err(self.reader.malformed()) } else { Ok(Some(RowChange { old, new })) }
    }

    fn image(&mut self, present: &'a [u8], may_be_partial: bool) -> Result<Image<'a>, Malformed> {
        let Self { columns, reader, .. } = self;
        let mut partial: &[u8] = &[];
        // The lowest bit of the options says that a bit for each JSON column of the table follows.
        if may_be_partial && reader.packed()? & 1 == 1 {
            let count = columns.iter().filter(|column| is_json(column)).count();
            partial = reader.take(count.div_ceil(8))?;
        }
        let carried = (0..columns.len()).filter(|index| bit(present, *index)).count();
        let nulls = reader.take(carried.div_ceil(8))?;
        let mut image = Image { columns, present, nulls, partial, values: reader.rest() };
        // Finds the end of the row.
        let mut number = 0;
        for (index, column) in columns.iter().enumerate() {
            if bit(present, index) {
                if !bit(nulls, number) {
                    column.storage.take(reader)?;
                }
                number += 1;
            }
        }
        image.values = &image.values[..image.values.len() - reader.len()];
        Ok(image)
    }
}

impl<'a> Image<'a> {
    /// The values in table order.
    #[must_use]
    pub fn values(&self) -> Values<'a> {
        Values { image: *self, reader: Reader::new(self.values, "value"), index: 0, carried: 0, json: 0 }
    }

    /// The columns of the table.
    #[must_use]
    pub const fn columns(&self) -> &'a [TableColumn] {
        self.columns
    }

    /// Whether the row carries this column.
    #[must_use]
    pub fn carries(&self, column: usize) -> bool {
        bit(self.present, column)
    }

    /// Whether the row carries every column.
    #[must_use]
    pub fn is_full(&self) -> bool {
        (0..self.columns.len()).all(|index| bit(self.present, index))
    }
}

/// The values of a row, in table order.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    image: Image<'a>,
    reader: Reader<'a>,
    index: usize,
    /// How many columns that the row carries come before.
    carried: usize,
    /// How many JSON columns come before.
    json: usize,
}

impl<'a> Iterator for Values<'a> {
    type Item = Result<Value<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let column = self.image.columns.get(self.index)?;
        let index = self.index;
        self.index += 1;
        let json = self.json;
        self.json += usize::from(is_json(column));
        if !bit(self.image.present, index) {
            return Some(Ok(Value::Absent));
        }
        self.carried += 1;
        if bit(self.image.nulls, self.carried - 1) {
            return Some(Ok(Value::Null));
        }
        let value = column.storage.value(&mut self.reader);
        Some(match value {
            Ok(Value::Json(bytes)) if bit(self.image.partial, json) => Ok(Value::JsonDiff(bytes)),
            other => other,
        })
    }
}

const fn is_json(column: &TableColumn) -> bool {
    matches!(column.storage, Storage::Json { .. })
}
