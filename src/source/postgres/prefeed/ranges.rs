//! The SQL that reads a key range of a table.

use super::order::{self, Side};
use super::row::Values;
use super::table::Table;
use crate::checkpoint::ScanPosition;
use crate::event::RowError;
use crate::source::postgres::quote::literal;
use crate::source::{Key, KeyRange, KeyRanges};

/// The remaining ranges; `None` when the stored position does not fit the table's key, or cannot be read.
pub(super) fn resume(table: &Table, position: &ScanPosition) -> Option<KeyRanges> {
    let has_all_columns = |key: &Option<Key>| key.as_ref().is_none_or(|key| key.len() == table.key.len());
    KeyRanges::resume(position, &table.fingerprint, |range| has_all_columns(&range.after) && has_all_columns(&range.until))
}

/// The key of a row.
pub(super) fn key_of(table: &Table, body: &[u8]) -> Result<Key, RowError> {
    let mut values = Values::of(body)?;
    let mut key = vec![String::new(); table.key.len()];
    for index in 0..table.columns.len() {
        let value = values.next_value()?;
        for (part, _) in key.iter_mut().zip(&table.key).filter(|(_, column)| column.index == index) {
            let value = value.ok_or(RowError::Malformed { what: "a key that is not null" })?;
            *part = std::str::from_utf8(value).map_or_else(|_| escaped(value), str::to_owned);
        }
    }
    Ok(key)
}

/// Marks a key value that is stored as hexadecimal digits. No text of the server contains this character.
const HEX_MARK: char = '\0';

/// The stored form of a key value that is not UTF-8 (in a `SQL_ASCII` database).
fn escaped(value: &[u8]) -> String {
    value.iter().fold(String::from(HEX_MARK), |text, byte| text + &format!("{byte:02x}"))
}

/// A key value as an SQL literal.
fn constant(value: &str) -> String {
    let Some(digits) = value.strip_prefix(HEX_MARK) else { return literal(value) };
    let bytes: Vec<_> = digits.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
    format!(" E'\\x{}'", bytes.join("\\x"))
}

/// The statement that reads a range in key order.
pub(super) fn select(table: &Table, range: &KeyRange) -> String {
    format!("SELECT {} FROM {}{} ORDER BY {}", table.columns.join(", "), table.from, restriction(table, range), order_by(table))
}

/// The statement that finds keys which split the table into `parts` parts of about the same size, from a sample of `percent` percent.
pub(super) fn sample(table: &Table, percent: f64, parts: usize) -> String {
    let aliased: Vec<_> = table.key.iter().enumerate().map(|(index, column)| format!("{} AS k{index}", column.name)).collect();
    let keys: Vec<_> = (0..table.key.len()).map(|index| format!("s.k{index}")).collect();
    format!(
        "SELECT {keys} FROM (SELECT {aliased}, row_number() OVER (ORDER BY {names}) AS ordinal, count(*) OVER () AS total \
         FROM {from} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (0){filter}) s \
         WHERE s.ordinal % greatest(s.total / {parts}, 1) = 0 AND s.ordinal < s.total ORDER BY s.ordinal",
        keys = keys.join(", "),
        aliased = aliased.join(", "),
        names = order_by(table),
        from = table.from,
        filter = restriction(table, &KeyRange::default()),
    )
}

fn order_by(table: &Table) -> String {
    order::order_by(table.key.iter().map(|column| (column.name.as_str(), &column.order)))
}

fn restriction(table: &Table, range: &KeyRange) -> String {
    let condition = |side: Side, key: &Key| {
        order::condition(table.key.iter().zip(key).map(|(column, text)| (column.name.as_str(), &column.order, constant(text))), side)
    };
    let terms: Vec<_> = table
        .filter
        .iter()
        .map(|filter| format!("({filter})"))
        .chain(range.after.iter().map(|key| condition(Side::After, key)))
        .chain(range.until.iter().map(|key| condition(Side::Until, key)))
        .collect();
    if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) }
}
