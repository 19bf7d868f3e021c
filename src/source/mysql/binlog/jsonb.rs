//! JSON values in MySQL's binary form, written as JSON text.
//!
//! Source: MySQL 9.7 `sql-common/json_binary.h` (the format), `json_dom.cc` (how values without a JSON type are printed).

use super::bytes::{Malformed, Reader, little};
use super::decimal::{Decimal, TEXT_LENGTH_MAX};
use super::temporal::{self, Text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

const MALFORMED: Malformed = Malformed("value: JSON");

/// The deepest document that the server stores (`JSON_DOCUMENT_MAX_DEPTH`).
const DEPTH_MAX: u8 = 100;

/// The kinds of values.
mod kind {
    pub(super) const SMALL_OBJECT: u8 = 0;
    pub(super) const LARGE_OBJECT: u8 = 1;
    pub(super) const SMALL_ARRAY: u8 = 2;
    pub(super) const LARGE_ARRAY: u8 = 3;
    pub(super) const LITERAL: u8 = 4;
    pub(super) const INT16: u8 = 5;
    pub(super) const UINT16: u8 = 6;
    pub(super) const INT32: u8 = 7;
    pub(super) const UINT32: u8 = 8;
    pub(super) const INT64: u8 = 9;
    pub(super) const UINT64: u8 = 10;
    pub(super) const DOUBLE: u8 = 11;
    pub(super) const STRING: u8 = 12;
    pub(super) const OPAQUE: u8 = 15;
}

/// Appends a document as JSON text. An empty value stands for the null of a column that was added with a default.
///
/// # Errors
/// Where it is malformed.
pub fn write(document: &[u8], out: &mut String) -> Result<(), Malformed> {
    match document.split_first() {
        None => {
            out.push_str("null");
            Ok(())
        }
        Some((kind, value)) => Printer { out, budget: document.len() }.value(*kind, value, 0),
    }
}

/// Writes values.
struct Printer<'o> {
    out: &'o mut String,
    /// How many bytes of the document may still be written: each once, even if a damaged document names them more often.
    budget: usize,
}

impl Printer<'_> {
    fn spend(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.budget = self.budget.checked_sub(bytes).ok_or(MALFORMED)?;
        Ok(())
    }

    /// Appends a value whose bytes begin here.
    fn value(&mut self, kind: u8, value: &[u8], depth: u8) -> Result<(), Malformed> {
        let mut reader = Reader::new(value, MALFORMED.0);
        self.spend(1)?;
        match kind {
            kind::SMALL_OBJECT => self.container(&Container::read(value, 2, true)?, depth),
            kind::LARGE_OBJECT => self.container(&Container::read(value, 4, true)?, depth),
            kind::SMALL_ARRAY => self.container(&Container::read(value, 2, false)?, depth),
            kind::LARGE_ARRAY => self.container(&Container::read(value, 4, false)?, depth),
            kind::LITERAL => {
                self.out.push_str(match reader.byte()? {
                    0 => "null",
                    1 => "true",
                    2 => "false",
                    _ => return Err(MALFORMED),
                });
                Ok(())
            }
            kind::INT16 => self.integer(reader.array().map(i16::from_le_bytes)),
            kind::UINT16 => self.integer(reader.array().map(u16::from_le_bytes)),
            kind::INT32 => self.integer(reader.array().map(i32::from_le_bytes)),
            kind::UINT32 => self.integer(reader.array().map(u32::from_le_bytes)),
            kind::INT64 => self.integer(reader.array().map(i64::from_le_bytes)),
            kind::UINT64 => self.integer(reader.array().map(u64::from_le_bytes)),
            kind::DOUBLE => {
                let number = f64::from_le_bytes(reader.array()?);
                if !number.is_finite() {
                    return Err(MALFORMED);
                }
                double(number, self.out)
            }
            kind::STRING => {
                let length = string_length(&mut reader)?;
                self.string(reader.take(length)?)
            }
            kind::OPAQUE => {
                let kind = reader.byte()?;
                let length = string_length(&mut reader)?;
                self.spend(length)?;
                opaque(kind, reader.take(length)?, self.out)
            }
            _ => Err(MALFORMED),
        }
    }

    fn integer(&mut self, number: Result<impl itoa::Integer, Malformed>) -> Result<(), Malformed> {
        number.map(|number| self.out.push_str(itoa::Buffer::new().format(number)))
    }

    fn string(&mut self, text: &[u8]) -> Result<(), Malformed> {
        self.spend(text.len())?;
        string(text, self.out)
    }

    fn container(&mut self, container: &Container<'_>, depth: u8) -> Result<(), Malformed> {
        if depth == DEPTH_MAX {
            return Err(MALFORMED);
        }
        self.out.push(if container.is_object { '{' } else { '[' });
        for index in 0..container.count {
            if 0 < index {
                self.out.push(',');
            }
            if container.is_object {
                self.string(container.key(index)?)?;
                self.out.push(':');
            }
            let (kind, value) = container.value(index)?;
            self.value(kind, value, depth + 1)?;
        }
        self.out.push(if container.is_object { '}' } else { ']' });
        Ok(())
    }
}

/// Writes a text into this space; returns how long it is.
fn print(space: &mut [u8], text: std::fmt::Arguments<'_>) -> Option<usize> {
    let length = space.len();
    let mut rest = space;
    std::io::Write::write_fmt(&mut rest, text).ok()?;
    Some(length - rest.len())
}

/// The fewest digits that read back as the same number, and its exponent: `-1.25e-7`. Of two numbers of as few digits that are equally near, the
/// server takes the even one (`dtoa`). Returns the length.
fn shortest(number: f64, space: &mut [u8; 32]) -> Option<usize> {
    /// Fewer digits are nearer to the number than half of their last one.
    const DIGITS_MIN: usize = 15;
    /// Digits behind the last one that show whether the number ends there.
    const FURTHER: usize = 24;
    let length = print(space, format_args!("{number:e}"))?;
    let end = space.iter().position(|byte| *byte == b'e')?;
    let fraction = end - space[..end].iter().position(|byte| *byte == b'.').map_or(end, |point| point + 1);
    let last = end - 1;
    if fraction + 1 < DIGITS_MIN || space[last].is_multiple_of(2) {
        return Some(length);
    }
    // In the middle, all digits of the number are those of the even one, and a five.
    let mut exact = [0; 96];
    print(&mut exact, format_args!("{number:.precision$e}", precision = fraction + FURTHER))?;
    let [even, five, zeros @ ..] = exact.get(last..=last + FURTHER)? else { return None };
    let is_middle = exact[..last] == space[..last] && *even == space[last] - 1 && *five == b'5' && zeros.iter().all(|byte| *byte == b'0');
    space[last] -= u8::from(is_middle);
    Some(length)
}

/// Appends a number as the server prints it. It has an exponent if it is below 1e-15, or from 1e15 on if it is whole (`my_gcvt`).
fn double(number: f64, out: &mut String) -> Result<(), Malformed> {
    let mut space = [0; 32];
    let length = shortest(number, &mut space).ok_or(MALFORMED)?;
    let text = std::str::from_utf8(&space[..length]).map_err(|_| MALFORMED)?;
    let (mantissa, exponent) = text.split_once('e').ok_or(MALFORMED)?;
    let exponent: i32 = exponent.parse().map_err(|_| MALFORMED)?;
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let (first, others) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_fraction = usize::try_from(exponent).is_ok_and(|exponent| exponent < others.len());
    if !(-15..15).contains(&exponent) && !has_fraction {
        out.push_str(text);
        return Ok(());
    }
    out.push_str(sign);
    if let Ok(whole) = usize::try_from(exponent) {
        let (integral, fraction) = others.split_at(whole.min(others.len()));
        out.push_str(first);
        out.push_str(integral);
        out.extend(std::iter::repeat_n('0', whole - integral.len()));
        out.push('.');
        out.push_str(if fraction.is_empty() { "0" } else { fraction });
    } else {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
        out.push_str(first);
        out.push_str(others);
    }
    Ok(())
}

/// A length in groups of seven bits, the lowest first; the highest bit of a byte says that another follows.
fn string_length(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    let mut length = 0_u64;
    for group in 0..5 {
        let byte = reader.byte()?;
        length |= u64::from(byte & 0x7F) << (7 * group);
        if byte & 0x80 == 0 {
            return usize::try_from(length).map_err(|_| MALFORMED);
        }
    }
    Err(MALFORMED)
}

/// Appends a JSON string.
pub(super) fn string(text: &[u8], out: &mut String) -> Result<(), Malformed> {
    let text = std::str::from_utf8(text).map_err(|_| MALFORMED)?;
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x0C => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => write!(out, "\\u{byte:04x}").map_err(|_| MALFORMED)?,
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
    Ok(())
}

/// Appends a value of an SQL type that JSON does not have: a number, a date or a time, or its bytes in base64 after the number of its type.
fn opaque(kind: u8, value: &[u8], out: &mut String) -> Result<(), Malformed> {
    match kind {
        246 => {
            let mut reader = Reader::new(value, MALFORMED.0);
            let [precision, scale] = reader.array()?;
            let decimal = Decimal::new(reader.rest(), precision, scale).ok_or(MALFORMED)?;
            out.push_str(decimal.write(&mut [0; TEXT_LENGTH_MAX]));
        }
        10 | 11 | 7 | 12 => {
            let packed = i64::from_le_bytes(Reader::new(value, MALFORMED.0).array()?);
            // The lower 24 bits are microseconds.
            let (whole, micros) = (packed.unsigned_abs() >> 24, (packed.unsigned_abs() & 0xFF_FFFF) as u32);
            let text = match kind {
                10 => Text::of_date(temporal::unpack(whole, 0).0),
                11 => {
                    let time = temporal::Time { is_negative: packed < 0, ..temporal::clock(whole, micros) };
                    Text::of_time(time, 6)
                }
                _ => {
                    let (date, time) = temporal::unpack(whole, micros);
                    Text::of_date_time(date, time, 6)
                }
            };
            string(text.as_str().as_bytes(), out)?;
        }
        _ => {
            write!(out, "\"base64:type{kind}:").map_err(|_| MALFORMED)?;
            STANDARD.encode_string(value, out);
            out.push('"');
        }
    }
    Ok(())
}

/// An object or an array: count and size, then the places of keys and values, then both.
struct Container<'a> {
    bytes: &'a [u8],
    count: usize,
    /// How many bytes a number has: 2 in a small container, 4 in a large one.
    width: usize,
    is_object: bool,
}

impl<'a> Container<'a> {
    fn read(value: &'a [u8], width: usize, is_object: bool) -> Result<Self, Malformed> {
        let mut reader = Reader::new(value, MALFORMED.0);
        let (count, size) = (reader.length(width)?, reader.length(width)?);
        // Places count from the beginning of the container.
        Ok(Self { bytes: value.get(..size).ok_or(MALFORMED)?, count, width, is_object })
    }

    /// A key's place and its length in two bytes.
    fn key(&self, index: usize) -> Result<&'a [u8], Malformed> {
        let mut entry = self.at(2 * self.width + index * (self.width + 2))?;
        let (place, length) = (entry.length(self.width)?, entry.length(2)?);
        self.at(place)?.take(length)
    }

    /// A value's kind, and its place; a small value stands there itself.
    fn value(&self, index: usize) -> Result<(u8, &'a [u8]), Malformed> {
        let keys = if self.is_object { self.count * (self.width + 2) } else { 0 };
        let mut entry = self.at(2 * self.width + keys + index * (1 + self.width))?;
        let kind = entry.byte()?;
        let place = entry.take(self.width)?;
        let is_inlined = match kind {
            kind::LITERAL | kind::INT16 | kind::UINT16 => true,
            kind::INT32 | kind::UINT32 => self.width == 4,
            _ => false,
        };
        if is_inlined {
            return Ok((kind, place));
        }
        let place = usize::try_from(little(place)).map_err(|_| MALFORMED)?;
        Ok((kind, self.at(place)?.rest()))
    }

    fn at(&self, place: usize) -> Result<Reader<'a>, Malformed> {
        Ok(Reader::new(self.bytes.get(place..).ok_or(MALFORMED)?, MALFORMED.0))
    }
}

#[cfg(test)]
mod tests {
    use super::write;

    fn text(document: &[u8]) -> String {
        let mut out = String::new();
        write(document, &mut out).unwrap();
        out
    }

    #[test]
    fn scalars_are_printed_with_all_their_digits() {
        assert_eq!((text(&[]), text(&[4, 0]), text(&[4, 1])), ("null".to_owned(), "null".to_owned(), "true".to_owned()));
        assert_eq!(text(&[&[10][..], &u64::MAX.to_le_bytes()].concat()), "18446744073709551615");
        for (number, expected) in [
            ("2.0", "2.0"),
            ("-0.0", "-0.0"),
            ("-0.1", "-0.1"),
            ("1e-15", "0.000000000000001"),
            ("1.5e-16", "1.5e-16"),
            ("1e14", "100000000000000.0"),
            ("1e15", "1e15"),
            ("1234567890123456.8", "1234567890123456.8"),
            ("862602044700274.25", "862602044700274.2"),
            ("862602044700274.75", "862602044700274.8"),
            ("140737488355328.125", "140737488355328.12"),
            ("140737488355327.375", "140737488355327.38"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("12345.678", "12345.678"),
            ("-1.7976931348623157e308", "-1.7976931348623157e308"),
            ("5e-324", "5e-324"),
        ] {
            assert_eq!(text(&[&[11][..], &number.parse::<f64>().unwrap().to_le_bytes()].concat()), expected);
        }
        assert_eq!(text(b"\x0c\x05a\"\n\x01b"), r#""a\"\n\u0001b""#);
        assert_eq!(text(&[15, 246, 4, 3, 2, 0x80, 0x05]), "0.05");
        assert_eq!(text(&[15, 252, 2, 0, 0xFF]), "\"base64:type252:AP8=\"");
    }

    #[test]
    fn containers_are_read_by_their_places() {
        // {"a": [true, -1]}
        let document = [0, 1, 0, 22, 0, 11, 0, 1, 0, 2, 12, 0, b'a', 2, 0, 10, 0, 4, 1, 0, 5, 0xFF, 0xFF];
        assert_eq!(text(&document), r#"{"a":[true,-1]}"#);
        for length in 1..document.len() {
            assert!(write(&document[..length], &mut String::new()).is_err(), "{length}");
        }
    }

    #[test]
    fn a_document_whose_values_contain_each_other_ends() {
        let itself = [2, 1, 0, 7, 0, 2, 0, 0, 0];
        assert!(write(&itself, &mut String::new()).is_err());
        // Each of 90 arrays has twice the next one: 2^90 values.
        let array = [2, 0, 255, 255, 2, 10, 0, 2, 10, 0];
        let doubled = [&[2][..], &array.repeat(90), &vec![0; 70_000]].concat();
        assert!(write(&doubled, &mut String::new()).is_err());
    }
}
