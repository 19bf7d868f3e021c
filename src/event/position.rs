//! The position of an event in its source's log.

use std::fmt;

/// A position in the log of one source: printable ASCII, of one width for each source. As bytes, positions sort in log order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    bytes: [u8; Self::LENGTH_MAX],
    length: u8,
}

impl Position {
    /// The longest position, in bytes.
    pub const LENGTH_MAX: usize = 62;

    /// A position with these ASCII bytes.
    ///
    /// # Panics
    /// If there are more than [`Self::LENGTH_MAX`]. A source's positions have a fixed width, so this is a defect of the source.
    #[must_use]
    pub fn new(ascii: &[u8]) -> Self {
        let mut bytes = [0; Self::LENGTH_MAX];
        bytes[..ascii.len()].copy_from_slice(ascii);
        Self { bytes, length: u8::try_from(ascii.len()).expect("at most 62 bytes") }
    }

    /// The ASCII bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}
