//! Turns the text of a value into a cell.

use super::array::{self, Part};
use super::charset::Charset;
use crate::event::{Bytes, Cell, Elements, RowError};
use std::sync::Arc;

/// How the text of a value is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Integer,
    Float,
    Decimal,
    Text,
    Bytes,
    Json,
    Date,
    Time,
    Timestamp,
    TimestampUtc,
    Interval,
    Array(Arc<Element>),
    /// Another kind, in a database whose text is not UTF-8.
    Encoded(Arc<Charset>, Box<Kind>),
}

/// The elements of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) kind: Kind,
    /// The separator between two elements: a comma for all built-in types except `box`.
    pub(super) delimiter: u8,
}

impl Kind {
    /// Passes the value to `visit` as a cell. Text that cannot be converted to UTF-8 becomes bytes: of a `SQL_ASCII` database, or with a
    /// character that its encoding does not define.
    pub(super) fn show(&self, value: &[u8], visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        if let Self::Encoded(charset, kind) = self {
            return match charset.decode(value) {
                Some(text) => kind.show(text.as_bytes(), visit),
                None => visit(Cell::MisplacedBytes(Bytes::Raw(value))),
            };
        }
        if *self == Self::Bytes {
            let hex = value.strip_prefix(b"\\x").ok_or(RowError::Malformed { what: "bytea in hex" })?;
            return visit(Cell::Bytes(Bytes::Hex(hex)));
        }
        let Ok(text) = std::str::from_utf8(value) else { return visit(Cell::MisplacedBytes(Bytes::Raw(value))) };
        match self {
            Self::Text => visit(Cell::Text(text)),
            Self::Integer if is_integer(value) => visit(Cell::Integer(text)),
            Self::Integer => Err(RowError::Malformed { what: "digits of an integer" }),
            Self::Boolean => match value {
                b"t" => visit(Cell::Boolean(true)),
                b"f" => visit(Cell::Boolean(false)),
                _ => Err(RowError::Malformed { what: "t or f of a boolean" }),
            },
            Self::Float => visit(Cell::Float(text)),
            Self::Decimal => visit(Cell::Decimal(text)),
            Self::Json => visit(Cell::Json(text)),
            Self::Date => visit(Cell::Date(text)),
            Self::Time => visit(Cell::Time(text)),
            Self::Timestamp => visit(Cell::Timestamp(text)),
            Self::TimestampUtc => visit(Cell::TimestampUtc(text)),
            Self::Interval => visit(Cell::Interval(text)),
            Self::Array(element) => visit(Cell::Array(&ArrayText { text, element, depth: 0 })),
            Self::Bytes | Self::Encoded(..) => Err(RowError::Malformed { what: "bytea in hex" }),
        }
    }
}

fn is_integer(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// The text of an array.
#[derive(Clone, Copy)]
struct ArrayText<'a> {
    text: &'a str,
    element: &'a Element,
    /// How many arrays it is nested in.
    depth: u8,
}

/// The most dimensions of an array (`MAXDIM`).
const DEPTH_MAX: u8 = 6;

impl Elements for ArrayText<'_> {
    fn visit(&self, visit: &mut dyn FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        if self.depth == DEPTH_MAX {
            return Err(array::MALFORMED);
        }
        let mut bytes = array::inner(self.text)?;
        let mut unescaped = String::new();
        while !bytes.is_empty() {
            let (part, after) = array::part(bytes, self.element.delimiter)?;
            match part {
                Part::Null => visit(Cell::Null)?,
                Part::Plain(text) => self.element.kind.show(text.as_bytes(), &mut |cell| visit(cell))?,
                Part::Quoted(text) => {
                    let text = array::unescape(text, &mut unescaped);
                    self.element.kind.show(text.as_bytes(), &mut |cell| visit(cell))?;
                }
                Part::Nested(text) => visit(Cell::Array(&ArrayText { text, element: self.element, depth: self.depth + 1 }))?,
            }
            bytes = match after.as_bytes().split_first() {
                None => "",
                Some((byte, rest)) if *byte == self.element.delimiter && !rest.is_empty() => &after[1..],
                Some(_) => return Err(array::MALFORMED),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ArrayText, Element, Kind};
    use crate::event::{Cell, RowError};
    use proptest::prelude::*;

    fn print(text: &str, kind: Kind, out: &mut String) -> Result<(), RowError> {
        fn cell(cell: Cell<'_>, out: &mut String) -> Result<(), RowError> {
            match cell {
                Cell::Null => out.push('~'),
                Cell::Text(text) | Cell::Integer(text) => out.push_str(text),
                Cell::Array(elements) => {
                    out.push('(');
                    elements.visit(&mut |inner| cell_then(inner, out))?;
                    out.push(')');
                }
                _ => out.push('?'),
            }
            Ok(())
        }
        fn cell_then(inner: Cell<'_>, out: &mut String) -> Result<(), RowError> {
            cell(inner, out)?;
            out.push('|');
            Ok(())
        }
        let element = Element { kind, delimiter: b',' };
        cell(Cell::Array(&ArrayText { text, element: &element, depth: 0 }), out)
    }

    #[test]
    fn elements_are_read_as_the_server_prints_them() {
        for (text, kind, expected) in [
            ("{}", Kind::Text, "()"),
            ("{1,NULL,-3}", Kind::Integer, "(1|~|-3|)"),
            ("[0:1]={7,8}", Kind::Integer, "(7|8|)"),
            ("{{1,2},{3,4}}", Kind::Integer, "((1|2|)|(3|4|)|)"),
            (r#"{"a,b","NULL",NULL,"q\"u\\o","","{}"}"#, Kind::Text, r#"(a,b|NULL|~|q"u\o||{}|)"#),
            (r#"{{"}","{"},{ä,"ö ü"}}"#, Kind::Text, "((}|{|)|(ä|ö ü|)|)"),
        ] {
            let mut out = String::new();
            print(text, kind, &mut out).unwrap();
            assert_eq!(out, expected, "{text}");
        }
    }

    #[test]
    fn malformed_arrays_are_refused() {
        for text in ["", "{", "}", "1", "{1,}", "{,1}", r#"{"a}"#, r#"{"a"b}"#, "{{1}", r#"{"\"#, "{{{{{{{1}}}}}}}"] {
            assert!(print(text, Kind::Text, &mut String::new()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text in r#"[\[\]{}",\\=äN0-9ULa]{0,24}"#) {
            let _ended: Result<(), RowError> = print(&text, Kind::Text, &mut String::new());
            let _braced: Result<(), RowError> = print(&format!("{{{text}}}"), Kind::Text, &mut String::new());
        }
    }
}
