//! The result of a statement: its rows, as text (MySQL documentation, "Text Resultset").

use crate::source::Answer;

/// Reads a row of this many columns.
pub(super) fn row(packet: &[u8], columns: usize) -> Option<Answer> {
    let mut rest = packet;
    let mut values = Vec::new();
    for _ in 0..columns {
        if let Some(after) = rest.strip_prefix(&[0xFB]) {
            values.push(None);
            rest = after;
            continue;
        }
        let length;
        (length, rest) = packed(rest)?;
        let value;
        (value, rest) = rest.split_at_checked(length)?;
        values.push(Some(String::from_utf8_lossy(value).into_owned()));
    }
    rest.is_empty().then(|| Answer::new(values))
}

/// A length-encoded integer that is a length or a count, and what follows.
pub(in super::super) fn packed(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let width = match first {
        0..=0xFA => return Some((usize::from(*first), rest)),
        0xFC => 2,
        0xFD => 3,
        0xFE => 8,
        0xFB | 0xFF => return None,
    };
    let (number, rest) = rest.split_at_checked(width)?;
    let number = number.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    Some((usize::try_from(number).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn a_row_has_as_many_values_as_the_result_has_columns() {
        let read = row(b"\x01a\xFB\x00", 3).unwrap();
        assert_eq!((read.text(0), read.get(1), read.get(2), read.get(3)), ("a", None, Some(""), None));
        for malformed in [&b"\x01a\xFB"[..], b"\x01a\xFB\x00\x00", b"\x05a\xFB\x00"] {
            assert_eq!(row(malformed, 3), None);
        }
    }
}
