//! The SQL that reads a key range of a table.

use super::field::Field;
use super::order::{self, Side, key_value, order_by};
use super::row::Values;
use super::table::Table;
use crate::checkpoint::ScanPosition;
use crate::event::RowError;
use crate::source::{Key, KeyRange, KeyRanges};

/// The remaining ranges; `None` when the stored position does not fit the table's key, or cannot be read.
pub(super) fn resume(table: &Table, position: &ScanPosition) -> Option<KeyRanges> {
    KeyRanges::resume(position, &table.fingerprint, |range| restriction(table, range).is_some())
}

/// The key of a row.
pub(super) fn key_of(table: &Table, fields: &[Field], body: &[u8]) -> Result<Key, RowError> {
    let mut values = Values::of(fields, body)?;
    let mut key = vec![String::new(); table.key.len()];
    let last = table.key.iter().map(|column| column.index).max().unwrap_or_default();
    for index in 0..=last {
        let value = values.next_value()?;
        for (part, _) in key.iter_mut().zip(&table.key).filter(|(_, column)| column.index == index) {
            *part = key_value(value)?;
        }
    }
    Ok(key)
}

/// The statement that reads a range in key order.
pub(super) fn select(table: &Table, range: &KeyRange) -> String {
    let filter = restriction(table, range).unwrap_or_default();
    format!("SELECT {} FROM {}{filter} ORDER BY {}", table.selected.join(", "), table.from, order_by(&table.key))
}

/// The `WHERE` clause of a range, empty for the whole table; `None` if a key is not one of this table.
fn restriction(table: &Table, range: &KeyRange) -> Option<String> {
    let mut terms = Vec::new();
    for (side, key) in [(Side::After, &range.after), (Side::Until, &range.until)] {
        if let Some(key) = key {
            terms.push(order::condition(&table.key, key, side)?);
        }
    }
    Some(if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) })
}
