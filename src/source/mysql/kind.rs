//! Turns the values of a column into cells.

use super::binlog::{BINARY, DECIMAL_LENGTH_MAX, Labels, Storage, TableColumn, Text, Value, write_json};
use super::charset::{Charset, Charsets};
use crate::event::{Bytes, Cell, ColumnKind, Elements, RowError};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// How the values of a column become cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As they are stored: numbers, dates, times, JSON of MySQL.
    Plain,
    /// Text.
    Text(Arc<Charset>),
    /// Text that the server keeps to valid JSON.
    JsonText(Arc<Charset>),
    /// Bytes, of which the log leaves out zeros at the end where they are padded to this length.
    Bytes(Option<u16>),
    /// One of these labels.
    Label(Arc<[Arc<str>]>),
    /// Some of these labels.
    Labels(Arc<[Arc<str>]>),
    /// `UUID` of MariaDB.
    Uuid,
    /// `INET4` of MariaDB.
    Inet4,
    /// `INET6` of MariaDB.
    Inet6,
    /// Numbers of four bytes: `VECTOR` of MySQL.
    Vector,
}

/// Types of MariaDB that the log shows as another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// `JSON`, which is text.
    Json,
    /// `UUID`, which is `BINARY(16)`.
    Uuid,
    /// `INET4`, which is `BINARY(4)`.
    Inet4,
    /// `INET6`, which is `BINARY(16)`.
    Inet6,
}

/// Space for text and bytes that are made of a value.
#[derive(Debug, Default)]
pub struct Space {
    text: RefCell<String>,
    bytes: RefCell<Vec<u8>>,
}

impl Space {
    /// Lends the empty text.
    pub(super) fn with_text<T>(&self, work: impl FnOnce(&mut String) -> T) -> T {
        let mut text = self.text.borrow_mut();
        text.clear();
        work(&mut text)
    }
}

/// Why a column cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The log does not name the column: `binlog_row_metadata` was not `FULL` when the row was written.
    Unnamed,
    /// No encoding is known for its collation.
    Collation(u32),
}

impl Kind {
    /// How the values of this column are read. A hint applies only to a column that is stored as its type is.
    ///
    /// # Errors
    /// Where the log does not say enough of the column.
    pub fn of(column: &TableColumn, hint: Option<Hint>, charsets: &Charsets) -> Result<Self, Unreadable> {
        if column.name.is_none() {
            return Err(Unreadable::Unnamed);
        }
        let charset = |collation| charsets.get(collation).cloned().ok_or(Unreadable::Collation(collation));
        Ok(match &column.storage {
            Storage::Enumeration { labels, .. } => Self::Label(decoded(labels, charsets)?),
            Storage::Set { labels, .. } => Self::Labels(decoded(labels, charsets)?),
            Storage::Geometry { .. } => Self::Bytes(None),
            Storage::Vector { .. } => Self::Vector,
            Storage::Characters { collation: BINARY, length, is_padded, .. } => match (hint, *length, *is_padded) {
                (Some(Hint::Uuid), Some(16), true) => Self::Uuid,
                (Some(Hint::Inet6), Some(16), true) => Self::Inet6,
                (Some(Hint::Inet4), Some(4), true) => Self::Inet4,
                (_, length, is_padded) => Self::Bytes(length.filter(|_| is_padded)),
            },
            Storage::Characters { collation, length: None, .. } if hint == Some(Hint::Json) => Self::JsonText(charset(*collation)?),
            Storage::Characters { collation, .. } => Self::Text(charset(*collation)?),
            _ => Self::Plain,
        })
    }

    /// The kind of the column, as events describe it.
    #[must_use]
    pub fn column_kind(&self, storage: &Storage) -> ColumnKind {
        let integer = |bits, unsigned| ColumnKind::Integer { bits, unsigned };
        match (self, storage) {
            (Self::Text(charset), Storage::Characters { length, .. }) => {
                ColumnKind::Text { length: length.map(|bytes| charset.characters(bytes)) }
            }
            (Self::Bytes(_), Storage::Characters { length, .. }) => ColumnKind::Bytes { length: length.map(u32::from) },
            (Self::Bytes(_), _) => ColumnKind::Bytes { length: None },
            (Self::JsonText(_), _) | (_, Storage::Json { .. }) => ColumnKind::Json,
            (Self::Label(labels), _) => ColumnKind::Enumeration { labels: Arc::clone(labels) },
            (Self::Uuid, _) => ColumnKind::Uuid,
            (Self::Vector, _) => ColumnKind::Array { element: Arc::new(ColumnKind::Float { bits: 32 }) },
            (_, Storage::Integer { bytes, unsigned }) => integer(8 * bytes, *unsigned),
            (_, Storage::Year) => integer(16, true),
            (_, Storage::Bit { .. }) => integer(64, true),
            (_, Storage::Float) => ColumnKind::Float { bits: 32 },
            (_, Storage::Double) => ColumnKind::Float { bits: 64 },
            (_, Storage::Decimal { precision, scale }) => {
                ColumnKind::Decimal { precision: Some((*precision).into()), scale: Some((*scale).into()) }
            }
            (_, Storage::Date) => ColumnKind::Date,
            (_, Storage::Time { digits }) => ColumnKind::Time { precision: *digits },
            (_, Storage::OldTime) => ColumnKind::Time { precision: 0 },
            (_, Storage::DateTime { digits }) => ColumnKind::Timestamp { precision: *digits },
            (_, Storage::OldDateTime) => ColumnKind::Timestamp { precision: 0 },
            (_, Storage::Timestamp { digits }) => ColumnKind::TimestampUtc { precision: *digits },
            (_, Storage::OldTimestamp) => ColumnKind::TimestampUtc { precision: 0 },
            _ => ColumnKind::Text { length: None },
        }
    }

    /// Passes a value to `visit` as a cell. A value that the row does not carry is shown as `missing`.
    ///
    /// # Errors
    /// The error of `visit`, or that the value is malformed.
    pub fn show(
        &self,
        value: &Value<'_>,
        missing: Cell<'_>,
        space: &Space,
        visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>,
    ) -> Result<(), RowError> {
        match *value {
            Value::Null => visit(Cell::Null),
            Value::Absent => visit(missing),
            Value::Signed(number) => visit(Cell::Signed(number)),
            Value::Unsigned(number) => visit(Cell::Unsigned(number)),
            Value::Float(number) => visit(Cell::Float(float(number, &mut space.text.borrow_mut()))),
            Value::Double(number) => visit(Cell::Double(number)),
            Value::Decimal(number) => visit(Cell::Decimal(number.write(&mut [0; DECIMAL_LENGTH_MAX]))),
            Value::Date(date) => visit(Cell::Date(Text::of_date(date).as_str())),
            Value::Time(time, digits) => visit(Cell::Time(Text::of_time(time, digits).as_str())),
            Value::DateTime(date, time, digits) => visit(Cell::Timestamp(Text::of_date_time(date, time, digits).as_str())),
            Value::Timestamp(instant, digits) => visit(Cell::TimestampUtc(Text::of_instant(instant, digits).as_str())),
            Value::Label(number) => visit(Cell::Text(self.label(number)?)),
            Value::Labels(bits) => {
                let mut text = space.text.borrow_mut();
                self.labels(bits, &mut text)?;
                visit(Cell::Text(&text))
            }
            Value::Characters(value) => self.characters(value, space, visit),
            Value::Compressed(value) => {
                let mut unpacked = space.bytes.take();
                let shown = match value.unpack(&mut unpacked) {
                    Ok(value) => self.characters(value, space, visit),
                    Err(malformed) => Err(RowError::Malformed { what: malformed.0 }),
                };
                space.bytes.replace(unpacked);
                shown
            }
            Value::Json(document) => {
                let mut text = space.text.borrow_mut();
                text.clear();
                write_json(document, &mut text).map_err(|malformed| RowError::Malformed { what: malformed.0 })?;
                visit(Cell::Json(&text))
            }
            Value::JsonDiff(_) => Err(RowError::Malformed { what: "changes to a JSON value without the old value (binlog_row_image)" }),
        }
    }

    fn label(&self, number: u64) -> Result<&str, RowError> {
        const UNKNOWN: RowError = RowError::Malformed { what: "a label of the ENUM" };
        let Self::Label(labels) = self else { return Err(UNKNOWN) };
        // 0 is the empty text that the server stores for a value that is none of the labels.
        let Some(index) = number.checked_sub(1) else { return Ok("") };
        usize::try_from(index).ok().and_then(|index| labels.get(index)).map(|label| &**label).ok_or(UNKNOWN)
    }

    fn labels(&self, bits: u64, out: &mut String) -> Result<(), RowError> {
        const UNKNOWN: RowError = RowError::Malformed { what: "labels of the SET" };
        let Self::Labels(labels) = self else { return Err(UNKNOWN) };
        if labels.len() < 64 && bits >> labels.len() != 0 {
            return Err(UNKNOWN);
        }
        out.clear();
        for (_, label) in labels.iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1) {
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str(label);
        }
        Ok(())
    }

    fn characters(&self, value: &[u8], space: &Space, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        match self {
            Self::Text(charset) => match charset.decode(value, &mut space.text.borrow_mut()) {
                Some(text) => visit(Cell::Text(text)),
                None => visit(Cell::MisplacedBytes(Bytes::Raw(value))),
            },
            Self::JsonText(charset) => match charset.decode(value, &mut space.text.borrow_mut()) {
                Some(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => visit(Cell::Json(text)),
                Some(text) => visit(Cell::Text(text)),
                None => visit(Cell::MisplacedBytes(Bytes::Raw(value))),
            },
            Self::Bytes(Some(length)) if value.len() < usize::from(*length) => {
                let mut padded = space.bytes.borrow_mut();
                padded.clear();
                padded.extend_from_slice(value);
                padded.resize((*length).into(), 0);
                visit(Cell::Bytes(Bytes::Raw(&padded)))
            }
            Self::Bytes(_) => visit(Cell::Bytes(Bytes::Raw(value))),
            Self::Uuid => {
                let mut text = space.text.borrow_mut();
                uuid(padded::<16>(value)?, &mut text);
                visit(Cell::Text(&text))
            }
            Self::Inet4 => {
                let mut text = space.text.borrow_mut();
                text.clear();
                write!(text, "{}", Ipv4Addr::from(padded::<4>(value)?)).map_err(|_| RowError::TooLarge)?;
                visit(Cell::Text(&text))
            }
            Self::Inet6 => {
                let mut text = space.text.borrow_mut();
                inet6(padded::<16>(value)?, &mut text);
                visit(Cell::Text(&text))
            }
            Self::Vector => visit(Cell::Array(&Numbers(value))),
            Self::Plain | Self::Label(_) | Self::Labels(_) => Err(RowError::Malformed { what: "a value of the column's type" }),
        }
    }
}

/// The labels as text.
fn decoded(labels: &Labels, charsets: &Charsets) -> Result<Arc<[Arc<str>]>, Unreadable> {
    let unreadable = || Unreadable::Collation(labels.collation);
    let charset = charsets.get(labels.collation).ok_or_else(unreadable)?;
    let mut space = String::new();
    labels.texts.iter().map(|label| charset.decode(label, &mut space).map(Arc::from).ok_or_else(unreadable)).collect()
}

/// The fewest digits that read back as the same number.
fn float(number: f32, out: &mut String) -> &str {
    out.clear();
    // Writing to a string cannot fail.
    write!(out, "{number:?}").map_or("", |()| out)
}

/// The value with the zeros at its end that the log leaves out.
fn padded<const N: usize>(value: &[u8]) -> Result<[u8; N], RowError> {
    let mut padded = [0; N];
    let carried = padded.get_mut(..value.len()).ok_or(RowError::Malformed { what: "a value of its column's length" })?;
    carried.copy_from_slice(value);
    Ok(padded)
}

fn uuid(bytes: [u8; 16], out: &mut String) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    out.clear();
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// An IPv6 address as MariaDB prints it: one that holds an IPv4 address shows it.
fn inet6(bytes: [u8; 16], out: &mut String) {
    out.clear();
    let is_compatible = bytes[..12] == [0; 12] && bytes[12..14] != [0; 2];
    // Writing to a string cannot fail.
    let _written: std::fmt::Result = if is_compatible {
        write!(out, "::{}.{}.{}.{}", bytes[12], bytes[13], bytes[14], bytes[15])
    } else {
        write!(out, "{}", Ipv6Addr::from(bytes))
    };
}

/// Numbers of four bytes.
struct Numbers<'a>(&'a [u8]);

impl Elements for Numbers<'_> {
    fn visit(&self, visit: &mut dyn FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        let (numbers, []) = self.0.as_chunks::<4>() else { return Err(RowError::Malformed { what: "numbers of a VECTOR" }) };
        let mut text = String::new();
        numbers.iter().try_for_each(|number| visit(Cell::Float(float(f32::from_le_bytes(*number), &mut text))))
    }
}
