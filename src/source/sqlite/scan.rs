//! How far a table has been read: the key of its last row, typed exactly, with a fingerprint of what the key is.

use crate::checkpoint::ScanPosition;
use crate::event::RowError;
use crate::source::sqlite::page::{Stored, take_value};
use crate::source::sqlite::schema::{Shape, Unique, Value};
use crate::source::sqlite::sql::quoted;
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

/// The same, as a checkpoint keeps it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Integer(i64),
    /// The bits of the number: its digits would have to be read back exactly.
    Real(u64),
    Text(String),
    /// Text that is not UTF-8, in base64.
    Bytes(String),
    Blob(String),
}

#[derive(Serialize, Deserialize)]
struct Position {
    fingerprint: String,
    key: Vec<Kept>,
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
    fn keep(&self) -> Kept {
        match self {
            Self::Integer(number) => Kept::Integer(*number),
            Self::Real(number) => Kept::Real(number.to_bits()),
            Self::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Kept::Text(text.to_owned()),
                Err(_) => Kept::Bytes(BASE64.encode(text)),
            },
            Self::Blob(blob) => Kept::Blob(BASE64.encode(blob)),
        }
    }

    fn restore(kept: Kept) -> Option<Self> {
        Some(match kept {
            Kept::Integer(number) => Self::Integer(number),
            Kept::Real(bits) => Self::Real(f64::from_bits(bits)),
            Kept::Text(text) => Self::Text(text.into_bytes()),
            Kept::Bytes(text) => Self::Text(BASE64.decode(text).ok()?),
            Kept::Blob(blob) => Self::Blob(BASE64.decode(blob).ok()?),
        })
    }
}

/// Reads the values of a key off a page, in the order in which they lie there; NULL has been refused before.
pub(super) fn key_values(mut bytes: &[u8]) -> Result<Vec<KeyValue>, RowError> {
    let mut key = Vec::new();
    while !bytes.is_empty() {
        key.push(match take_value(&mut bytes)? {
            Stored::Null => return Err(RowError::Malformed { what: "NULL in a key" }),
            Stored::Integer(number) => KeyValue::Integer(number),
            Stored::Real(number) => KeyValue::Real(number),
            Stored::Text(text) => KeyValue::Text(text.to_vec()),
            Stored::Blob(blob) => KeyValue::Blob(blob.to_vec()),
        });
    }
    Ok(key)
}

/// What the key is: a position under another key says nothing.
pub(super) fn fingerprint(shape: &Shape) -> String {
    let mut definition = String::new();
    for column in shape.layout.columns.iter().filter(|column| column.key) {
        write!(definition, "{}:{};", quoted(&column.name), column.blob).expect("a string takes all");
    }
    for (column, collation) in order(&shape.key) {
        write!(definition, "{column}{collation};").expect("a string takes all");
    }
    format!("{:08x}", crc32c::crc32c(definition.as_bytes()))
}

pub(super) fn position(fingerprint: &str, key: &[KeyValue]) -> ScanPosition {
    let position = Position { fingerprint: fingerprint.to_owned(), key: key.iter().map(KeyValue::keep).collect() };
    ScanPosition(serde_json::to_string(&position).expect("numbers and texts are JSON").into())
}

/// The key of the last row read; `None` where it was another key, so that the table is read from its start.
pub(super) fn after(position: &ScanPosition, fingerprint: &str) -> Option<Vec<KeyValue>> {
    let position: Position = serde_json::from_str(&position.0).ok()?;
    if position.fingerprint != fingerprint {
        return None;
    }
    position.key.into_iter().map(KeyValue::restore).collect()
}

/// The key's columns, quoted, in the order of its index, and how they are compared so that no two keys are equal. Nothing is
/// said of what goes without saying, since SQLite would not use the index for a composite key otherwise.
fn order(key: &Unique) -> impl Iterator<Item = (String, &'static str)> {
    key.terms.iter().filter_map(|term| {
        let Value::Column(name) = &term.value else { return None };
        // A collation of the application's own is unknown here; keys that differ under it differ as bytes.
        let collation = match (term.collation.to_ascii_uppercase().as_str(), term.by_default) {
            ("NOCASE" | "RTRIM" | "BINARY", true) => "",
            ("NOCASE", _) => " COLLATE NOCASE",
            ("RTRIM", _) => " COLLATE RTRIM",
            _ => " COLLATE BINARY",
        };
        Some((quoted(name), collation))
    })
}

/// The statement that reads on in key order; its parameters are the last key's values in table order.
pub(super) fn select(shape: &Shape, bounded: bool) -> String {
    let columns: Vec<_> = shape.layout.names().map(quoted).collect();
    let keys: Vec<_> = shape.layout.key_names().map(quoted).collect();
    let order: Vec<_> = order(&shape.key).collect();
    let terms: Vec<_> = order.iter().map(|(column, collation)| format!("{column}{collation}")).collect();
    let terms = terms.join(", ");
    let bound = if bounded {
        let place = |column: &String| keys.iter().position(|key| key == column).map_or(0, |index| index + 1);
        let bounds: Vec<_> = order.iter().map(|(column, _)| format!("?{}", place(column))).collect();
        format!(" WHERE ({terms}) > ({})", bounds.join(", "))
    } else {
        String::new()
    };
    format!("SELECT {} FROM main.{}{bound} ORDER BY {terms}", columns.join(", "), quoted(&shape.layout.table))
}

#[cfg(test)]
mod tests {
    use super::{KeyValue, after, position};

    #[test]
    fn a_key_is_kept_exactly() {
        let key = vec![
            KeyValue::Integer(i64::MAX),
            KeyValue::Real(0.1 + 0.2),
            KeyValue::Text("é\0\"".as_bytes().to_vec()),
            KeyValue::Text(b"\xFF".to_vec()),
            KeyValue::Blob(vec![0, 255]),
        ];
        let kept = position("abc", &key);
        assert_eq!(after(&kept, "abc"), Some(key));
        assert_eq!(after(&kept, "abd"), None);
    }
}
