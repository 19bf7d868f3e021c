//! Values of a prepared statement's row (MySQL documentation, "Binary Protocol Resultset"), as the log's decoder shows them.

use crate::event::RowError;
use crate::source::mysql::binlog::{Date, Instant, Time, Value};
use crate::source::mysql::kind::Kind;
use crate::source::mysql::session::{Definition, packed};

/// How a column's values are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// An integer of this many bytes, the least significant one first.
    Integer {
        bytes: u8,
        is_unsigned: bool,
    },
    Float,
    Double,
    /// Digits as text.
    Decimal,
    /// Bytes of a number, the most significant one first.
    Bit,
    Date,
    Time {
        digits: u8,
    },
    DateTime {
        digits: u8,
    },
    Timestamp {
        digits: u8,
    },
    /// The number of a label, or a bit for each, in this many bytes.
    Label {
        bytes: u8,
    },
    Labels {
        bytes: u8,
    },
    /// JSON of MySQL, as text.
    Json,
    /// Text in the encoding of its column, or bytes.
    Characters,
}

/// A value as it is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sent<'a> {
    /// As the log has it too.
    Value(Value<'a>),
    /// A decimal number as text, without zeros that only fill it up.
    Digits(&'a str),
    /// JSON as the server prints it.
    Json(&'a str),
}

const MALFORMED: RowError = RowError::Malformed { what: "values of the types that the server named" };

impl Field {
    /// How a column is sent, by its description; `None` if a column of this kind is not sent so.
    pub(super) fn of(definition: &Definition, kind: &Kind) -> Option<Self> {
        let digits = definition.decimals.min(6);
        let integer = |bytes| match kind {
            Kind::Label(_) => Self::Label { bytes },
            Kind::Labels(_) => Self::Labels { bytes },
            _ => Self::Integer { bytes, is_unsigned: definition.is_unsigned },
        };
        let field = match definition.kind {
            1 => integer(1),
            2 | 13 => integer(2),
            3 | 9 => integer(4),
            8 => integer(8),
            4 => Self::Float,
            5 => Self::Double,
            0 | 246 => Self::Decimal,
            16 => Self::Bit,
            10 | 14 => Self::Date,
            11 | 19 => Self::Time { digits },
            12 | 18 => Self::DateTime { digits },
            7 | 17 => Self::Timestamp { digits },
            245 => Self::Json,
            15 | 242 | 247..=255 => Self::Characters,
            _ => return None,
        };
        let is_plain = !matches!(field, Self::Characters | Self::Label { .. } | Self::Labels { .. });
        (is_plain == (*kind == Kind::Plain)).then_some(field)
    }

    /// Reads a value that is not null, and moves on behind it.
    pub(super) fn read<'a>(self, rest: &mut &'a [u8]) -> Result<Sent<'a>, RowError> {
        Ok(Sent::Value(match self {
            Self::Integer { bytes, is_unsigned } => integer(take(rest, bytes.into())?, is_unsigned),
            Self::Label { bytes } => Value::Label(number(take(rest, bytes.into())?)),
            Self::Labels { bytes } => Value::Labels(number(take(rest, bytes.into())?)),
            Self::Float => Value::Float(f32::from_le_bytes(array(take(rest, 4)?)?)),
            Self::Double => Value::Double(f64::from_le_bytes(array(take(rest, 8)?)?)),
            Self::Bit => Value::Unsigned(packed_bytes(rest)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))),
            Self::Date => Value::Date(date_time(temporal(rest)?)?.0),
            Self::DateTime { digits } => {
                let (date, time) = date_time(temporal(rest)?)?;
                Value::DateTime(date, time, digits)
            }
            Self::Timestamp { digits } => {
                let (date, time) = date_time(temporal(rest)?)?;
                Value::Timestamp(Instant::of_utc(date, time).ok_or(MALFORMED)?, digits)
            }
            Self::Time { digits } => Value::Time(time(temporal(rest)?)?, digits),
            Self::Characters => Value::Characters(packed_bytes(rest)?),
            Self::Decimal => return Ok(Sent::Digits(text(rest)?)),
            Self::Json => return Ok(Sent::Json(text(rest)?)),
        }))
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], RowError> {
    let (taken, after) = rest.split_at_checked(count).ok_or(MALFORMED)?;
    *rest = after;
    Ok(taken)
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], RowError> {
    bytes.try_into().map_err(|_| MALFORMED)
}

fn packed_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RowError> {
    let (length, after) = packed(rest).ok_or(MALFORMED)?;
    *rest = after;
    take(rest, length)
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, RowError> {
    std::str::from_utf8(packed_bytes(rest)?).map_err(|_| MALFORMED)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn integer(bytes: &[u8], is_unsigned: bool) -> Value<'static> {
    let number = number(bytes);
    if is_unsigned {
        return Value::Unsigned(number);
    }
    let unused = 64 - 8 * bytes.len().clamp(1, 8);
    Value::Signed((number << unused).cast_signed() >> unused)
}

/// The bytes of a date or a time, after one byte for their length. Zeros at the end are left out.
fn temporal<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RowError> {
    let [length] = array(take(rest, 1)?)?;
    take(rest, length.into())
}

/// Two bytes for the year, one each for month, day, hour, minute and second, four for microseconds.
fn date_time(bytes: &[u8]) -> Result<(Date, Time), RowError> {
    let mut full = [0; 11];
    full.get_mut(..bytes.len()).ok_or(MALFORMED)?.copy_from_slice(bytes);
    let [y0, y1, month, day, hours, minutes, seconds, u0, u1, u2, u3] = full;
    let date = Date { year: u16::from_le_bytes([y0, y1]), month, day };
    let micros = u32::from_le_bytes([u0, u1, u2, u3]);
    Ok((date, Time { is_negative: false, hours: hours.into(), minutes, seconds, micros }))
}

/// One byte for the sign, four for days, one each for hours, minutes and seconds, four for microseconds.
fn time(bytes: &[u8]) -> Result<Time, RowError> {
    let mut full = [0; 12];
    full.get_mut(..bytes.len()).ok_or(MALFORMED)?.copy_from_slice(bytes);
    let [sign, d0, d1, d2, d3, hours, minutes, seconds, u0, u1, u2, u3] = full;
    let days = u32::from_le_bytes([d0, d1, d2, d3]);
    let hours = days.checked_mul(24).and_then(|whole| whole.checked_add(hours.into())).and_then(|hours| u16::try_from(hours).ok());
    let micros = u32::from_le_bytes([u0, u1, u2, u3]);
    Ok(Time { is_negative: sign != 0, hours: hours.ok_or(MALFORMED)?, minutes, seconds, micros })
}

#[cfg(test)]
mod tests {
    use super::{Field, Sent, Value};
    use crate::source::mysql::binlog::Text;

    fn read(field: Field, bytes: &[u8]) -> Sent<'_> {
        let mut rest = bytes;
        let sent = field.read(&mut rest).unwrap();
        assert!(rest.is_empty());
        sent
    }

    #[test]
    fn integers_keep_their_sign_and_their_width() {
        let signed = |bytes| Field::Integer { bytes, is_unsigned: false };
        assert_eq!(read(signed(1), &[0xFF]), Sent::Value(Value::Signed(-1)));
        assert_eq!(read(signed(4), &[0, 0, 0x80, 0xFF]), Sent::Value(Value::Signed(-8_388_608)));
        assert_eq!(read(Field::Integer { bytes: 8, is_unsigned: true }, &[0xFF; 8]), Sent::Value(Value::Unsigned(u64::MAX)));
        assert_eq!(read(Field::Bit, &[2, 1, 0]), Sent::Value(Value::Unsigned(256)));
    }

    #[test]
    fn zeros_at_the_end_of_a_date_or_time_are_left_out() {
        let Sent::Value(Value::DateTime(date, time, 6)) = read(Field::DateTime { digits: 6 }, &[7, 0xE8, 7, 2, 29, 23, 59, 58]) else {
            panic!()
        };
        assert_eq!(Text::of_date_time(date, time, 6).as_str(), "2024-02-29 23:59:58.000000");
        let Sent::Value(Value::Timestamp(instant, 0)) = read(Field::Timestamp { digits: 0 }, &[0]) else { panic!() };
        assert_eq!(Text::of_instant(instant, 0).as_str(), "0000-00-00 00:00:00");
        let Sent::Value(Value::Timestamp(instant, 3)) =
            read(Field::Timestamp { digits: 3 }, &[11, 0xE8, 7, 2, 29, 23, 59, 58, 0x40, 0xE2, 1, 0])
        else {
            panic!()
        };
        assert_eq!(Text::of_instant(instant, 3).as_str(), "2024-02-29 23:59:58.123+00");
        let Sent::Value(Value::Time(time, 0)) = read(Field::Time { digits: 0 }, &[8, 1, 34, 0, 0, 0, 22, 59, 59]) else { panic!() };
        assert_eq!(Text::of_time(time, 0).as_str(), "-838:59:59");
        assert!(Field::Date.read(&mut &[12, 0][..]).is_err() && Field::Time { digits: 0 }.read(&mut &[13][..]).is_err());
    }
}
