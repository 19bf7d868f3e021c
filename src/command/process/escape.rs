//! Escapes control characters in text that others wrote, so that it cannot steer the terminal.

use std::borrow::Cow;

/// Writes control characters and marks of text direction as `\uXXXX`, except newlines and tabs.
pub(super) fn escape_controls(text: &str) -> Cow<'_, str> {
    // Marks of text direction are not control characters.
    let is_control =
        |sign: char| sign.is_control() && !matches!(sign, '\n' | '\t') || matches!(sign, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let escape = |sign: char| if is_control(sign) { format!("\\u{:04x}", u32::from(sign)) } else { sign.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

#[cfg(test)]
mod tests {
    use super::escape_controls;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape_controls("a\tb\nü 😀"), "a\tb\nü 😀");
        assert_eq!(escape_controls("\u{1b}[2Jgone\r\u{9b}31m\u{7}\u{202e}x"), "\\u001b[2Jgone\\u000d\\u009b31m\\u0007\\u202ex");
    }
}
