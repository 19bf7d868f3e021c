//! Reads the numbers and lengths of which events are made. No input makes it panic.

/// The bytes are not what they should be; names the part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// Reads the parts of an event in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// What is being read, for the error.
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The error that these bytes are not what they should be.
    pub(super) const fn malformed(&self) -> Malformed {
        Malformed(self.what)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    pub(super) const fn len(&self) -> usize {
        self.rest.len()
    }

    /// The bytes that are left.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed(self.what))?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed(self.what))?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A number of at most 8 bytes, the least significant one first.
    #[inline]
    pub(super) fn little(&mut self, bytes: usize) -> Result<u64, Malformed> {
        Ok(little(self.take(bytes)?))
    }

    /// A length in one to four bytes, the least significant one first.
    #[inline]
    pub(super) fn length(&mut self, bytes: usize) -> Result<usize, Malformed> {
        usize::try_from(self.little(bytes)?).map_err(|_| self.malformed())
    }

    /// A length-encoded integer (MySQL documentation, "Protocol Basics").
    pub(super) fn packed(&mut self) -> Result<u64, Malformed> {
        match self.byte()? {
            first @ ..=0xFA => Ok(first.into()),
            0xFC => self.little(2),
            0xFD => self.little(3),
            0xFE => self.little(8),
            0xFB | 0xFF => Err(self.malformed()),
        }
    }

    /// A length-encoded integer that is a length or a count.
    pub(super) fn packed_length(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.packed()?).map_err(|_| self.malformed())
    }

    /// Bytes after their length-encoded length.
    pub(super) fn packed_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.packed_length()?;
        self.take(length)
    }
}

/// A number of at most 8 bytes, the least significant one first.
#[inline]
pub(super) fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A number of at most 8 bytes, the most significant one first.
#[inline]
pub(super) fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether this bit is set. Bits are counted from the least significant one of the first byte; those beyond the end are not set.
#[inline]
pub(super) fn bit(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::{Malformed, Reader, big, bit, little};

    #[test]
    fn numbers_are_read_in_either_order() {
        assert_eq!((little(&[1, 2, 3]), big(&[1, 2, 3]), little(&[])), (0x03_0201, 0x01_0203, 0));
        assert!(bit(&[0b10, 1], 1) && bit(&[0b10, 1], 8) && !bit(&[0b10, 1], 0) && !bit(&[0b10, 1], 99));
    }

    #[test]
    fn a_length_has_as_many_bytes_as_it_needs() {
        let mut reader = Reader::new(&[5, 0xFC, 1, 1, 0xFD, 1, 0, 1, 0xFE, 1, 0, 0, 0, 0, 0, 0, 1, 0xFB], "test");
        let read: Vec<_> = (0..4).map(|_| reader.packed().unwrap()).collect();
        assert_eq!(read, [5, 257, 65_537, 0x0100_0000_0000_0001]);
        assert_eq!((reader.packed(), reader.packed()), (Err(Malformed("test")), Err(Malformed("test"))));
    }
}
