//! Validates JSON from a source, and removes its white space.

use super::text;

/// Appends a JSON value without the white space outside strings, and otherwise unchanged. Text that is not exactly one JSON value
/// (RFC 8259) becomes a string, so that it cannot break the event around it.
pub(super) fn write(json: &str, out: &mut Vec<u8>) {
    let start = out.len();
    if copy(json.as_bytes(), out).is_none() {
        out.truncate(start);
        text::write(json, out);
    }
}

/// Which token may come next.
#[derive(Clone, Copy)]
enum Expected {
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    Colon,
    CommaOrEnd,
}

/// Copies in one pass without recursion, because a source may allow values of any depth.
fn copy(json: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut open = Nesting::default();
    let mut expected = Expected::Value;
    let (mut copied, mut at) = (0, 0);
    loop {
        let token = at + json[at..].iter().position(|byte| !b" \t\n\r".contains(byte)).unwrap_or(json.len() - at);
        if token > at {
            out.extend_from_slice(&json[copied..at]);
            copied = token;
        }
        at = token;
        let rest = &json[at..];
        let byte = *rest.first()?;
        (at, expected) = match (expected, byte) {
            (Expected::Value | Expected::ValueOrEnd, b'{') => {
                open.push(true);
                (at + 1, Expected::NameOrEnd)
            }
            (Expected::Value | Expected::ValueOrEnd, b'[') => {
                open.push(false);
                (at + 1, Expected::ValueOrEnd)
            }
            (Expected::ValueOrEnd, b']') | (Expected::NameOrEnd, b'}') => {
                open.pop();
                (at + 1, Expected::CommaOrEnd)
            }
            (Expected::Value | Expected::ValueOrEnd, _) => (at + scalar(rest)?, Expected::CommaOrEnd),
            (Expected::Name | Expected::NameOrEnd, b'"') => (at + string(rest)?, Expected::Colon),
            (Expected::Colon, b':') => (at + 1, Expected::Value),
            (Expected::CommaOrEnd, b',') => (at + 1, if open.in_object() { Expected::Name } else { Expected::Value }),
            (Expected::CommaOrEnd, b'}' | b']') if open.in_object() == (byte == b'}') => {
                open.pop();
                (at + 1, Expected::CommaOrEnd)
            }
            _ => return None,
        };
        if open.depth == 0 {
            out.extend_from_slice(&json[copied..at]);
            return json[at..].iter().all(|byte| b" \t\n\r".contains(byte)).then_some(());
        }
    }
}

/// The open objects and arrays, one bit each: 1 for an object, 0 for an array. Up to 64 levels need no allocation.
#[derive(Default)]
struct Nesting {
    depth: usize,
    innermost: u64,
    outer: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.innermost);
        }
        self.depth += 1;
        self.innermost = self.innermost << 1 | u64::from(object);
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.innermost >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.innermost = self.outer.pop().expect("one word was pushed at this depth");
        }
    }

    const fn in_object(&self) -> bool {
        self.innermost & 1 == 1
    }
}

/// Length of the string, number or literal at the front.
fn scalar(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'"' => string(bytes),
        b't' => bytes.starts_with(b"true").then_some(4),
        b'f' => bytes.starts_with(b"false").then_some(5),
        b'n' => bytes.starts_with(b"null").then_some(4),
        _ => number(bytes),
    }
}

/// Length of the string literal at the front.
fn string(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text::special(bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += escape(&bytes[at..])?,
            _ => return None,
        }
    }
}

/// Length of the escape at the front.
fn escape(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => bytes.get(2..6)?.iter().all(u8::is_ascii_hexdigit).then_some(6),
        _ => None,
    }
}

/// Length of the number at the front: RFC 8259, section 6.
pub(super) fn number(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at += match digits(at) {
        0 => return None,
        count if count > 1 && bytes[at] == b'0' => return None,
        count => count,
    };
    if bytes.get(at) == Some(&b'.') {
        at += 1 + Some(digits(at + 1)).filter(|&count| count > 0)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at += Some(digits(at)).filter(|&count| count > 0)?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::write;
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    fn written(json: &str) -> String {
        let mut out = Vec::new();
        write(json, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_white_space_is_removed() {
        for (json, expected) in [
            (
                " { \"a b\" : [ 1.50 , -0 , 1E+20 , true,\tfalse\r\n, null ] , \"\\u00e9 \\\"\" : { } , \"\" : [ ] } ",
                r#"{"a b":[1.50,-0,1E+20,true,false,null],"\u00e9 \"":{},"":[]}"#,
            ),
            ("12345678901234567890.10", "12345678901234567890.10"),
            (" \"  \" ", "\"  \""),
            ("{\"a\": 1, \"a\": 2}", r#"{"a":1,"a":2}"#),
            (" [ ] ", "[]"),
        ] {
            assert_eq!(written(json), expected);
        }
    }

    #[test]
    fn invalid_json_becomes_a_string() {
        for json in [
            "",
            " ",
            "{",
            "}",
            "[",
            "]",
            "[1",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "[1}",
            "{\"a\":1]",
            "1 2",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "tru",
            "nul",
            "NaN",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12",
            "\"a\nb\"",
            "[1]x",
            "{1:2}",
            "[1:2]",
            "\"\\",
        ] {
            assert!(serde_json::from_str::<&RawValue>(json).is_err(), "{json}");
            assert_eq!(serde_json::from_str::<String>(&written(json)).unwrap(), json);
        }
    }

    #[test]
    fn a_deep_value_is_copied() {
        for depth in [63, 64, 65, 128, 129, 200_000] {
            let json = format!("{}1{}", "[ {\"a\" : ".repeat(depth), "} ] ".repeat(depth));
            assert_eq!(written(&json), json.replace(' ', ""));
            let broken = json.replacen("} ]", "] }", 1);
            assert!(written(&broken).starts_with('"'));
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..8).prop_map(|map| Value::from(serde_json::Map::from_iter(map))),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_becomes_what_serde_writes(value in tree()) {
            let spacious = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(written(&spacious), serde_json::to_string(&value).unwrap());
        }

        #[test]
        fn text_is_accepted_as_json_exactly_if_serde_accepts_it(text in "[\\[\\]{},:\" \\\\u0-9aEe+.\\-tfn]{0,12}") {
            let accepted = serde_json::from_str::<&RawValue>(&text).is_ok();
            let written = written(&text);
            prop_assert!(serde_json::from_str::<&RawValue>(&written).is_ok());
            let quoted = serde_json::from_str::<String>(&written).is_ok_and(|read| read == text);
            prop_assert_eq!(accepted, !quoted, "{}", written);
        }
    }
}
