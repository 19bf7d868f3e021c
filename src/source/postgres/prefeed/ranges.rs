//! How far a table has been read: ranges of its key, each with the last row that was sent.
//!
//! No key is compared here: the database orders them, by whatever collation, and is told where to go on.

use super::order::{self, Side};
use super::row::Values;
use super::table::Table;
use crate::checkpoint::ScanPosition;
use crate::event::RowError;
use crate::source::postgres::quote::literal;
use serde::{Deserialize, Serialize};

/// The values of a key as text, in the order in which rows are read.
pub(super) type Key = Vec<String>;

/// Rows behind `after`, up to and with `until`; without them from the first, and to the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Key>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Key>,
}

/// What a checkpoint keeps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    key: String,
    ranges: Vec<Range>,
}

/// The ranges that are left, as a checkpoint keeps them.
pub(super) fn position<'r>(table: &Table, ranges: impl Iterator<Item = &'r Range>) -> ScanPosition {
    let kept = Kept { key: table.fingerprint.clone(), ranges: ranges.cloned().collect() };
    ScanPosition(serde_json::to_string(&kept).expect("texts in lists").into())
}

/// The ranges that are left; `None` where they were made of another key, or by something else.
pub(super) fn resume(table: &Table, position: &ScanPosition) -> Option<Vec<Range>> {
    let kept: Kept = serde_json::from_str(&position.0).ok()?;
    let fits = |key: &Option<Key>| key.as_ref().is_none_or(|key| key.len() == table.key.len());
    let fit = kept.key == table.fingerprint && kept.ranges.iter().all(|range| fits(&range.after) && fits(&range.until));
    fit.then_some(kept.ranges)
}

/// Ranges between these keys, in their order.
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
    for place in 0..table.columns.len() {
        let value = values.next_value()?;
        for (part, _) in key.iter_mut().zip(&table.key).filter(|(_, column)| column.place == place) {
            let value = value.ok_or(RowError::Malformed { what: "a key that is not null" })?;
            *part = std::str::from_utf8(value).map_or_else(|_| escaped(value), str::to_owned);
        }
    }
    Ok(key)
}

/// What stands before the digits of a value that is not UTF-8; no text of the server holds it.
const BYTES: char = '\0';

/// A value that is not UTF-8 (of a `SQL_ASCII` database), as a key keeps it.
fn escaped(value: &[u8]) -> String {
    value.iter().fold(String::from(BYTES), |text, byte| text + &format!("{byte:02x}"))
}

/// A value of a key as SQL writes it.
fn constant(value: &str) -> String {
    let Some(digits) = value.strip_prefix(BYTES) else { return literal(value) };
    let bytes: Vec<_> = digits.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
    format!(" E'\\x{}'", bytes.join("\\x"))
}

/// The statement that reads a range in key order.
pub(super) fn select(table: &Table, range: &Range) -> String {
    format!("SELECT {} FROM {}{} ORDER BY {}", table.columns.join(", "), table.from, restriction(table, range), ordered(table))
}

/// The statement that finds keys between which about equally many rows lie, from a sample of so many percent.
pub(super) fn sample(table: &Table, percent: f64, parts: usize) -> String {
    let aliased: Vec<_> = table.key.iter().enumerate().map(|(index, column)| format!("{} AS k{index}", column.name)).collect();
    let keys: Vec<_> = (0..table.key.len()).map(|index| format!("s.k{index}")).collect();
    format!(
        "SELECT {keys} FROM (SELECT {aliased}, row_number() OVER (ORDER BY {names}) AS place, count(*) OVER () AS places \
         FROM {from} TABLESAMPLE SYSTEM ({percent}) REPEATABLE (0){filter}) s \
         WHERE s.place % greatest(s.places / {parts}, 1) = 0 AND s.place < s.places ORDER BY s.place",
        keys = keys.join(", "),
        aliased = aliased.join(", "),
        names = ordered(table),
        from = table.from,
        filter = restriction(table, &Range::default()),
    )
}

fn ordered(table: &Table) -> String {
    order::by(table.key.iter().map(|column| (column.name.as_str(), &column.order)))
}

fn restriction(table: &Table, range: &Range) -> String {
    let beside = |side: Side, key: &Key| {
        order::beside(table.key.iter().zip(key).map(|(column, text)| (column.name.as_str(), &column.order, constant(text))), side)
    };
    let terms: Vec<_> = table
        .filter
        .iter()
        .map(|filter| format!("({filter})"))
        .chain(range.after.iter().map(|key| beside(Side::After, key)))
        .chain(range.until.iter().map(|key| beside(Side::Until, key)))
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
