//! A document, its elements and their values, read in place.

use crate::event::RowError;

/// The shortest document: its length, and the zero byte that ends it.
const EMPTY_LENGTH: usize = 5;

/// Bytes that are no BSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in super::super) struct Malformed(pub(in super::super) &'static str);

impl From<Malformed> for RowError {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Malformed { what }
    }
}

/// A document or an array. Only its length was checked; its elements are checked as they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Document<'b>(&'b [u8]);

/// One element of a document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Element<'b> {
    /// The bytes of its name: most elements are looked at for a name that is known.
    pub(in super::super) name: &'b [u8],
    pub(in super::super) value: Value<'b>,
    /// The number of its type, and the bytes of its value.
    pub(in super::super) raw: (u8, &'b [u8]),
}

impl<'b> Element<'b> {
    /// Its name.
    pub(in super::super) fn text_name(&self) -> Result<&'b str, Malformed> {
        std::str::from_utf8(self.name).map_err(|_| Malformed("the name of a field is not UTF-8"))
    }
}

/// The elements of a document, in its order. It ends at the first error.
#[derive(Clone, Debug)]
pub(in super::super) struct Elements<'b>(&'b [u8]);

impl<'b> Document<'b> {
    /// A document without elements.
    pub(in super::super) const EMPTY: Document<'static> = Document(&[5, 0, 0, 0, 0]);

    /// The document that these bytes are.
    pub(in super::super) fn new(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let (document, rest) = Self::split(bytes)?;
        if rest.is_empty() { Ok(document) } else { Err(Malformed("bytes follow a document")) }
    }

    /// The document with which these bytes begin, and what follows it.
    pub(in super::super) fn split(bytes: &'b [u8]) -> Result<(Self, &'b [u8]), Malformed> {
        let length = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
        let (document, rest) = bytes.split_at_checked(length).ok_or(Malformed("a document is cut off"))?;
        if length < EMPTY_LENGTH || document[length - 1] != 0 {
            return Err(Malformed("a document has a wrong length"));
        }
        Ok((Self(document), rest))
    }

    /// All its bytes.
    pub(in super::super) const fn bytes(self) -> &'b [u8] {
        self.0
    }

    /// The bytes of its elements.
    pub(in super::super) fn content(self) -> &'b [u8] {
        &self.0[EMPTY_LENGTH - 1..self.0.len() - 1]
    }

    pub(in super::super) fn elements(self) -> Elements<'b> {
        Elements(self.content())
    }

    /// The value of the first element of this name. What is malformed behind it is not noticed.
    pub(in super::super) fn get(self, name: &str) -> Result<Option<Value<'b>>, Malformed> {
        for element in self.elements() {
            let element = element?;
            if element.name == name.as_bytes() {
                return Ok(Some(element.value));
            }
        }
        Ok(None)
    }

    /// The document of this name; `None` if there is no such document.
    pub(in super::super) fn document(self, name: &str) -> Result<Option<Document<'b>>, Malformed> {
        Ok(self.get(name)?.and_then(Value::document))
    }

    /// The text of this name; `None` if there is none.
    pub(in super::super) fn text(self, name: &str) -> Result<Option<&'b str>, Malformed> {
        Ok(self.get(name)?.and_then(Value::text))
    }

    /// The whole number of this name, whatever its type; `None` if there is none.
    pub(in super::super) fn number(self, name: &str) -> Result<Option<i64>, Malformed> {
        Ok(self.get(name)?.and_then(Value::number))
    }

    /// Whether this is true: a boolean, or a number other than 0.
    pub(in super::super) fn is_true(self, name: &str) -> Result<bool, Malformed> {
        Ok(match self.get(name)? {
            Some(Value::Boolean(value)) => value,
            Some(value) => value.number().is_some_and(|number| number != 0),
            None => false,
        })
    }
}

impl<'b> Elements<'b> {
    /// The elements that these bytes are, without a document around them.
    pub(in super::super) const fn of(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    pub(in super::super) const fn length(&self) -> usize {
        self.0.len()
    }
}

impl<'b> Iterator for Elements<'b> {
    type Item = Result<Element<'b>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, rest) = self.0.split_first()?;
        let read = name(rest).and_then(|(name, rest)| {
            let (value, length) = Value::read(*kind, rest)?;
            let (bytes, rest) = rest.split_at_checked(length).ok_or(Malformed("a value is cut off"))?;
            self.0 = rest;
            Ok(Element { name, value, raw: (*kind, bytes) })
        });
        if read.is_err() {
            self.0 = &[];
        }
        Some(read)
    }
}

/// The name with which these bytes begin, and what follows its zero byte.
fn name(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    // Names are short: a search for many bytes at once would take longer to begin.
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(Malformed("the name of a field is cut off"))?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

/// A value of each type of BSON. Texts are bytes: servers do not check that they are UTF-8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum Value<'b> {
    Double(f64),
    Text(&'b [u8]),
    Document(Document<'b>),
    Array(Document<'b>),
    Binary {
        subtype: u8,
        bytes: &'b [u8],
    },
    Undefined,
    ObjectId([u8; 12]),
    Boolean(bool),
    /// Milliseconds since 1970.
    DateTime(i64),
    Null,
    Regex {
        pattern: &'b [u8],
        options: &'b [u8],
    },
    DbPointer {
        namespace: &'b [u8],
        id: [u8; 12],
    },
    Code(&'b [u8]),
    Symbol(&'b [u8]),
    CodeWithScope {
        code: &'b [u8],
        scope: Document<'b>,
    },
    Int32(i32),
    /// Seconds since 1970 in the upper half, a counter in the lower one.
    Timestamp(u64),
    Int64(i64),
    Decimal128(u128),
    MinKey,
    MaxKey,
}

impl<'b> Value<'b> {
    /// The value of this type with which the bytes begin, and how many bytes it has.
    fn read(kind: u8, bytes: &'b [u8]) -> Result<(Self, usize), Malformed> {
        Ok(match kind {
            0x01 => (Self::Double(f64::from_le_bytes(*fixed(bytes)?)), 8),
            0x02 => of_text(bytes, Self::Text)?,
            0x03 => of_document(bytes, Self::Document)?,
            0x04 => of_document(bytes, Self::Array)?,
            0x05 => binary(bytes)?,
            0x06 => (Self::Undefined, 0),
            0x07 => (Self::ObjectId(*fixed(bytes)?), 12),
            0x08 => match fixed(bytes)? {
                [0] => (Self::Boolean(false), 1),
                [1] => (Self::Boolean(true), 1),
                _ => return Err(Malformed("a boolean is neither true nor false")),
            },
            0x09 => (Self::DateTime(i64::from_le_bytes(*fixed(bytes)?)), 8),
            0x0A => (Self::Null, 0),
            0x0B => {
                let (pattern, rest) = until_zero(bytes)?;
                let (options, _) = until_zero(rest)?;
                (Self::Regex { pattern, options }, pattern.len() + options.len() + 2)
            }
            0x0C => {
                let (namespace, length) = text(bytes)?;
                (Self::DbPointer { namespace, id: *fixed(&bytes[length..])? }, length + 12)
            }
            0x0D => of_text(bytes, Self::Code)?,
            0x0E => of_text(bytes, Self::Symbol)?,
            0x0F => code_with_scope(bytes)?,
            0x10 => (Self::Int32(i32::from_le_bytes(*fixed(bytes)?)), 4),
            0x11 => (Self::Timestamp(u64::from_le_bytes(*fixed(bytes)?)), 8),
            0x12 => (Self::Int64(i64::from_le_bytes(*fixed(bytes)?)), 8),
            0x13 => (Self::Decimal128(u128::from_le_bytes(*fixed(bytes)?)), 16),
            0x7F => (Self::MaxKey, 0),
            0xFF => (Self::MinKey, 0),
            _ => return Err(Malformed("a value has a type that BSON 1.1 does not know")),
        })
    }

    pub(in super::super) const fn document(self) -> Option<Document<'b>> {
        match self {
            Self::Document(document) => Some(document),
            _ => None,
        }
    }

    pub(in super::super) const fn array(self) -> Option<Document<'b>> {
        match self {
            Self::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// A text that is UTF-8.
    pub(in super::super) fn text(self) -> Option<&'b str> {
        match self {
            Self::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    /// A whole number, of whatever type.
    pub(in super::super) fn number(self) -> Option<i64> {
        match self {
            Self::Int32(number) => Some(number.into()),
            Self::Int64(number) => Some(number),
            #[expect(clippy::cast_possible_truncation, reason = "commands answer with small whole numbers, also as doubles")]
            Self::Double(number) if number.fract() == 0.0 => Some(number as i64),
            _ => None,
        }
    }

    pub(in super::super) const fn timestamp(self) -> Option<u64> {
        match self {
            Self::Timestamp(timestamp) => Some(timestamp),
            _ => None,
        }
    }
}

fn fixed<const LENGTH: usize>(bytes: &[u8]) -> Result<&[u8; LENGTH], Malformed> {
    bytes.first_chunk().ok_or(Malformed("a value is cut off"))
}

fn until_zero(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let end = memchr::memchr(0, bytes).ok_or(Malformed("a text is cut off"))?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

/// A length that is not negative.
fn length(bytes: &[u8]) -> Result<usize, Malformed> {
    usize::try_from(i32::from_le_bytes(*fixed(bytes)?)).map_err(|_| Malformed("a length is negative"))
}

/// A text without its zero byte, and how many bytes it takes in all.
fn text(bytes: &[u8]) -> Result<(&[u8], usize), Malformed> {
    let length = length(bytes)?;
    match bytes.get(4..4 + length).and_then(<[u8]>::split_last) {
        Some((0, text)) => Ok((text, 4 + length)),
        _ => Err(Malformed("a text has a wrong length")),
    }
}

fn of_text<'b>(bytes: &'b [u8], make: impl FnOnce(&'b [u8]) -> Value<'b>) -> Result<(Value<'b>, usize), Malformed> {
    text(bytes).map(|(text, length)| (make(text), length))
}

fn of_document<'b>(bytes: &'b [u8], make: impl FnOnce(Document<'b>) -> Value<'b>) -> Result<(Value<'b>, usize), Malformed> {
    let (document, _) = Document::split(bytes)?;
    Ok((make(document), document.bytes().len()))
}

fn binary(bytes: &[u8]) -> Result<(Value<'_>, usize), Malformed> {
    let length = length(bytes)?;
    let subtype = *bytes.get(4).ok_or(Malformed("a value is cut off"))?;
    let content = bytes.get(5..5 + length).ok_or(Malformed("a binary value has a wrong length"))?;
    Ok((Value::Binary { subtype, bytes: content }, 5 + length))
}

fn code_with_scope(bytes: &[u8]) -> Result<(Value<'_>, usize), Malformed> {
    let wrong = Malformed("code with a scope has a wrong length");
    let length = length(bytes)?;
    let inner = bytes.get(4..length).ok_or(wrong)?;
    let (code, code_length) = text(inner)?;
    let scope = Document::new(&inner[code_length..])?;
    Ok((Value::CodeWithScope { code, scope }, length))
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::{Document, Value};
    use proptest::prelude::*;

    #[test]
    fn a_document_is_read_as_it_was_written() {
        let written =
            Writer::new().text("a", "x").document("b", Writer::new().int("n", -1).finish().as_slice()).boolean("c", true).finish();
        let document = Document::new(&written).unwrap();
        assert_eq!(document.text("a").unwrap(), Some("x"));
        assert_eq!(document.document("b").unwrap().unwrap().number("n").unwrap(), Some(-1));
        assert!(document.is_true("c").unwrap() && !document.is_true("d").unwrap());
        let names: Vec<_> = document.elements().map(|element| element.unwrap().text_name().unwrap()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(Document::EMPTY.elements().count(), 0);
    }

    #[test]
    fn what_is_cut_off_is_malformed_at_each_byte() {
        let written = Writer::new().text("a", "x").long("b", 7).texts("c", ["y", "z"]).finish();
        for end in 0..written.len() {
            assert!(Document::new(&written[..end]).is_err(), "{end}");
            // The length says that it is complete.
            let mut short = written[..end].to_vec();
            if 5 <= end {
                short[..4].copy_from_slice(&u32::try_from(end).unwrap().to_le_bytes());
                short[end - 1] = 0;
                if let Ok(document) = Document::new(&short) {
                    let read: Result<Vec<_>, _> = document.elements().collect();
                    assert!(read.is_err() || read.unwrap().len() < 3, "{end}");
                }
            }
        }
    }

    fn read_all(document: Document<'_>, depth: u32) {
        for element in document.elements().flatten() {
            match element.value {
                Value::Document(inner) | Value::Array(inner) if depth < 50 => read_all(inner, depth + 1),
                _ => {}
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 5..200)) {
            let length = bytes.len();
            bytes[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            bytes[length - 1] = 0;
            read_all(Document::new(&bytes).unwrap(), 0);
        }
    }
}
