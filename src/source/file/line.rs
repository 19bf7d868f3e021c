//! One line: an object of columns, shown cell by cell in the order of the table.

use crate::event::{Cell, Row, RowError};
use crate::feed::Feed;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A row; a column that the line does not name is absent.
#[derive(Debug)]
pub(super) struct JsonRow<'l> {
    /// In table order.
    values: Vec<Option<Value<'l>>>,
}

#[derive(Debug)]
enum Value<'l> {
    Null,
    Boolean(bool),
    /// As the format writes text, however it was escaped here: a key's bytes are then those of a live event.
    Text(Cow<'l, str>),
    /// Anything else, as written.
    Json(&'l str),
}

impl<'l> JsonRow<'l> {
    /// Reads a line as a row of the feed's table; what is wrong with it where it is none.
    pub(super) fn parse(line: &'l [u8], feed: &Feed) -> Result<Self, String> {
        let text = std::str::from_utf8(line).map_err(|error| format!("it is not UTF-8: {error}"))?;
        let Object(members) = serde_json::from_str(text).map_err(|error| format!("it is not a JSON object: {error}"))?;
        let mut values: Vec<Option<Value<'l>>> = feed.columns.iter().map(|_| None).collect();
        for (name, raw) in members {
            let place = feed.columns.iter().position(|column| **column == *name).ok_or_else(|| unknown(&name, feed))?;
            let value = Value::of(raw.get()).map_err(|error| format!("column {name:?}: {error}"))?;
            if values[place].replace(value).is_some() {
                return Err(format!("column {name:?} stands in it twice"));
            }
        }
        let row = Self { values };
        for key in &feed.key {
            let place = feed.columns.iter().position(|column| column == key);
            if matches!(place.and_then(|place| row.values[place].as_ref()), None | Some(Value::Null)) {
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

impl<'l> Value<'l> {
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
                Some(Value::Null) => Cell::Null,
                Some(Value::Boolean(flag)) => Cell::Boolean(*flag),
                Some(Value::Text(text)) => Cell::Text(text),
                Some(Value::Json(json)) => Cell::Json(json),
            })
        })
    }
}

/// An object's members in the order in which they are written, twice the same name included.
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
