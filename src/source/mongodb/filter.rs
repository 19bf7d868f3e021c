//! The query of a prefeed: a filter of MongoDB, written as Extended JSON v2 (MongoDB specifications, "Extended JSON").

use super::bson::Writer;
use super::document::KEY;
use super::error::Error;
use crate::event::day_number;
use crate::feed::{Feed, PrefeedKind};
use serde_json::{Map, Value};

/// The filter of a feed's prefeed; empty for a whole collection.
pub(super) fn of(feed: &Feed) -> Result<Vec<u8>, Error> {
    let PrefeedKind::Query(query) = &feed.prefeed else { return Ok(Writer::new().finish()) };
    let refused = |reason: String| Error::Query { table: feed.name.to_string(), reason };
    if feed.key.len() != 1 || &*feed.key[0] != KEY {
        return Err(refused("its key must be [\"_id\"]".to_owned()));
    }
    match serde_json::from_str(query) {
        Ok(Value::Object(fields)) => document(&fields).map_err(|reason| refused(reason.to_owned())),
        Ok(_) => Err(refused("it is no object".to_owned())),
        Err(error) => Err(refused(error.to_string())),
    }
}

fn document(fields: &Map<String, Value>) -> Result<Vec<u8>, &'static str> {
    let mut written = Writer::new();
    for (name, value) in fields {
        if name.contains('\0') {
            return Err("a name has a zero byte");
        }
        written = element(written, name, value)?;
    }
    Ok(written.finish())
}

fn element(written: Writer, name: &str, value: &Value) -> Result<Writer, &'static str> {
    Ok(match value {
        Value::Null => written.null(name),
        Value::Bool(value) => written.boolean(name, *value),
        Value::String(text) => written.text(name, text),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => match i32::try_from(whole) {
                Ok(small) => written.int(name, small),
                Err(_) => written.long(name, whole),
            },
            (None, Some(double)) => written.double(name, double),
            (None, None) => return Err("a number is too large"),
        },
        Value::Array(elements) => {
            let mut array = Writer::new();
            for (index, value) in elements.iter().enumerate() {
                array = element(array, &index.to_string(), value)?;
            }
            written.raw(name, (0x04, &array.finish()))
        }
        Value::Object(fields) => match typed(fields)? {
            Some((kind, value)) => written.raw(name, (kind, &value)),
            None => written.document(name, &document(fields)?),
        },
    })
}

/// The value that an object of Extended JSON is; `None` for any other object. Operators begin with `$` too.
fn typed(fields: &Map<String, Value>) -> Result<Option<(u8, Vec<u8>)>, &'static str> {
    let mut all = fields.iter();
    let (Some((name, value)), None) = (all.next(), all.next()) else { return Ok(None) };
    let text = value.as_str();
    Ok(Some(match name.as_str() {
        "$oid" => (0x07, text.and_then(bytes_of_hex::<12>).ok_or("$oid needs 24 hexadecimal digits")?.to_vec()),
        "$uuid" => {
            let digits = text.map(|text| text.replace('-', ""));
            let uuid = digits.and_then(|digits| bytes_of_hex::<16>(&digits)).ok_or("$uuid needs a UUID")?;
            (0x05, [&[16, 0, 0, 0, 4][..], &uuid].concat())
        }
        "$numberInt" => (0x10, number::<i32>(text).ok_or("$numberInt needs a number of 32 bits as a string")?.to_le_bytes().to_vec()),
        "$numberLong" => (0x12, number::<i64>(text).ok_or("$numberLong needs a number of 64 bits as a string")?.to_le_bytes().to_vec()),
        "$numberDouble" => (0x01, number::<f64>(text).ok_or("$numberDouble needs a number as a string")?.to_le_bytes().to_vec()),
        "$date" => {
            let written = value.as_object().and_then(|inner| inner.get("$numberLong")).and_then(Value::as_str);
            let millis = number::<i64>(written).or_else(|| text.and_then(millis));
            (0x09, millis.ok_or("$date needs a time like \"2026-11-30T19:58:38Z\"")?.to_le_bytes().to_vec())
        }
        "$numberDecimal" | "$binary" | "$timestamp" | "$regularExpression" | "$minKey" | "$maxKey" | "$code" | "$symbol" | "$dbPointer" => {
            return Err("this type of Extended JSON is not supported in a filter");
        }
        _ => return Ok(None),
    }))
}

fn number<N: std::str::FromStr>(text: Option<&str>) -> Option<N> {
    text?.parse().ok()
}

fn bytes_of_hex<const LENGTH: usize>(digits: &str) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    if digits.len() != 2 * LENGTH || !digits.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Milliseconds since 1970 of `YYYY-MM-DDTHH:MM:SS[.mmm]Z`.
fn millis(text: &str) -> Option<i64> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let part = |text: Option<&str>| text?.parse::<i64>().ok().filter(|number| 0 <= *number);
    let (mut date, mut clock) = (date.split('-'), clock.split(':'));
    let (year, month, day) = (part(date.next())?, part(date.next())?, part(date.next())?);
    let (hour, minute, second) = (part(clock.next())?, part(clock.next())?, part(clock.next())?);
    let is_valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60 && year < 10_000;
    if !is_valid || date.next().is_some() || clock.next().is_some() || 3 < fraction.len() {
        return None;
    }
    let fraction = part(Some(&format!("{fraction:0<3}")))?;
    Some((day_number(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second) * 1000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::super::bson::{Document, Value};
    use super::{document, millis};

    fn parse(text: &str) -> Result<Vec<u8>, &'static str> {
        document(serde_json::from_str::<serde_json::Value>(text).unwrap().as_object().unwrap())
    }

    #[test]
    fn a_filter_has_the_types_that_it_names() {
        let written = parse(
            r#"{"a":1,"b":3000000000,"c":1.5,"d":{"$gte":{"$date":"2012-12-24T12:15:30.501Z"}},"e":{"$oid":"656800000000000000000001"},
                "f":{"$in":["x",null,true]},"g":{"$numberLong":"7"},"h":{"$uuid":"00010203-0405-0607-0809-0a0b0c0d0e0f"}}"#,
        );
        let written = written.unwrap();
        let document = Document::new(&written).unwrap();
        let value = |name| document.get(name).unwrap().unwrap();
        assert_eq!(
            (value("a"), value("b"), value("c"), value("g")),
            (Value::Int32(1), Value::Int64(3_000_000_000), Value::Double(1.5), Value::Int64(7))
        );
        assert_eq!(value("d").document().unwrap().get("$gte").unwrap(), Some(Value::DateTime(1_356_351_330_501)));
        assert!(matches!(value("e"), Value::ObjectId([0x65, 0x68, .., 1])));
        assert_eq!(value("f").document().unwrap().get("$in").unwrap().unwrap().array().unwrap().elements().count(), 3);
        assert!(matches!(value("h"), Value::Binary { subtype: 4, bytes: [0, .., 15] }));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for wrong in
            [r#"{"a":{"$oid":"12"}}"#, r#"{"a":{"$date":"yesterday"}}"#, r#"{"a":[{"$numberInt":"x"}]}"#, r#"{"a":{"$numberDecimal":"1"}}"#]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["2012-12-24", "2012-13-24T00:00:00Z", "2012-12-24T00:00Z", "2012-12-24T00:00:00+01:00", "2012-12-24T00:00:00.1234Z"] {
            assert_eq!(millis(wrong), None, "{wrong}");
        }
        assert_eq!(millis("1970-01-01T00:00:01.5Z"), Some(1500));
    }
}
