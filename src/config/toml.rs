//! Writes values as TOML.

/// Writes a basic string.
pub(super) fn string(text: &str) -> String {
    // JSON's escapes are TOML's, but JSON does not escape DEL.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Writes a key: bare if it can be.
pub(super) fn key(key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if is_bare { key.to_owned() } else { string(key) }
}

#[cfg(test)]
mod tests {
    use super::{key, string};
    use proptest::prelude::{any, proptest};
    use toml_edit::ImDocument;

    fn assert_reads(text: &str) {
        let written = format!("{} = {}\n", key(text), string(text));
        let read = ImDocument::parse(written.as_str()).unwrap_or_else(|error| panic!("{written:?}: {error}"));
        assert_eq!(read.iter().map(|(key, value)| (key, value.as_str())).collect::<Vec<_>>(), [(text, Some(text))], "{written:?}");
    }

    #[test]
    fn every_sign_of_ascii_is_read_again() {
        (0..=0x7f_u8).for_each(|byte| assert_reads(&char::from(byte).to_string()));
        assert_eq!(string("it's \"x\"\u{7f}\u{0}\t"), r#""it's \"x\"\u007f\u0000\t""#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(text in any::<String>()) {
            assert_reads(&text);
        }
    }
}
