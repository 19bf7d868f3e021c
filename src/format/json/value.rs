//! Writes cells as JSON values.

use super::{compact, text};
use crate::event::{Bytes, Cell, Elements, Fields, RowError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Write as _;

/// Appends one value.
pub(super) fn write(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<(), RowError> {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Unchanged | Cell::Absent => return Err(RowError::Malformed { what: "an element or a field carries no value" }),
        Cell::Boolean(true) => out.extend_from_slice(b"true"),
        Cell::Boolean(false) => out.extend_from_slice(b"false"),
        Cell::Integer(digits) | Cell::Float(digits) => number(digits, out),
        Cell::Signed(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Cell::Unsigned(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Cell::Double(number) => double(number, out),
        Cell::Decimal(value) | Cell::Text(value) | Cell::Date(value) | Cell::Time(value) | Cell::Interval(value) => text::write(value, out),
        Cell::Bytes(bytes) => base64(bytes, out)?,
        Cell::MisplacedBytes(bytes) => {
            out.extend_from_slice(br#"{"base64":"#);
            base64(bytes, out)?;
            out.push(b'}');
        }
        Cell::Json(json) => compact::write(json, out),
        Cell::Timestamp(value) => timestamp(value, "", "", out),
        Cell::TimestampUtc(value) => timestamp(value, "+00", "Z", out),
        Cell::Array(elements) => array(elements, out)?,
        Cell::Object(fields) => object(fields, out)?,
    }
    Ok(())
}

/// Appends a number as the source prints it. What is not a number in JSON (`NaN`, `Infinity`) becomes a string.
fn number(digits: &str, out: &mut Vec<u8>) {
    if compact::number(digits.as_bytes()) == Some(digits.len()) {
        out.extend_from_slice(digits.as_bytes());
    } else {
        text::write(digits, out);
    }
}

/// Appends a number with the fewest digits that read back as the same number: `1.0`, `-0.0`, `1e300`. What JSON does not have becomes
/// a string.
fn double(number: f64, out: &mut Vec<u8>) {
    match number {
        f64::INFINITY => text::write("Infinity", out),
        f64::NEG_INFINITY => text::write("-Infinity", out),
        _ if number.is_nan() => text::write("NaN", out),
        _ => write!(out, "{number:?}").expect("a vector takes all"),
    }
}

/// Appends `YYYY-MM-DD HH:MM:SS[.fraction]` with `T` instead of the space and the time zone's suffix replaced. Other text (infinity,
/// years outside 1 to 9999) is copied unchanged. It is recognised by its length before the first space, or by the suffix ` BC`.
fn timestamp(value: &str, suffix: &str, replacement: &str, out: &mut Vec<u8>) {
    let regular = value.strip_suffix(suffix).and_then(|value| {
        let (date, time) = value.split_at_checked(10)?;
        Some((date, time.strip_prefix(' ').filter(|time| time.ends_with(|last: char| last.is_ascii_digit()))?))
    });
    let Some((date, time)) = regular else { return text::write(value, out) };
    out.push(b'"');
    text::fragment(date, out);
    out.push(b'T');
    text::fragment(time, out);
    out.extend_from_slice(replacement.as_bytes());
    out.push(b'"');
}

fn array(elements: &dyn Elements, out: &mut Vec<u8>) -> Result<(), RowError> {
    let mut separator = b'[';
    elements.visit(&mut |cell| {
        out.push(separator);
        separator = b',';
        write(cell, out)
    })?;
    if separator == b'[' {
        out.push(separator);
    }
    out.push(b']');
    Ok(())
}

fn object(fields: &dyn Fields, out: &mut Vec<u8>) -> Result<(), RowError> {
    let mut separator = b'{';
    fields.visit(&mut |name, cell| {
        out.push(separator);
        separator = b',';
        text::write(name, out);
        out.push(b':');
        write(cell, out)
    })?;
    if separator == b'{' {
        out.push(separator);
    }
    out.push(b'}');
    Ok(())
}

fn base64(bytes: Bytes<'_>, out: &mut Vec<u8>) -> Result<(), RowError> {
    /// A multiple of 3, so that only the last chunk is padded.
    const CHUNK_BYTES: usize = 384;
    out.push(b'"');
    match bytes {
        Bytes::Raw(bytes) => base64_chunk(bytes, out),
        Bytes::Hex(digits) => {
            let mut chunk = [0; CHUNK_BYTES];
            for digits in digits.chunks(2 * CHUNK_BYTES) {
                let bytes = &mut chunk[..digits.len().div_ceil(2)];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
                    *byte = hex(pair).ok_or(RowError::Malformed { what: "bytes are not pairs of hexadecimal digits" })?;
                }
                base64_chunk(bytes, out);
            }
        }
    }
    out.push(b'"');
    Ok(())
}

fn base64_chunk(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("the output has four characters for each three bytes");
}

fn hex(pair: &[u8]) -> Option<u8> {
    const fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            b'A'..=b'F' => Some(byte - b'A' + 10),
            _ => None,
        }
    }
    let [high, low] = *pair else { return None };
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::event::{Cell, Fields, RowError};

    fn written(cell: Cell<'_>) -> String {
        let mut out = Vec::new();
        write(cell, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_take_their_shortest_digits() {
        for (number, expected) in [
            (0.1 + 0.2, "0.30000000000000004"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (f64::MAX, "1.7976931348623157e308"),
            (-f64::MIN_POSITIVE, "-2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (f64::NEG_INFINITY, "\"-Infinity\""),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NAN, "\"NaN\""),
        ] {
            assert_eq!(written(Cell::Double(number)), expected);
        }
        assert_eq!(written(Cell::Signed(i64::MIN)), "-9223372036854775808");
        assert_eq!(written(Cell::Unsigned(u64::MAX)), "18446744073709551615");
    }

    /// A document, nested in itself.
    struct Document(u8);

    impl Fields for Document {
        fn visit(&self, visit: &mut dyn FnMut(&str, Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
            if self.0 == 0 {
                return Ok(());
            }
            visit("a\"", Cell::Text("b"))?;
            visit("inner", Cell::Object(&Self(self.0 - 1)))
        }
    }

    #[test]
    fn a_document_is_an_object_with_its_fields_in_order() {
        assert_eq!(written(Cell::Object(&Document(2))), r#"{"a\"":"b","inner":{"a\"":"b","inner":{}}}"#);
    }
}
