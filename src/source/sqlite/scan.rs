//! Reads a table in key order: the query, and the position behind the last row (its exact key, with a fingerprint of the key's
//! definition).

use crate::checkpoint::ScanPosition;
use crate::event::RowError;
use crate::source::sqlite::page::{StoredValue, take_value};
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::table::{TableSchema, TermValue, UniqueSet};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// One value of a key, as SQLite stores it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum KeyValue {
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

/// A value of a key, as a checkpoint stores it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredKeyValue {
    Integer(i64),
    /// The bits of the number, so that it is read back exactly.
    Real(u64),
    Text(String),
    /// Text that is not UTF-8, in base64.
    Bytes(String),
    Blob(String),
}

#[derive(Serialize, Deserialize)]
struct Position {
    fingerprint: String,
    key: Vec<StoredKeyValue>,
}

impl ToSql for KeyValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}

impl KeyValue {
    fn to_stored(&self) -> StoredKeyValue {
        match self {
            Self::Integer(number) => StoredKeyValue::Integer(*number),
            Self::Real(number) => StoredKeyValue::Real(number.to_bits()),
            Self::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => StoredKeyValue::Text(text.to_owned()),
                Err(_) => StoredKeyValue::Bytes(BASE64.encode(text)),
            },
            Self::Blob(blob) => StoredKeyValue::Blob(BASE64.encode(blob)),
        }
    }

    fn from_stored(stored: StoredKeyValue) -> Option<Self> {
        Some(match stored {
            StoredKeyValue::Integer(number) => Self::Integer(number),
            StoredKeyValue::Real(bits) => Self::Real(f64::from_bits(bits)),
            StoredKeyValue::Text(text) => Self::Text(text.into_bytes()),
            StoredKeyValue::Bytes(text) => Self::Text(BASE64.decode(text).ok()?),
            StoredKeyValue::Blob(blob) => Self::Blob(BASE64.decode(blob).ok()?),
        })
    }
}

/// Decodes the values of a key that was copied from a page. NULL was refused before.
pub(super) fn key_values(mut bytes: &[u8]) -> Result<Vec<KeyValue>, RowError> {
    let mut key = Vec::new();
    while !bytes.is_empty() {
        key.push(match take_value(&mut bytes)? {
            StoredValue::Null => return Err(RowError::Malformed { what: "NULL in a key" }),
            StoredValue::Integer(number) => KeyValue::Integer(number),
            StoredValue::Real(number) => KeyValue::Real(number),
            StoredValue::Text(text) => KeyValue::Text(text.to_vec()),
            StoredValue::Blob(blob) => KeyValue::Blob(blob.to_vec()),
        });
    }
    Ok(key)
}

/// A checksum of the key's definition. A position of another key cannot be used.
pub(super) fn fingerprint(table: &TableSchema) -> String {
    let mut definition = String::new();
    for column in table.layout.columns.iter().filter(|column| column.key) {
        write!(definition, "{}:{};", quoted(&column.name), column.blob).expect("a string takes all");
    }
    for (column, collation) in order(&table.key) {
        write!(definition, "{column}{collation};").expect("a string takes all");
    }
    format!("{:08x}", crc32c::crc32c(definition.as_bytes()))
}

/// The position behind the row with this key.
pub(super) fn position(fingerprint: &str, key: &[KeyValue]) -> ScanPosition {
    let position = Position { fingerprint: fingerprint.to_owned(), key: key.iter().map(KeyValue::to_stored).collect() };
    ScanPosition(serde_json::to_string(&position).expect("numbers and strings are JSON").into())
}

/// The key of the last row that was read; `None` where the key's definition was another one, so that the table is read from its first row.
pub(super) fn after(position: &ScanPosition, fingerprint: &str) -> Option<Vec<KeyValue>> {
    let position: Position = serde_json::from_str(&position.0).ok()?;
    if position.fingerprint != fingerprint {
        return None;
    }
    position.key.into_iter().map(KeyValue::from_stored).collect()
}

/// The key's columns, quoted, in the order of its index, each with a COLLATE clause under which no two keys are equal. A column's own
/// collation is left out: with it SQLite would not use the index of a composite key.
fn order(key: &UniqueSet) -> impl Iterator<Item = (String, &'static str)> {
    key.terms.iter().filter_map(|term| {
        let TermValue::Column(name) = &term.value else { return None };
        // A collation of the application's own is not known here. Keys that differ under it differ as bytes.
        let collation = match (term.collation.to_ascii_uppercase().as_str(), term.by_default) {
            ("NOCASE" | "RTRIM" | "BINARY", true) => "",
            ("NOCASE", _) => " COLLATE NOCASE",
            ("RTRIM", _) => " COLLATE RTRIM",
            _ => " COLLATE BINARY",
        };
        Some((quoted(name), collation))
    })
}

/// The query that reads the table in key order; with `bounded`, behind a key whose values are its parameters, in table order.
pub(super) fn select(table: &TableSchema, bounded: bool) -> String {
    let columns: Vec<_> = table.layout.names().map(quoted).collect();
    let keys: Vec<_> = table.layout.key_names().map(quoted).collect();
    let order: Vec<_> = order(&table.key).collect();
    let terms: Vec<_> = order.iter().map(|(column, collation)| format!("{column}{collation}")).collect();
    let terms = terms.join(", ");
    let bound = if bounded {
        let parameter = |column: &String| keys.iter().position(|key| key == column).map_or(0, |index| index + 1);
        let bounds: Vec<_> = order.iter().map(|(column, _)| format!("?{}", parameter(column))).collect();
        format!(" WHERE ({terms}) > ({})", bounds.join(", "))
    } else {
        String::new()
    };
    format!("SELECT {} FROM main.{}{bound} ORDER BY {terms}", columns.join(", "), quoted(&table.layout.table))
}

#[cfg(test)]
mod tests {
    use super::{KeyValue, after, position};

    #[test]
    fn a_key_is_stored_exactly() {
        let key = vec![
            KeyValue::Integer(i64::MAX),
            KeyValue::Real(0.1 + 0.2),
            KeyValue::Text("é\0\"".as_bytes().to_vec()),
            KeyValue::Text(b"\xFF".to_vec()),
            KeyValue::Blob(vec![0, 255]),
        ];
        let stored = position("abc", &key);
        assert_eq!(after(&stored, "abc"), Some(key));
        assert_eq!(after(&stored, "abd"), None);
    }
}
