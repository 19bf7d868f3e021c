//! Writes JSON strings.

/// Appends a string literal. Escapes only what RFC 8259, section 7, requires; everything else stays UTF-8.
pub(in crate::format) fn write(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    fragment(text, out);
    out.push(b'"');
}

/// Appends the inside of a string literal.
pub(super) fn fragment(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(clean) = special(rest) {
        let (copied, tail) = rest.split_at(clean);
        out.extend_from_slice(copied);
        let [byte, tail @ ..] = tail else { return };
        escape(*byte, out);
        rest = tail;
    }
    out.extend_from_slice(rest);
}

#[cold]
fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0C => b'f',
        _ => {
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// The index of the first byte that needs an escape: a quote, a backslash or a control character.
pub(super) fn special(bytes: &[u8]) -> Option<usize> {
    let mut words = bytes.chunks_exact(8);
    let mut at = 0;
    for word in &mut words {
        let marks = marks(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let found = words.remainder().iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    found.map(|offset| at + offset)
}

/// Sets the high bit of each byte that needs an escape. Only the lowest such byte is certain.
///
/// Bytes below `n` are found by `(x - n) & !x & 0x80`; equal bytes are those whose difference is below 1. Source: Sean Eron
/// Anderson, Bit Twiddling Hacks, "Determine if a word has a byte less than n".
const fn marks(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    const fn below(word: u64, n: u64) -> u64 {
        word.wrapping_sub(ONES * n) & !word & HIGH
    }
    below(word, 0x20) | below(word ^ (ONES * b'"' as u64), 1) | below(word ^ (ONES * b'\\' as u64), 1)
}

#[cfg(test)]
mod tests {
    use super::write;
    use proptest::prelude::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        write(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_what_must_be_escaped_is_escaped() {
        assert_eq!(written("a\"b\\c\n\r\t\u{8}\u{c}\u{0}\u{1f}"), r#""a\"b\\c\n\r\t\b\f\u0000\u001f""#);
        assert_eq!(written("/ é 😀 \u{7f} \u{2028}"), "\"/ é 😀 \u{7f} \u{2028}\"");
    }

    #[test]
    fn a_special_byte_is_found_at_every_offset() {
        for special in ['"', '\\', '\u{1}', '\n'] {
            for before in 0..40 {
                for after in 0..10 {
                    let text = format!("{}{special}{}", "x".repeat(before), "!".repeat(after));
                    assert_eq!(serde_json::from_str::<String>(&written(&text)).unwrap(), text);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_read_back(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&written(&text)).unwrap(), text);
        }

        #[test]
        fn text_with_many_special_characters_can_be_read_back(text in "[\"\\\\\u{0}-\u{21}a\u{80}-\u{ff}]{0,64}") {
            prop_assert_eq!(serde_json::from_str::<String>(&written(&text)).unwrap(), text);
        }
    }
}
