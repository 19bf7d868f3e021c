//! Finds the parts of a JSON text that is known to be valid: where a value ends, and the fields of an object.

use crate::event::RowError;

const MALFORMED: RowError = RowError::Malformed { what: "the document is no JSON" };

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// A place in a JSON text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'j> {
    text: &'j str,
    at: usize,
}

impl<'j> Cursor<'j> {
    /// The beginning of a text.
    pub(super) const fn new(text: &'j str) -> Self {
        Self { text, at: 0 }
    }

    /// Behind the white space, the type of the value that begins there.
    pub(super) fn value_type(&mut self) -> Result<ValueType, RowError> {
        Ok(match self.peek()? {
            b'{' => ValueType::Object,
            b'[' => ValueType::Array,
            b'"' => ValueType::String,
            b't' => ValueType::True,
            b'f' => ValueType::False,
            b'n' => ValueType::Null,
            b'-' | b'0'..=b'9' => ValueType::Number,
            _ => return Err(MALFORMED),
        })
    }

    /// The next byte behind the white space.
    fn peek(&mut self) -> Result<u8, RowError> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        bytes.get(self.at).copied().ok_or(MALFORMED)
    }

    /// Moves on behind this byte.
    fn take(&mut self, expected: u8) -> Result<(), RowError> {
        if self.peek()? != expected {
            return Err(MALFORMED);
        }
        self.at += 1;
        Ok(())
    }

    /// Moves on behind this byte, if it is next.
    fn take_if(&mut self, byte: u8) -> Result<bool, RowError> {
        let is_next = self.peek()? == byte;
        self.at += usize::from(is_next);
        Ok(is_next)
    }

    /// Takes a string; returns it without its quotes, with its escapes.
    pub(super) fn string(&mut self) -> Result<&'j str, RowError> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            let found = memchr::memchr2(b'"', b'\\', self.text.as_bytes().get(self.at..).ok_or(MALFORMED)?).ok_or(MALFORMED)?;
            self.at += found;
            if self.text.as_bytes()[self.at] == b'"' {
                let string = &self.text[start..self.at];
                self.at += 1;
                return Ok(string);
            }
            // The sign behind a backslash may be a quote.
            self.at += 2;
        }
    }

    /// Takes a number, `true`, `false` or `null`.
    pub(super) fn word(&mut self) -> Result<&'j str, RowError> {
        self.peek()?;
        let rest = &self.text[self.at..];
        let length = rest.find([',', ']', '}', ' ', '\n', '\r', '\t']).unwrap_or(rest.len());
        self.at += length;
        Ok(&rest[..length])
    }

    /// Takes a whole value, and returns its text.
    pub(super) fn value(&mut self) -> Result<&'j str, RowError> {
        match self.value_type()? {
            ValueType::String => {
                let start = self.at;
                self.string()?;
                Ok(&self.text[start..self.at])
            }
            ValueType::Object | ValueType::Array => {
                let (start, mut depth) = (self.at, 0_usize);
                loop {
                    match self.peek()? {
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth = depth.checked_sub(1).ok_or(MALFORMED)?,
                        b'"' => {
                            self.string()?;
                            continue;
                        }
                        _ => {}
                    }
                    self.at += 1;
                    if depth == 0 {
                        return Ok(&self.text[start..self.at]);
                    }
                }
            }
            _ => self.word(),
        }
    }

    /// Visits the fields of the object that begins here; returns the place behind it. `visit` gets a field's name, with its escapes, and a
    /// cursor at its value; it returns the place behind the value.
    pub(super) fn fields<E: From<RowError>>(mut self, mut visit: impl FnMut(&'j str, Self) -> Result<Self, E>) -> Result<Self, E> {
        self.take(b'{')?;
        if self.take_if(b'}')? {
            return Ok(self);
        }
        loop {
            let name = self.string()?;
            self.take(b':')?;
            self = visit(name, self)?;
            if self.take_if(b'}')? {
                return Ok(self);
            }
            self.take(b',')?;
        }
    }

    /// Visits the elements of the array that begins here; returns the place behind it.
    pub(super) fn elements<E: From<RowError>>(mut self, mut visit: impl FnMut(Self) -> Result<Self, E>) -> Result<Self, E> {
        self.take(b'[')?;
        if self.take_if(b']')? {
            return Ok(self);
        }
        loop {
            self = visit(self)?;
            if self.take_if(b']')? {
                return Ok(self);
            }
            self.take(b',')?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, RowError};

    fn fields(text: &str) -> Result<Vec<(&str, &str)>, RowError> {
        let mut found = Vec::new();
        Cursor::new(text).fields(|name, mut at| {
            found.push((name, at.value()?));
            Ok::<_, RowError>(at)
        })?;
        Ok(found)
    }

    #[test]
    fn values_end_where_they_end() {
        let text = r#" { "a\"}": [1, {"b":"]"}, "x\\"] ,"c":-1.5e3, "d" : {} ,"e":null,"f":"é\u0000" } "#;
        let expected = [("a\\\"}", r#"[1, {"b":"]"}, "x\\"]"#), ("c", "-1.5e3"), ("d", "{}"), ("e", "null"), ("f", r#""é\u0000""#)];
        assert_eq!(fields(text).unwrap(), expected);
        assert_eq!(fields("{}").unwrap(), []);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for wrong in ["", "[]", "{", r#"{"a""#, r#"{"a":"#, r#"{"a":1"#, r#"{"a":"x\"#, r#"{"a":[}"#, "{1:2}"] {
            assert!(fields(wrong).is_err(), "{wrong}");
        }
    }
}
