//! Key ranges of a table that remain to be read, as the checkpoint stores them, and the SQL that reads them.
//!
//! feedline itself compares no keys: the database orders them with its own operators and collations, and is told where to continue.

use super::order::{self, Side};
use super::row::Values;
use super::table::Table;
use crate::checkpoint::ScanPosition;
use crate::event::RowError;
use crate::source::postgres::quote::literal;
use serde::{Deserialize, Serialize};

/// The values of a key as text, in the order of the table's key columns.
pub(super) type Key = Vec<String>;

/// Rows after `after`, up to and including `until`. Without `after` from the first row, without `until` to the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Key>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Key>,
}

/// The scan position in a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRanges {
    /// The fingerprint of the table's key.
    key: String,
    ranges: Vec<Range>,
}

/// The remaining ranges, as a checkpoint stores them.
pub(super) fn position<'r>(table: &Table, ranges: impl Iterator<Item = &'r Range>) -> ScanPosition {
    let stored = StoredRanges { key: table.fingerprint.clone(), ranges: ranges.cloned().collect() };
    ScanPosition(serde_json::to_string(&stored).expect("lists of strings").into())
}

/// The remaining ranges; `None` when the stored position does not fit the table's key, or cannot be read.
pub(super) fn resume(table: &Table, position: &ScanPosition) -> Option<Vec<Range>> {
    let stored: StoredRanges = serde_json::from_str(&position.0).ok()?;
    let has_all_columns = |key: &Option<Key>| key.as_ref().is_none_or(|key| key.len() == table.key.len());
    let fits =
        stored.key == table.fingerprint && stored.ranges.iter().all(|range| has_all_columns(&range.after) && has_all_columns(&range.until));
    fits.then_some(stored.ranges)
}

/// The ranges between these keys, which are in ascending order.
pub(super) fn between(boundaries: Vec<Key>) -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut after: Option<Key> = None;
    for boundary in boundaries {
        if after.as_ref() != Some(&boundary) {
            ranges.push(Range { after: after.replace(boundary.clone()), until: Some(boundary) });
        }
    }
    ranges.push(Range { after, until: None });
    ranges
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
pub(super) fn select(table: &Table, range: &Range) -> String {
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
        filter = restriction(table, &Range::default()),
    )
}

fn order_by(table: &Table) -> String {
    order::order_by(table.key.iter().map(|column| (column.name.as_str(), &column.order)))
}

fn restriction(table: &Table, range: &Range) -> String {
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

#[cfg(test)]
mod tests {
    use super::{Range, between};

    #[test]
    fn ranges_between_keys_leave_no_gap() {
        let key = |text: &str| vec![text.to_owned()];
        let ranges = between(vec![key("a"), key("a"), key("m")]);
        let expected = [(None, Some("a")), (Some("a"), Some("m")), (Some("m"), None)]
            .map(|(after, until)| Range { after: after.map(key), until: until.map(key) });
        assert_eq!(ranges, expected);
        assert_eq!(between(Vec::new()), [Range::default()]);
    }
}
