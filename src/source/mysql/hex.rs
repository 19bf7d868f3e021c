//! Bytes as hexadecimal digits.

use std::fmt::Write as _;

/// Two digits for each byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _written: std::fmt::Result = write!(digits, "{byte:02x}");
    }
    digits
}

/// The bytes that these digits say; `None` where they are no digits, or a last one lacks its other half.
pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{hex, unhex};

    #[test]
    fn bytes_are_read_as_they_were_written() {
        assert_eq!(hex(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(unhex("001FfF"), Some(vec![0, 0x1f, 0xff]));
        assert_eq!([unhex("0"), unhex("0g"), unhex("é0")], [None, None, None]);
    }
}
