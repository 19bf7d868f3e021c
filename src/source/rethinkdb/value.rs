//! Maps values of a document to cells.
//!
//! | RethinkDB | cell |
//! |---|---|
//! | number | `Float`, in the server's spelling: all numbers are doubles |
//! | string, boolean, null, array, object | `Text`, `Boolean`, `Null`, `Array`, `Object` |
//! | `TIME` | `Text`: ISO 8601 with milliseconds and the document's time zone, as `2026-11-30T17:41:06.123+02:00` |
//! | `BINARY` | `Bytes` |
//! | `GEOMETRY` | `Object`: GeoJSON |
//!
//! In a key, pseudo-types stay the objects that the server sends (`{"$reql_type$":"TIME",...}`): no two keys may look alike.

use super::scan::{Cursor, ValueType};
use super::time;
use crate::event::{Bytes, Cell, Elements, Fields, RowError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::cell;

/// The most levels of arrays and objects in a document.
const DEPTH_MAX: u16 = 200;
/// The field that makes an object a pseudo-type (RethinkDB documentation, "ReQL data types").
pub(super) const PSEUDO_TYPE: &str = "$reql_type$";

/// How pseudo-types are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As what they mean.
    Meaning,
    /// As the server sends them.
    AsSent,
}

/// Visits the value at the cursor as a cell; returns the place behind it.
pub(super) fn visit<'j>(
    mut at: Cursor<'j>,
    spelling: Spelling,
    depth: u16,
    visit: &mut dyn FnMut(Cell<'_>) -> Result<(), RowError>,
) -> Result<Cursor<'j>, RowError> {
    match at.value_type()? {
        ValueType::Null | ValueType::True | ValueType::False => visit(match at.word()? {
            "null" => Cell::Null,
            "true" => Cell::Boolean(true),
            "false" => Cell::Boolean(false),
            _ => return Err(RowError::Malformed { what: "the document is no JSON" }),
        })?,
        ValueType::Number => visit(Cell::Float(double(at.word()?)?))?,
        ValueType::String => visit(Cell::Text(&unescaped(at.string()?)?))?,
        ValueType::Array | ValueType::Object if depth == DEPTH_MAX => {
            return Err(RowError::Malformed { what: "the document is nested more than 200 levels deep" });
        }
        ValueType::Array => {
            let nested = Nested::new(at, spelling, depth);
            visit(Cell::Array(&nested))?;
            return nested.end();
        }
        ValueType::Object => {
            let pseudo_type = if spelling == Spelling::Meaning { pseudo_type(at)? } else { None };
            match pseudo_type {
                Some(PseudoType::Time(text)) => visit(Cell::Text(&text))?,
                Some(PseudoType::Binary(bytes)) => visit(Cell::Bytes(Bytes::Raw(&bytes)))?,
                Some(PseudoType::Geometry) => {
                    let nested = Nested { omits_type: true, ..Nested::new(at, spelling, depth) };
                    visit(Cell::Object(&nested))?;
                    return nested.end();
                }
                None => {
                    let nested = Nested::new(at, spelling, depth);
                    visit(Cell::Object(&nested))?;
                    return nested.end();
                }
            }
            at.value()?;
        }
    }
    Ok(at)
}

/// The digits of a double. Few numbers are spelled so that they could lie beyond.
fn double(digits: &str) -> Result<&str, RowError> {
    let may_lie_beyond = 308 < digits.len() || memchr::memchr2(b'e', b'E', digits.as_bytes()).is_some();
    if may_lie_beyond && !digits.parse().is_ok_and(f64::is_finite) {
        return Err(RowError::Malformed { what: "a number lies beyond what a double holds" });
    }
    Ok(digits)
}

/// A string without its escapes. It is copied only if it has any.
pub(super) fn unescaped(string: &str) -> Result<Cow<'_, str>, RowError> {
    if memchr::memchr(b'\\', string.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(string));
    }
    let read = serde_json::from_str(&format!("\"{string}\""));
    read.map(Cow::Owned).map_err(|_| RowError::Malformed { what: "a string of the document has a wrong escape" })
}

/// A pseudo-type that has a meaning of its own.
enum PseudoType {
    Time(String),
    Binary(Vec<u8>),
    Geometry,
}

/// The pseudo-type at the cursor; `None` for other objects, and for one that this version does not know.
fn pseudo_type(at: Cursor<'_>) -> Result<Option<PseudoType>, RowError> {
    let (mut kind, mut data, mut epoch, mut zone, mut is_first) = (None, None, None, None, true);
    /// Ends the visit of an ordinary object at its first field: `$` sorts before letters, and the server sorts the fields.
    struct Ordinary(Option<RowError>);
    impl From<RowError> for Ordinary {
        fn from(error: RowError) -> Self {
            Self(Some(error))
        }
    }
    let visited = at.fields(|name, mut at| {
        if std::mem::take(&mut is_first) && name != PSEUDO_TYPE {
            return Err(Ordinary(None));
        }
        match name {
            PSEUDO_TYPE => kind = Some(at.string()?),
            "data" => data = Some(at.string()?),
            "epoch_time" => epoch = Some(at.word()?),
            "timezone" => zone = Some(at.string()?),
            _ => drop(at.value()?),
        }
        Ok(at)
    });
    match visited {
        Err(Ordinary(error)) => return error.map_or(Ok(None), Err),
        Ok(_) => {}
    }
    Ok(match (kind, data, epoch.zip(zone)) {
        (Some("TIME"), _, Some((epoch, zone))) => time::text(epoch, zone).map(PseudoType::Time),
        (Some("BINARY"), Some(data), _) => {
            // Line ends are legal in it.
            let data: String = unescaped(data)?.chars().filter(|sign| !sign.is_whitespace()).collect();
            let decoded = STANDARD.decode(data).map_err(|_| RowError::Malformed { what: "a BINARY value is no base64" })?;
            Some(PseudoType::Binary(decoded))
        }
        (Some("GEOMETRY"), ..) => Some(PseudoType::Geometry),
        _ => None,
    })
}

/// An array or object in a document. A visit notes where it ends, so that each byte is scanned once.
struct Nested<'j> {
    at: Cursor<'j>,
    spelling: Spelling,
    depth: u16,
    /// Whether the field with the pseudo-type is left out.
    omits_type: bool,
    end: cell::Cell<Option<Cursor<'j>>>,
}

impl<'j> Nested<'j> {
    const fn new(at: Cursor<'j>, spelling: Spelling, depth: u16) -> Self {
        Self { at, spelling, depth: depth + 1, omits_type: false, end: cell::Cell::new(None) }
    }

    /// The place behind it.
    fn end(mut self) -> Result<Cursor<'j>, RowError> {
        if let Some(end) = self.end.get() {
            return Ok(end);
        }
        self.at.value()?;
        Ok(self.at)
    }
}

impl Elements for Nested<'_> {
    fn visit(&self, each: &mut dyn FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        let end = self.at.elements(|at| visit(at, self.spelling, self.depth, each))?;
        self.end.set(Some(end));
        Ok(())
    }
}

impl Fields for Nested<'_> {
    fn visit(&self, each: &mut dyn FnMut(&str, Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        let end = self.at.fields(|name, mut at| {
            if self.omits_type && name == PSEUDO_TYPE {
                at.value()?;
                return Ok(at);
            }
            let name = unescaped(name)?;
            visit(at, self.spelling, self.depth, &mut |cell| each(&name, cell))
        })?;
        self.end.set(Some(end));
        Ok(())
    }
}
