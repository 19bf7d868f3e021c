//! A document as a row: its fields in the order of a table's columns.

use super::scan::Cursor;
use super::value::{self, Spelling, unescaped};
use crate::event::{Cell, Row, RowError};
use std::borrow::Cow;
use std::sync::Arc;

/// A document with its fields found.
#[derive(Debug)]
pub(super) struct Document<'d> {
    /// By name, as bytes.
    fields: Vec<Field<'d>>,
}

#[derive(Debug)]
struct Field<'d> {
    name: Cow<'d, str>,
    value: Cursor<'d>,
}

impl<'d> Document<'d> {
    /// Finds the fields of a document.
    pub(super) fn parse(text: &'d str) -> Result<Self, RowError> {
        let mut fields: Vec<Field<'d>> = Vec::new();
        Cursor::new(text).fields(|name, mut at| {
            fields.push(Field { name: unescaped(name)?, value: at });
            at.value()?;
            Ok::<_, RowError>(at)
        })?;
        // The server sorts them already.
        if !fields.is_sorted_by(|left, right| left.name < right.name) {
            fields.sort_by(|left, right| left.name.cmp(&right.name));
            if fields.windows(2).any(|pair| pair[0].name == pair[1].name) {
                return Err(RowError::Malformed { what: "the document has a field twice" });
            }
        }
        Ok(Self { fields })
    }

    /// The names of its fields, sorted as bytes.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.fields.iter().map(|field| &*field.name)
    }

    /// The value of this field, as the server wrote it.
    pub(super) fn field(&self, name: &str) -> Option<&'d str> {
        let found = self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok()?;
        let mut at = self.fields[found].value;
        at.value().ok()
    }

    /// The document as a row of these columns, which are sorted as bytes. It must have no other fields.
    pub(super) const fn row<'r>(&'r self, columns: &'r [Arc<str>], primary_key: &'r str) -> DocumentRow<'r> {
        DocumentRow { fields: self.fields.as_slice(), columns, primary_key }
    }
}

/// A document as a row: a cell for each column, absent where the document has no such field.
#[derive(Clone, Copy, Debug)]
pub(super) struct DocumentRow<'r> {
    fields: &'r [Field<'r>],
    columns: &'r [Arc<str>],
    primary_key: &'r str,
}

impl Row for DocumentRow<'_> {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        let mut fields = self.fields.iter().peekable();
        for column in self.columns {
            match fields.next_if(|field| *field.name == **column) {
                Some(field) => {
                    let spelling = if **column == *self.primary_key { Spelling::AsSent } else { Spelling::Meaning };
                    value::visit(field.value, spelling, 0, visit)?;
                }
                None => visit(Cell::Absent)?,
            }
        }
        if fields.next().is_some() {
            return Err(RowError::Malformed { what: "the document has a field that its table's definition lacks" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Document;
    use crate::event::{Bytes, Cell, Row as _, RowError};
    use std::fmt::Write as _;
    use std::sync::Arc;

    /// A cell in words that show its kind.
    fn shown(cell: Cell<'_>, out: &mut String) -> Result<(), RowError> {
        match cell {
            Cell::Null => out.push_str("null"),
            Cell::Absent => out.push_str("absent"),
            Cell::Boolean(value) => write!(out, "{value}").unwrap(),
            Cell::Float(digits) => write!(out, "number {digits}").unwrap(),
            Cell::Text(text) => write!(out, "text {text:?}").unwrap(),
            Cell::Bytes(Bytes::Raw(bytes)) => write!(out, "bytes {bytes:?}").unwrap(),
            Cell::Array(elements) => {
                out.push('[');
                elements.visit(&mut |cell| {
                    shown(cell, out)?;
                    out.push(';');
                    Ok(())
                })?;
                out.push(']');
            }
            Cell::Object(fields) => {
                out.push('{');
                fields.visit(&mut |name, cell| {
                    write!(out, "{name}=").unwrap();
                    shown(cell, out)?;
                    out.push(';');
                    Ok(())
                })?;
                out.push('}');
            }
            _ => out.push_str("another cell"),
        }
        Ok(())
    }

    fn row(text: &str, columns: &[&str]) -> Result<Vec<String>, RowError> {
        let columns: Vec<Arc<str>> = columns.iter().map(|name| (*name).into()).collect();
        let document = Document::parse(text)?;
        let mut cells = Vec::new();
        document.row(&columns, "id").cells(&mut |cell| {
            let mut text = String::new();
            shown(cell, &mut text)?;
            cells.push(text);
            Ok(())
        })?;
        Ok(cells)
    }

    /// The documents of the recorded feed with one document of each type.
    fn recorded() -> Vec<String> {
        let bytes = include_bytes!("../../../tests/golden/rethinkdb/value_types.s2c.bin");
        let text = String::from_utf8_lossy(bytes);
        let ends = |part: &str| part.split(",\"old_val\"").next().unwrap_or_default().to_owned();
        text.split("\"new_val\":").skip(1).map(ends).collect()
    }

    #[test]
    fn every_type_of_a_real_server_has_its_cell() {
        let documents = recorded();
        let numbers = row(&documents[0], &["big", "e300", "float", "id", "int", "max", "neg0"]).unwrap();
        let expected = [
            "number 100000000000000000000.0",
            "number 1e300",
            "number 1.5",
            "number 1",
            "number 1",
            "number 9007199254740991",
            "number -0.0",
        ];
        assert_eq!(numbers, expected);
        let pseudo_types = row(&documents[1], &["b", "id", "p", "t"]).unwrap();
        assert_eq!(pseudo_types[0], "bytes [0, 1, 2, 255]");
        assert_eq!(pseudo_types[2], "{coordinates=[number -122.4;number 37.7;];type=text \"Point\";}");
        assert!(pseudo_types[3].starts_with("text \"2026-11-2") && pseudo_types[3].ends_with(".123+02:00\""), "{}", pseudo_types[3]);
        let others = row(&documents[2], &["id", "n", "u", "z"]).unwrap();
        assert_eq!(others, ["[number 1;text \"a\";]", "null", "text \"é漢😀\"", "text \"a\\0b\""]);
    }

    #[test]
    fn a_key_keeps_its_pseudo_type() {
        let text = r#"{"id":{"$reql_type$":"TIME","epoch_time":0,"timezone":"+00:00"},"t":{"$reql_type$":"TIME","epoch_time":0,"timezone":"+00:00"}}"#;
        let cells = row(text, &["id", "t"]).unwrap();
        assert_eq!(cells[0], "{$reql_type$=text \"TIME\";epoch_time=number 0;timezone=text \"+00:00\";}");
        assert_eq!(cells[1], "text \"1970-01-01T00:00:00.000+00:00\"");
    }

    #[test]
    fn fields_find_their_columns_in_any_order() {
        assert_eq!(row(r#"{"c":3,"a":1}"#, &["a", "b", "c"]).unwrap(), ["number 1", "absent", "number 3"]);
        assert_eq!(row("{}", &["a"]).unwrap(), ["absent"]);
        assert!(row(r#"{"a":1,"a":2}"#, &["a"]).is_err(), "a field twice");
        assert!(row(r#"{"a":1,"b":2}"#, &["a"]).is_err(), "a field without a column");
        assert_eq!(Document::parse(r#"{"é\"":[1, 2]}"#).unwrap().field("é\""), Some("[1, 2]"));
    }

    #[test]
    fn deep_nesting_is_refused_and_no_stack_ends() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(row(&nested(200), &["a"]).is_ok());
        assert!(row(&nested(201), &["a"]).is_err());
        assert!(row(&nested(1_000_000), &["a"]).is_err());
    }
}
