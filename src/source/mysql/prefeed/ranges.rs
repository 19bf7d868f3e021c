//! Key ranges of a table that remain to be read, as the checkpoint stores them, and the SQL that reads them.
//!
//! feedline itself compares no keys: the server orders them by their types and collations, and is told where to continue.

use super::field::Field;
use super::order::{self, Key, Side, key_value, order_by};
use super::row::Values;
use super::table::Table;
use crate::checkpoint::ScanPosition;
use crate::event::RowError;
use serde::{Deserialize, Serialize};

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
    let fits = stored.key == table.fingerprint && stored.ranges.iter().all(|range| restriction(table, range).is_some());
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
pub(super) fn select(table: &Table, range: &Range) -> String {
    let filter = restriction(table, range).unwrap_or_default();
    format!("SELECT {} FROM {}{filter} ORDER BY {}", table.selected.join(", "), table.from, order_by(&table.key))
}

/// The `WHERE` clause of a range, empty for the whole table; `None` if a key is not one of this table.
fn restriction(table: &Table, range: &Range) -> Option<String> {
    let mut terms = Vec::new();
    for (side, key) in [(Side::After, &range.after), (Side::Until, &range.until)] {
        if let Some(key) = key {
            terms.push(order::condition(&table.key, key, side)?);
        }
    }
    Some(if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) })
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
