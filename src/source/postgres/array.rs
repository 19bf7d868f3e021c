//! Splits the text of an array into its elements: `{1,NULL,"a,b",{…}}`, with the bounds in front if they do not begin at 1.

use crate::event::RowError;

pub(super) const MALFORMED: RowError = RowError::Malformed { what: "text of an array" };

/// One element.
pub(super) enum Part<'a> {
    Null,
    Plain(&'a str),
    Quoted(&'a str),
    Nested(&'a str),
}

/// The text between the outermost braces, without the bounds.
pub(super) fn inner(text: &str) -> Result<&str, RowError> {
    let text = if text.starts_with('[') { text.split_once('=').ok_or(MALFORMED)?.1 } else { text };
    text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or(MALFORMED)
}

/// The next element and the text after it. Every cut is at an ASCII byte, and so between two characters.
pub(super) fn part(text: &str, delimiter: u8) -> Result<(Part<'_>, &str), RowError> {
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
            // Only an unquoted NULL is null; the text "NULL" is printed in quotes.
            Ok((if plain.eq_ignore_ascii_case("NULL") { Part::Null } else { Part::Plain(plain) }, &text[end..]))
        }
    }
}

/// The number of bytes before the closing quote.
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

/// The number of bytes up to and including the brace that closes the first one.
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

/// Removes the backslashes of a quoted element.
pub(super) fn unescape<'a>(text: &'a str, scratch: &'a mut String) -> &'a str {
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
