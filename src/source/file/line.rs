//! One line of a file: a JSON object of columns, read as a row of the table.

use crate::event::{Cell, Row, RowError};
use crate::feed::Feed;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A row. A column that the line does not name is absent.
#[derive(Debug)]
pub(super) struct JsonRow<'l> {
    /// In the order of the table's columns.
    values: Vec<Option<JsonValue<'l>>>,
}

#[derive(Debug)]
enum JsonValue<'l> {
    Null,
    Boolean(bool),
    /// Without its escapes: the format writes it as it writes a live event's, so that a key has the same bytes.
    Text(Cow<'l, str>),
    /// A number, an array or an object, as written.
    Json(&'l str),
}

impl<'l> JsonRow<'l> {
    /// Reads a line as a row of the feed's table. The error says why it is none.
    pub(super) fn parse(line: &'l [u8], feed: &Feed) -> Result<Self, String> {
        let text = std::str::from_utf8(line).map_err(|error| format!("it is not UTF-8: {error}"))?;
        let Object(members) = serde_json::from_str(text).map_err(|error| format!("it is not a JSON object: {error}"))?;
        let mut values: Vec<Option<JsonValue<'l>>> = feed.columns.iter().map(|_| None).collect();
        for (name, raw) in members {
            let index = feed.columns.iter().position(|column| **column == *name).ok_or_else(|| unknown(&name, feed))?;
            let value = JsonValue::of(raw.get()).map_err(|error| format!("column {name:?}: {error}"))?;
            if values[index].replace(value).is_some() {
                return Err(format!("column {name:?} is named twice"));
            }
        }
        let row = Self { values };
        for key in &feed.key {
            let index = feed.columns.iter().position(|column| column == key);
            if matches!(index.and_then(|index| row.values[index].as_ref()), None | Some(JsonValue::Null)) {
                return Err(format!("key column {key:?} is missing or null"));
            }
        }
        Ok(row)
    }
}

fn unknown(name: &str, feed: &Feed) -> String {
    let nearest = feed.columns.iter().min_by_key(|column| strsim::damerau_levenshtein(name, column));
    let hint = nearest.map(|nearest| format!(": did you mean {nearest:?}?")).unwrap_or_default();
    format!("table {} has no column {name:?}{hint}", feed.name)
}

impl<'l> JsonValue<'l> {
    fn of(raw: &'l str) -> Result<Self, serde_json::Error> {
        Ok(match raw.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Boolean(true),
            Some(b'f') => Self::Boolean(false),
            Some(b'"') => Self::Text(serde_json::from_str::<Text<'l>>(raw)?.0),
            _ => Self::Json(raw),
        })
    }
}

impl Row for &JsonRow<'_> {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        self.values.iter().try_for_each(|value| {
            visit(match value {
                None => Cell::Absent,
                Some(JsonValue::Null) => Cell::Null,
                Some(JsonValue::Boolean(flag)) => Cell::Boolean(*flag),
                Some(JsonValue::Text(text)) => Cell::Text(text),
                Some(JsonValue::Json(json)) => Cell::Json(json),
            })
        })
    }
}

/// An object's members in the order in which they are written. A name may come twice.
struct Object<'l>(Vec<(Cow<'l, str>, &'l RawValue)>);

/// Text, borrowed where nothing in it is escaped.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'l>(#[serde(borrow)] Cow<'l, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of columns")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
