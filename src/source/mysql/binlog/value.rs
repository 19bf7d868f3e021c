//! Values, as far as the log's bytes say what they are.

use super::bytes::{Malformed, Reader, big, little};
use super::compression;
use super::decimal::Decimal;
use super::storage::Storage;
use super::temporal::{self, Date, Instant, Time};

/// One value of a row, borrowed from the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// The row does not carry this column (`binlog_row_image`).
    Absent,
    /// An integer.
    Signed(i64),
    /// An integer that cannot be negative; also `YEAR` and `BIT`.
    Unsigned(u64),
    /// `FLOAT`.
    Float(f32),
    /// `DOUBLE`.
    Double(f64),
    /// `DECIMAL`.
    Decimal(Decimal<'a>),
    /// `DATE`.
    Date(Date),
    /// `TIME`, with the digits of its type.
    Time(Time, u8),
    /// `DATETIME`, with the digits of its type.
    DateTime(Date, Time, u8),
    /// `TIMESTAMP`, with the digits of its type.
    Timestamp(Instant, u8),
    /// The number of a label, from 1; 0 for a value that is none of them.
    Label(u64),
    /// A bit for each label.
    Labels(u64),
    /// Text in the encoding of its column, or bytes.
    Characters(&'a [u8]),
    /// Text or bytes that are perhaps compressed: see [`Compressed::unpack`].
    Compressed(Compressed<'a>),
    /// `JSON` in binary form.
    Json(&'a [u8]),
    /// Changes to the old value of a `JSON` column.
    JsonDiff(&'a [u8]),
}

/// The value of a column of MariaDB that is `COMPRESSED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compressed<'a>(&'a [u8]);

impl<'a> Compressed<'a> {
    /// The value, unpacked into `space` if it is stored compressed.
    ///
    /// # Errors
    /// Where it is malformed.
    pub fn unpack<'s>(&self, space: &'s mut Vec<u8>) -> Result<&'s [u8], Malformed>
    where
        'a: 's,
    {
        compression::column(self.0, space)
    }
}

impl Storage {
    /// Reads one value.
    #[inline]
    pub(super) fn value<'a>(&self, reader: &mut Reader<'a>) -> Result<Value<'a>, Malformed> {
        let bytes = self.take(reader)?;
        Ok(match self {
            Self::Integer { unsigned: true, .. } => Value::Unsigned(little(bytes)),
            Self::Integer { .. } => Value::Signed(signed(bytes)),
            Self::Float => Value::Float(f32::from_le_bytes(Reader::new(bytes, "value: FLOAT").array()?)),
            Self::Double => Value::Double(f64::from_bits(little(bytes))),
            Self::Decimal { precision, scale } => {
                Value::Decimal(Decimal::new(bytes, *precision, *scale).ok_or(Malformed("value: DECIMAL"))?)
            }
            Self::Year => Value::Unsigned(match little(bytes) {
                0 => 0,
                year => 1900 + year,
            }),
            Self::Bit { .. } => Value::Unsigned(big(bytes)),
            Self::Date => Value::Date(temporal::date(Reader::new(bytes, "value: DATE").array()?)),
            Self::Time { digits } => Value::Time(temporal::time(bytes)?, *digits),
            Self::DateTime { digits } => {
                let (date, time) = temporal::date_time(bytes)?;
                Value::DateTime(date, time, *digits)
            }
            Self::Timestamp { digits } => Value::Timestamp(temporal::instant(bytes)?, *digits),
            Self::OldTime => Value::Time(temporal::old_time(Reader::new(bytes, "value: TIME").array()?), 0),
            Self::OldDateTime => {
                let (date, time) = temporal::old_date_time(Reader::new(bytes, "value: DATETIME").array()?);
                Value::DateTime(date, time, 0)
            }
            Self::OldTimestamp => {
                let seconds = u32::from_le_bytes(Reader::new(bytes, "value: TIMESTAMP").array()?);
                Value::Timestamp(Instant { seconds, micros: 0 }, 0)
            }
            Self::Enumeration { .. } => Value::Label(little(bytes)),
            Self::Set { .. } => Value::Labels(little(bytes)),
            Self::Characters { is_compressed: true, .. } => Value::Compressed(Compressed(bytes)),
            Self::Characters { .. } | Self::Geometry { .. } | Self::Vector { .. } => Value::Characters(bytes),
            Self::Json { .. } => Value::Json(bytes),
        })
    }
}

/// A number in two's complement of at most 8 bytes, the least significant one first.
const fn sign_extended(number: u64, bytes: usize) -> i64 {
    let unused = 64 - 8 * bytes;
    (number << unused).cast_signed() >> unused
}

fn signed(bytes: &[u8]) -> i64 {
    if bytes.is_empty() { 0 } else { sign_extended(little(bytes), bytes.len()) }
}

#[cfg(test)]
mod tests {
    use super::signed;

    #[test]
    fn negative_numbers_of_every_width_keep_their_sign() {
        assert_eq!(
            [signed(&[0xFF]), signed(&[0, 0x80]), signed(&[0xFF, 0xFF, 0xFF]), signed(&[0, 0, 0x80])],
            [-1, -32_768, -1, -8_388_608]
        );
        assert_eq!([signed(&[0xFF, 0xFF, 0x7F]), signed(&[0; 4]), signed(&[0, 0, 0, 0, 0, 0, 0, 0x80])], [8_388_607, 0, i64::MIN]);
    }
}
