//! Extended JSON as BSON and back, and the messages that hold it: as much as the tests need.

use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{self, Read};

/// The message with this document, which answers a request.
pub(super) fn message(answers: i32, document: &[u8]) -> Vec<u8> {
    let length = i32::try_from(21 + document.len()).expect("messages of the tests are small");
    let mut message = Vec::new();
    for number in [length, 1, answers, 2013, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(document);
    message
}

/// The next message: its number, and its document.
pub(super) fn read_message(from: &mut impl Read) -> io::Result<(i32, Value)> {
    let mut header = [0; 16];
    from.read_exact(&mut header)?;
    let number = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let mut body = vec![0; usize::try_from(number(0)).expect("a length") - 16];
    from.read_exact(&mut body)?;
    Ok((number(4), read_document(&mut &body[5..])))
}

/// A document that these fields are.
pub(super) fn whole(fields: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    document(&mut out, fields.as_object().expect("a document is an object"));
    out
}

pub(super) fn end(out: &mut Vec<u8>, start: usize) {
    out.push(0);
    let length = u32::try_from(out.len() - start).expect("documents of the tests are small");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn document(out: &mut Vec<u8>, fields: &Map<String, Value>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fields.iter().for_each(|(name, value)| element(out, name, value));
    end(out, start);
}

pub(super) fn element(out: &mut Vec<u8>, name: &str, value: &Value) {
    let mut begin = |kind: u8| {
        out.push(kind);
        out.extend_from_slice(name.as_bytes());
        out.push(0);
    };
    match value {
        Value::Null => begin(0x0A),
        Value::Bool(value) => {
            begin(0x08);
            out.push(u8::from(*value));
        }
        Value::Number(number) => {
            if let Some(whole) = number.as_i64() {
                if let Ok(small) = i32::try_from(whole) {
                    begin(0x10);
                    out.extend_from_slice(&small.to_le_bytes());
                } else {
                    begin(0x12);
                    out.extend_from_slice(&whole.to_le_bytes());
                }
            } else {
                begin(0x01);
                out.extend_from_slice(&number.as_f64().expect("a double").to_le_bytes());
            }
        }
        Value::String(text) => {
            begin(0x02);
            out.extend_from_slice(&u32::try_from(text.len() + 1).expect("a text of the tests").to_le_bytes());
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
        Value::Array(elements) => {
            begin(0x04);
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            elements.iter().enumerate().for_each(|(index, value)| element(out, &index.to_string(), value));
            end(out, start);
        }
        Value::Object(fields) => {
            let only = fields.iter().next().filter(|_| fields.len() == 1);
            if let Some((kind, bytes)) = only.and_then(|(name, value)| typed(name, value)) {
                begin(kind);
                out.extend_from_slice(&bytes);
            } else {
                begin(0x03);
                document(out, fields);
            }
        }
    }
}

/// A value of Extended JSON: its type, and its bytes. `$raw` is one that JSON cannot express: the number of the type, and hexadecimal digits.
fn typed(name: &str, value: &Value) -> Option<(u8, Vec<u8>)> {
    let bytes = |digits: &str| -> Vec<u8> {
        (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hexadecimal digits")).collect()
    };
    let text = value.as_str();
    Some(match name {
        "$oid" => (0x07, bytes(text?)),
        "$uuid" => (0x05, [&[16, 0, 0, 0, 4][..], &bytes(text?)].concat()),
        "$numberLong" => (0x12, text?.parse::<i64>().ok()?.to_le_bytes().to_vec()),
        "$numberDouble" => (0x01, text?.parse::<f64>().ok()?.to_le_bytes().to_vec()),
        "$timestamp" => (0x11, value.as_u64()?.to_le_bytes().to_vec()),
        "$date" => (0x09, value["$numberLong"].as_str()?.parse::<i64>().ok()?.to_le_bytes().to_vec()),
        "$raw" => (u8::try_from(value[0].as_u64()?).ok()?, bytes(value[1].as_str()?)),
        _ => return None,
    })
}

fn take<const LENGTH: usize>(bytes: &mut &[u8]) -> [u8; LENGTH] {
    let (taken, rest) = bytes.split_first_chunk().expect("a whole value");
    *bytes = rest;
    *taken
}

fn name(bytes: &mut &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).expect("a name ends");
    let name = String::from_utf8_lossy(&bytes[..end]).into_owned();
    *bytes = &bytes[end + 1..];
    name
}

fn read_document(bytes: &mut &[u8]) -> Value {
    let _length: [u8; 4] = take(bytes);
    let mut fields = Map::new();
    loop {
        let [kind] = take::<1>(bytes);
        if kind == 0 {
            return Value::Object(fields);
        }
        let name = name(bytes);
        fields.insert(name, read_value(kind, bytes));
    }
}

fn read_value(kind: u8, bytes: &mut &[u8]) -> Value {
    match kind {
        0x01 => json!(f64::from_le_bytes(take(bytes))),
        0x02 => {
            let length = u32::from_le_bytes(take(bytes)) as usize;
            let (text, rest) = bytes.split_at(length);
            *bytes = rest;
            json!(String::from_utf8_lossy(&text[..length - 1]))
        }
        0x03 => read_document(bytes),
        0x04 => Value::Array(read_document(bytes).as_object().expect("an array").values().cloned().collect()),
        0x05 => {
            let length = u32::from_le_bytes(take(bytes)) as usize;
            let (binary, rest) = bytes.split_at(length + 1);
            *bytes = rest;
            json!({"$binary": hexadecimal(&binary[1..])})
        }
        0x07 => json!({"$oid": hexadecimal(&take::<12>(bytes))}),
        0x08 => json!(take::<1>(bytes) == [1]),
        0x09 => json!({"$date": {"$numberLong": i64::from_le_bytes(take(bytes)).to_string()}}),
        0x0A => Value::Null,
        0x10 => json!(i32::from_le_bytes(take(bytes))),
        0x11 => json!({"$timestamp": u64::from_le_bytes(take(bytes))}),
        0x12 => json!(i64::from_le_bytes(take(bytes))),
        _ => panic!("the tests read no value of type {kind}"),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}
