//! Writes the values of attributes: strings without control characters and noncharacters (CloudEvents 1.0.2, "Type System").
//!
//! A character that an attribute may not have is escaped as in JSON: `\u0085`. A key is JSON, and stays the same value with that.

use std::ops::Range;

/// Appends text in UTF-8 as an attribute's value.
pub(in crate::format) fn write(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((at, length)) = next_refused(rest) {
        out.extend_from_slice(&rest[..at]);
        escape(&rest[at..at + length], b"\\u", out);
        rest = &rest[at + length..];
    }
    out.extend_from_slice(rest);
}

/// A name as an attribute's value.
pub(in crate::format) fn of(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    write(name.as_bytes(), &mut out);
    out
}

/// Appends a part of `out` itself as an attribute's value, inside a JSON string.
pub(super) fn repeat_in_json(part: Range<usize>, out: &mut Vec<u8>) {
    let mut at = part.start;
    while at < part.end {
        let rest = &out[at..part.end];
        let is_clean = |index: &usize| !matches!(rest[*index], b'"' | b'\\') && refused_length(&rest[*index..]) == 0;
        let clean = (0..rest.len()).take_while(is_clean).count();
        out.extend_from_within(at..at + clean);
        at += clean;
        match out[at..part.end] {
            [byte @ (b'"' | b'\\'), ..] => {
                out.extend_from_slice(&[b'\\', byte]);
                at += 1;
            }
            [] => {}
            ref rest => {
                let length = refused_length(rest);
                let mut character = [0; 4];
                character[..length].copy_from_slice(&rest[..length]);
                escape(&character[..length], b"\\\\u", out);
                at += length;
            }
        }
    }
}

/// Where the first character is that an attribute may not have, and its length.
fn next_refused(text: &[u8]) -> Option<(usize, usize)> {
    (0..text.len()).map(|at| (at, refused_length(&text[at..]))).find(|(_, length)| *length != 0)
}

/// The length of the first character, in bytes, if an attribute may not have it; otherwise 0.
const fn refused_length(text: &[u8]) -> usize {
    match text {
        // U+0000 to U+001F, U+007F
        [0..=0x1F | 0x7F, ..] => 1,
        // U+0080 to U+009F
        [0xC2, 0x80..=0x9F, ..] => 2,
        // U+FDD0 to U+FDEF, U+FFFE, U+FFFF
        [0xEF, 0xB7, 0x90..=0xAF, ..] | [0xEF, 0xBF, 0xBE | 0xBF, ..] => 3,
        // The last two characters of each further plane.
        [0xF0..=0xF4, 0x8F | 0x9F | 0xAF | 0xBF, 0xBF, 0xBE | 0xBF, ..] => 4,
        _ => 0,
    }
}

/// Appends a character as its UTF-16 units in four hexadecimal digits, each after `prefix`.
#[cold]
fn escape(character: &[u8], prefix: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(character);
    for unit in text.encode_utf16() {
        out.extend_from_slice(prefix);
        out.extend_from_slice(format!("{unit:04x}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::{repeat_in_json, write};
    use proptest::prelude::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        write(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn repeated(text: &str) -> String {
        let mut out = format!("<{text}>").into_bytes();
        repeat_in_json(1..1 + text.len(), &mut out);
        String::from_utf8(out[text.len() + 2..].to_vec()).unwrap()
    }

    /// By the words of the specification.
    fn is_refused(character: char) -> bool {
        let number = u32::from(character);
        matches!(number, 0..=0x1F | 0x7F..=0x9F | 0xFDD0..=0xFDEF) || 0xFFFE <= number & 0xFFFF
    }

    #[test]
    fn only_what_an_attribute_may_not_have_is_escaped() {
        assert_eq!(written("{\"id\":\"é 😀\\n\"}"), "{\"id\":\"é 😀\\n\"}");
        assert_eq!(written("a\u{85}b\u{7f}\u{1fffe}"), "a\\u0085b\\u007f\\ud83f\\udffe");
        for character in (0..=0x0010_FFFF).filter_map(char::from_u32) {
            assert_eq!(written(&character.to_string()).starts_with("\\u"), is_refused(character), "{character:?}");
        }
    }

    proptest! {
        #[test]
        fn inside_json_it_is_the_same_value(text in "[\"\\\\a-cé\u{7f}-\u{a0}\u{fffe}\u{1ffff}😀]{0,24}") {
            let value: String = serde_json::from_str(&format!("\"{}\"", repeated(&text))).unwrap();
            prop_assert_eq!(value, written(&text));
        }

        #[test]
        fn a_key_stays_the_same_value(name in any::<String>(), value in any::<String>()) {
            let key = serde_json::json!({ name: value });
            let attribute = written(&key.to_string());
            prop_assert!(attribute.chars().all(|character| !is_refused(character)));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&attribute).unwrap(), key);
        }
    }
}
