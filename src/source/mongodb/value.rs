//! Maps values of BSON to cells.
//!
//! | BSON | `plain` | `relaxed` | `canonical` |
//! |---|---|---|---|
//! | double | `Double` | `Double`; not finite: `$numberDouble` | `$numberDouble` |
//! | int32, int64 | `Signed` | `Signed` | `$numberInt`, `$numberLong` |
//! | decimal128 | `Decimal` | `$numberDecimal` | `$numberDecimal` |
//! | string, boolean, null, array, document | as they are | as they are | as they are |
//! | `ObjectId` | `Text` | `$oid` | `$oid` |
//! | date | `TimestampUtc` | `$date` with ISO 8601 | `$date` with `$numberLong` |
//! | binary: generic, UUID | `Bytes`, `Text` | `$binary` | `$binary` |
//!
//! All other types are objects of Extended JSON v2 in each spelling. A string that is not UTF-8 is `MisplacedBytes`.

use super::bson::{Document, Value};
use super::decimal::Decimal;
use super::hex::hex;
use super::options::Spelling;
use crate::event::{Bytes, Cell, Elements, Fields, RowError, civil};
use std::fmt::{self, Write as _};

/// The most levels of arrays and documents. A server stores 180 at most (`BSONDepth::kDefaultMaxAllowableDepth`, and a margin).
const DEPTH_MAX: u16 = 200;
const UUID: u8 = 4;

type Visit<'v> = &'v mut dyn FnMut(Cell<'_>) -> Result<(), RowError>;

/// Visits a value as a cell.
pub(super) fn visit(value: Value<'_>, spelling: Spelling, depth: u16, visit: Visit<'_>) -> Result<(), RowError> {
    match value {
        Value::Null => visit(Cell::Null),
        Value::Boolean(value) => visit(Cell::Boolean(value)),
        Value::Text(text) => visit(of_text(text)),
        Value::Document(_) | Value::Array(_) if depth == DEPTH_MAX => {
            Err(RowError::Malformed { what: "the document is nested more than 200 levels deep" })
        }
        Value::Document(document) => visit(Cell::Object(&Nested { document, spelling, depth: depth + 1 })),
        Value::Array(document) => visit(Cell::Array(&Nested { document, spelling, depth: depth + 1 })),
        Value::Int32(number) => whole("$numberInt", number.into(), spelling, visit),
        Value::Int64(number) => whole("$numberLong", number, spelling, visit),
        Value::Double(number) if spelling == Spelling::Plain || (spelling == Spelling::Relaxed && number.is_finite()) => {
            visit(Cell::Double(number))
        }
        Value::Double(number) => one("$numberDouble", Cell::Text(&double(number)), visit),
        Value::Decimal128(bits) => {
            let text = Decimal::new(bits);
            match spelling {
                Spelling::Plain => visit(Cell::Decimal(text.as_str())),
                Spelling::Relaxed | Spelling::Canonical => one("$numberDecimal", Cell::Text(text.as_str()), visit),
            }
        }
        Value::ObjectId(id) => match spelling {
            Spelling::Plain => visit(Cell::Text(&hex(&id))),
            Spelling::Relaxed | Spelling::Canonical => one("$oid", Cell::Text(&hex(&id)), visit),
        },
        Value::DateTime(millis) => date(millis, spelling, visit),
        Value::Binary { subtype, bytes } => binary(subtype, bytes, spelling, visit),
        other => extended(other, spelling, depth, visit),
    }
}

/// Types that have no cell of their own.
fn extended(value: Value<'_>, spelling: Spelling, depth: u16, visit: Visit<'_>) -> Result<(), RowError> {
    match value {
        Value::Regex { pattern, options } => two("$regularExpression", ("pattern", of_text(pattern)), ("options", of_text(options)), visit),
        Value::Timestamp(timestamp) => {
            let (seconds, counter) = (timestamp >> 32, timestamp & u64::from(u32::MAX));
            two("$timestamp", ("t", Cell::Unsigned(seconds)), ("i", Cell::Unsigned(counter)), visit)
        }
        Value::DbPointer { namespace, id } => {
            let id = hex(&id);
            let fields = [("$oid", Cell::Text(&id))];
            two("$dbPointer", ("$ref", of_text(namespace)), ("$id", Cell::Object(&Named(&fields))), visit)
        }
        Value::Code(code) => one("$code", of_text(code), visit),
        Value::CodeWithScope { code, scope } => {
            let scope = Nested { document: scope, spelling, depth: depth + 1 };
            visit(Cell::Object(&Named(&[("$code", of_text(code)), ("$scope", Cell::Object(&scope))])))
        }
        Value::Symbol(symbol) => one("$symbol", of_text(symbol), visit),
        Value::Undefined => one("$undefined", Cell::Boolean(true), visit),
        Value::MinKey => one("$minKey", Cell::Signed(1), visit),
        Value::MaxKey => one("$maxKey", Cell::Signed(1), visit),
        _ => Err(RowError::Malformed { what: "a value has no spelling" }),
    }
}

/// A text, or the bytes of one that is not UTF-8: servers take such from old clients.
fn of_text(text: &[u8]) -> Cell<'_> {
    match std::str::from_utf8(text) {
        Ok(text) => Cell::Text(text),
        Err(_) => Cell::MisplacedBytes(Bytes::Raw(text)),
    }
}

fn one(name: &str, cell: Cell<'_>, visit: Visit<'_>) -> Result<(), RowError> {
    visit(Cell::Object(&Named(&[(name, cell)])))
}

fn two(name: &str, first: (&str, Cell<'_>), second: (&str, Cell<'_>), visit: Visit<'_>) -> Result<(), RowError> {
    one(name, Cell::Object(&Named(&[first, second])), visit)
}

fn whole(name: &str, number: i64, spelling: Spelling, visit: Visit<'_>) -> Result<(), RowError> {
    match spelling {
        Spelling::Plain | Spelling::Relaxed => visit(Cell::Signed(number)),
        Spelling::Canonical => one(name, Cell::Text(&number.to_string()), visit),
    }
}

/// A double as Extended JSON spells it.
fn double(number: f64) -> String {
    match number {
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ if number.is_nan() => "NaN".to_owned(),
        _ => format!("{number:?}"),
    }
}

fn binary(subtype: u8, bytes: &[u8], spelling: Spelling, visit: Visit<'_>) -> Result<(), RowError> {
    match (spelling, subtype) {
        (Spelling::Plain, 0) => visit(Cell::Bytes(Bytes::Raw(bytes))),
        (Spelling::Plain, UUID) if bytes.len() == 16 => {
            let digits = hex(bytes);
            let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            visit(Cell::Text(&groups.join("-")))
        }
        _ => {
            let subtype = format!("{subtype:02x}");
            two("$binary", ("base64", Cell::Bytes(Bytes::Raw(bytes))), ("subType", Cell::Text(&subtype)), visit)
        }
    }
}

fn date(millis: i64, spelling: Spelling, visit: Visit<'_>) -> Result<(), RowError> {
    let seconds = millis.div_euclid(1000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let clock = seconds.rem_euclid(86_400);
    let (hour, minute, second, fraction) = (clock / 3600, clock / 60 % 60, clock % 60, millis.rem_euclid(1000));
    let is_readable = (1970..=9999).contains(&year);
    match spelling {
        Spelling::Plain if (1..=9999).contains(&year) => {
            let text = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{fraction:03}+00");
            visit(Cell::TimestampUtc(&text))
        }
        // ISO 8601 with more digits for the year, as MongoDB's shell shows it.
        Spelling::Plain => {
            visit(Cell::TimestampUtc(&format!("{year:+07}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")))
        }
        Spelling::Relaxed if is_readable => {
            let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:03}") };
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z");
            one("$date", Cell::Text(&text), visit)
        }
        Spelling::Relaxed | Spelling::Canonical => {
            let millis = millis.to_string();
            one("$date", Cell::Object(&Named(&[("$numberLong", Cell::Text(&millis))])), visit)
        }
    }
}

/// An object with these fields.
struct Named<'n>(&'n [(&'n str, Cell<'n>)]);

impl Fields for Named<'_> {
    fn visit(&self, visit: &mut dyn FnMut(&str, Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        self.0.iter().try_for_each(|(name, cell)| visit(name, *cell))
    }
}

/// A document or an array in a document.
struct Nested<'d> {
    document: Document<'d>,
    spelling: Spelling,
    depth: u16,
}

impl Elements for Nested<'_> {
    fn visit(&self, each: &mut dyn FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        self.document.elements().try_for_each(|element| visit(element?.value, self.spelling, self.depth, each))
    }
}

impl Fields for Nested<'_> {
    fn visit(&self, each: &mut dyn FnMut(&str, Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        self.document.elements().try_for_each(|element| {
            let element = element?;
            let name = element.text_name()?;
            visit(element.value, self.spelling, self.depth, &mut |cell| each(name, cell))
        })
    }
}

/// Writes a cell of this module for a person: as JSON, without escapes.
pub(super) fn show(cell: Cell<'_>, out: &mut String) -> Result<(), RowError> {
    match cell {
        Cell::Null => out.push_str("null"),
        Cell::Boolean(value) => put(out, format_args!("{value}")),
        Cell::Signed(number) => put(out, format_args!("{number}")),
        Cell::Unsigned(number) => put(out, format_args!("{number}")),
        Cell::Double(number) => put(out, format_args!("{number:?}")),
        Cell::Text(text) | Cell::TimestampUtc(text) | Cell::Decimal(text) => put(out, format_args!("\"{text}\"")),
        Cell::Bytes(Bytes::Raw(bytes)) => put(out, format_args!("\"{}\"", hex(bytes))),
        Cell::Array(elements) => {
            out.push('[');
            let mut separator = "";
            elements.visit(&mut |cell| {
                out.push_str(std::mem::replace(&mut separator, ","));
                show(cell, out)
            })?;
            out.push(']');
        }
        Cell::Object(fields) => {
            out.push('{');
            let mut separator = "";
            fields.visit(&mut |name, cell| {
                out.push_str(std::mem::replace(&mut separator, ","));
                put(out, format_args!("\"{name}\":"));
                show(cell, out)
            })?;
            out.push('}');
        }
        _ => out.push('?'),
    }
    Ok(())
}

fn put(out: &mut String, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::super::bson::{Document, Value, Writer};
    use super::super::options::Spelling::{self, Canonical, Plain, Relaxed};
    use super::{DEPTH_MAX, show, visit};
    use crate::event::RowError;

    fn spelled(value: Value<'_>, spelling: Spelling) -> Result<String, RowError> {
        let mut text = String::new();
        visit(value, spelling, 0, &mut |cell| show(cell, &mut text))?;
        Ok(text)
    }

    #[test]
    fn every_type_has_its_spellings() {
        let id = [0x65, 0x68, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let uuid: Vec<u8> = (0..16).collect();
        let same = |value: Value<'static>, text: &'static str| (value, [text; 3]);
        let all = [
            (Value::Int32(-1), ["-1", "-1", r#"{"$numberInt":"-1"}"#]),
            (Value::Int64(i64::MIN), ["-9223372036854775808", "-9223372036854775808", r#"{"$numberLong":"-9223372036854775808"}"#]),
            (Value::Double(1.0), ["1.0", "1.0", r#"{"$numberDouble":"1.0"}"#]),
            (Value::Double(f64::NAN), ["NaN", r#"{"$numberDouble":"NaN"}"#, r#"{"$numberDouble":"NaN"}"#]),
            (
                Value::ObjectId(id),
                ["\"656800000000000000000001\"", r#"{"$oid":"656800000000000000000001"}"#, r#"{"$oid":"656800000000000000000001"}"#],
            ),
            (
                Value::DateTime(1_356_351_330_501),
                [
                    r#""2012-12-24 12:15:30.501+00""#,
                    r#"{"$date":"2012-12-24T12:15:30.501Z"}"#,
                    r#"{"$date":{"$numberLong":"1356351330501"}}"#,
                ],
            ),
            (
                Value::DateTime(0),
                [r#""1970-01-01 00:00:00.000+00""#, r#"{"$date":"1970-01-01T00:00:00Z"}"#, r#"{"$date":{"$numberLong":"0"}}"#],
            ),
            (
                Value::DateTime(-284_643_869_501),
                [
                    r#""1960-12-24 12:15:30.499+00""#,
                    r#"{"$date":{"$numberLong":"-284643869501"}}"#,
                    r#"{"$date":{"$numberLong":"-284643869501"}}"#,
                ],
            ),
            (
                Value::DateTime(253_402_300_800_000),
                [
                    r#""+010000-01-01T00:00:00.000Z""#,
                    r#"{"$date":{"$numberLong":"253402300800000"}}"#,
                    r#"{"$date":{"$numberLong":"253402300800000"}}"#,
                ],
            ),
            (
                Value::Binary { subtype: 4, bytes: &uuid },
                [
                    "\"00010203-0405-0607-0809-0a0b0c0d0e0f\"",
                    r#"{"$binary":{"base64":"000102030405060708090a0b0c0d0e0f","subType":"04"}}"#,
                    r#"{"$binary":{"base64":"000102030405060708090a0b0c0d0e0f","subType":"04"}}"#,
                ],
            ),
            same(Value::Binary { subtype: 0x80, bytes: &[255] }, r#"{"$binary":{"base64":"ff","subType":"80"}}"#),
            same(Value::Timestamp(7 << 32 | 3), r#"{"$timestamp":{"t":7,"i":3}}"#),
            same(Value::Regex { pattern: b"a.b", options: b"i" }, r#"{"$regularExpression":{"pattern":"a.b","options":"i"}}"#),
            same(Value::MinKey, r#"{"$minKey":1}"#),
            same(Value::MaxKey, r#"{"$maxKey":1}"#),
            same(Value::Undefined, r#"{"$undefined":true}"#),
            same(Value::Symbol(b"s"), r#"{"$symbol":"s"}"#),
            same(Value::Code(b"f()"), r#"{"$code":"f()"}"#),
            same(Value::CodeWithScope { code: b"f()", scope: Document::EMPTY }, r#"{"$code":"f()","$scope":{}}"#),
            same(
                Value::DbPointer { namespace: b"a.b", id: [0; 12] },
                r#"{"$dbPointer":{"$ref":"a.b","$id":{"$oid":"000000000000000000000000"}}}"#,
            ),
            same(Value::Null, "null"),
            same(Value::Boolean(true), "true"),
            same(Value::Text("é\"".as_bytes()), "\"é\"\""),
            same(Value::Text(&[255]), "?"),
        ];
        for (value, expected) in all {
            for (spelling, expected) in [Plain, Relaxed, Canonical].into_iter().zip(expected) {
                assert_eq!(spelled(value, spelling).unwrap(), expected, "{value:?} {spelling:?}");
            }
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_no_stack_ends() {
        let nested =
            |levels: u16| (0..levels).fold(Document::EMPTY.bytes().to_vec(), |inner, _| Writer::new().document("a", &inner).finish());
        let spelled = |levels| spelled(Value::Document(Document::new(&nested(levels)).unwrap()), Plain);
        assert!(spelled(DEPTH_MAX - 1).is_ok());
        assert!(spelled(DEPTH_MAX).is_err() && spelled(2000).is_err());
    }
}
