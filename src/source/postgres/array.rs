//! Arrays as their output function prints them: `{1,NULL,"a,b",{…}}`, bounds before them where they do not begin at 1.

use super::types::Element;
use crate::event::{Cell, Elements, RowError};

/// An array's text.
#[derive(Clone, Copy)]
pub(super) struct ArrayText<'a> {
    pub(super) text: &'a str,
    pub(super) element: &'a Element,
    /// How many arrays it lies in.
    pub(super) depth: u8,
}

/// The server knows no more dimensions (`MAXDIM`).
const DEPTH_MAX: u8 = 6;

impl Elements for ArrayText<'_> {
    fn visit(&self, visit: &mut dyn FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        if self.depth == DEPTH_MAX {
            return Err(MALFORMED);
        }
        let mut bytes = inner(self.text)?;
        let mut unescaped = String::new();
        while !bytes.is_empty() {
            let (part, after) = part(bytes, self.element.delimiter)?;
            match part {
                Part::Null => visit(Cell::Null)?,
                Part::Plain(text) => self.element.kind.show(text.as_bytes(), &mut |cell| visit(cell))?,
                Part::Quoted(text) => {
                    let text = unescape(text, &mut unescaped);
                    self.element.kind.show(text.as_bytes(), &mut |cell| visit(cell))?;
                }
                Part::Nested(text) => visit(Cell::Array(&ArrayText { text, element: self.element, depth: self.depth + 1 }))?,
            }
            bytes = match after.as_bytes().split_first() {
                None => "",
                Some((byte, rest)) if *byte == self.element.delimiter && !rest.is_empty() => &after[1..],
                Some(_) => return Err(MALFORMED),
            };
        }
        Ok(())
    }
}

const MALFORMED: RowError = RowError::Malformed { what: "text of an array" };

enum Part<'a> {
    Null,
    Plain(&'a str),
    Quoted(&'a str),
    Nested(&'a str),
}

/// What stands between the outermost braces, after the bounds.
fn inner(text: &str) -> Result<&str, RowError> {
    let text = if text.starts_with('[') { text.split_once('=').ok_or(MALFORMED)?.1 } else { text };
    text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or(MALFORMED)
}

/// The next element and what follows it. Every cut is at an ASCII byte, so that it lies between characters.
fn part(text: &str, delimiter: u8) -> Result<(Part<'_>, &str), RowError> {
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(b'"') => {
            let end = 1 + quoted_length(&bytes[1..])?;
            Ok((Part::Quoted(&text[1..end]), &text[end + 1..]))
        }
        Some(b'{') => {
            let end = nested_length(bytes)?;
            Ok((Part::Nested(&text[..end]), &text[end..]))
        }
        _ => {
            let end = memchr::memchr(delimiter, bytes).unwrap_or(bytes.len());
            let plain = &text[..end];
            if plain.is_empty() {
                return Err(MALFORMED);
            }
            // Only an unquoted NULL is one; the word as text is printed in quotes.
            Ok((if plain.eq_ignore_ascii_case("NULL") { Part::Null } else { Part::Plain(plain) }, &text[end..]))
        }
    }
}

/// Bytes up to the closing quote.
fn quoted_length(bytes: &[u8]) -> Result<usize, RowError> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..).ok_or(MALFORMED)?).ok_or(MALFORMED)?;
        match bytes.get(at) {
            Some(b'"') => return Ok(at),
            _ => at += 2,
        }
    }
}

/// Bytes up to and with the brace that closes the first one.
fn nested_length(bytes: &[u8]) -> Result<usize, RowError> {
    let (mut at, mut depth) = (0_usize, 0_usize);
    loop {
        match bytes.get(at).ok_or(MALFORMED)? {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b'"' => at += 1 + quoted_length(&bytes[at + 1..])?,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Ok(at);
        }
    }
}

fn unescape<'a>(text: &'a str, scratch: &'a mut String) -> &'a str {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return text;
    }
    scratch.clear();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        scratch.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    scratch
}

#[cfg(test)]
mod tests {
    use super::super::types::{Element, Kind};
    use super::ArrayText;
    use crate::event::{Cell, RowError};
    use proptest::prelude::*;

    fn print(text: &str, kind: Kind, out: &mut String) -> Result<(), RowError> {
        fn cell(cell: Cell<'_>, out: &mut String) -> Result<(), RowError> {
            match cell {
                Cell::Null => out.push('~'),
                Cell::Text(text) | Cell::Integer(text) => out.push_str(text),
                Cell::Array(elements) => {
                    out.push('(');
                    elements.visit(&mut |inner| cell_then(inner, out))?;
                    out.push(')');
                }
                _ => out.push('?'),
            }
            Ok(())
        }
        fn cell_then(inner: Cell<'_>, out: &mut String) -> Result<(), RowError> {
            cell(inner, out)?;
            out.push('|');
            Ok(())
        }
        let element = Element { kind, delimiter: b',' };
        cell(Cell::Array(&ArrayText { text, element: &element, depth: 0 }), out)
    }

    #[test]
    fn elements_are_what_the_server_meant() {
        for (text, kind, expected) in [
            ("{}", Kind::Text, "()"),
            ("{1,NULL,-3}", Kind::Integer, "(1|~|-3|)"),
            ("[0:1]={7,8}", Kind::Integer, "(7|8|)"),
            ("{{1,2},{3,4}}", Kind::Integer, "((1|2|)|(3|4|)|)"),
            (r#"{"a,b","NULL",NULL,"q\"u\\o","","{}"}"#, Kind::Text, r#"(a,b|NULL|~|q"u\o||{}|)"#),
            (r#"{{"}","{"},{ä,"ö ü"}}"#, Kind::Text, "((}|{|)|(ä|ö ü|)|)"),
        ] {
            let mut out = String::new();
            print(text, kind, &mut out).unwrap();
            assert_eq!(out, expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for text in ["", "{", "}", "1", "{1,}", "{,1}", r#"{"a}"#, r#"{"a"b}"#, "{{1}", r#"{"\"#, "{{{{{{{1}}}}}}}"] {
            assert!(print(text, Kind::Text, &mut String::new()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"[\[\]{}",\\=äN0-9ULa]{0,24}"#) {
            let _ended: Result<(), RowError> = print(&text, Kind::Text, &mut String::new());
            let _braced: Result<(), RowError> = print(&format!("{{{text}}}"), Kind::Text, &mut String::new());
        }
    }
}
