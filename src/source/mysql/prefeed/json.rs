//! JSON of MySQL, without the white space that the server prints.

/// Appends a valid JSON text without white space between its parts: as the log's decoder writes the same value.
pub(super) fn compact(text: &str, out: &mut String) {
    let mut plain = 0;
    let (mut is_string, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => is_string = !is_string,
            b' ' if !is_string => {
                out.push_str(&text[plain..at]);
                plain = at + 1;
            }
            _ => {}
        }
    }
    out.push_str(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use super::compact;

    #[test]
    fn white_space_in_strings_stays() {
        let mut out = String::new();
        compact(r#"{"a b": [1, "x \" , y", "\\"], "c": { } }"#, &mut out);
        assert_eq!(out, r#"{"a b":[1,"x \" , y","\\"],"c":{}}"#);
    }
}
