//! `DECIMAL`: digits in groups of nine, each in four bytes.
//!
//! Source: MySQL 9.7 `strings/decimal.cc` (`decimal2bin`).

use super::bytes::big;

/// A decimal number as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal<'a> {
    bytes: &'a [u8],
    precision: u8,
    scale: u8,
}

/// The text of a decimal number: at most 65 digits (`DECIMAL_MAX_PRECISION`), a sign, a point and a zero before it.
pub const TEXT_LENGTH_MAX: usize = 68;
const GROUP_DIGITS: u8 = 9;
/// How many bytes store this many digits of a group that is not full.
const BYTES: [u8; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// How many bytes store a number. `None` where there is no such type.
pub(super) fn length(precision: u8, scale: u8) -> Option<usize> {
    let whole = precision.checked_sub(scale).filter(|_| 0 < precision && precision <= 65)?;
    let digits = |digits: u8| usize::from(digits / GROUP_DIGITS * 4 + BYTES[usize::from(digits % GROUP_DIGITS)]);
    Some(digits(whole) + digits(scale))
}

impl<'a> Decimal<'a> {
    /// A number of a type that exists, in as many bytes as it needs.
    pub(super) fn new(bytes: &'a [u8], precision: u8, scale: u8) -> Option<Self> {
        (length(precision, scale)? == bytes.len()).then_some(Self { bytes, precision, scale })
    }

    /// Writes its digits as the server prints them, and returns them.
    pub fn write<'s>(&self, space: &'s mut [u8; TEXT_LENGTH_MAX]) -> &'s str {
        // The highest bit is set in a number that is not negative; all bits are inverted in one that is.
        let is_negative = self.bytes.first().is_some_and(|first| first & 0x80 == 0);
        let mut text = Text { space, length: 0 };
        if is_negative {
            text.push(b'-');
        }
        let invert = if is_negative { 0xFF } else { 0 };
        let mut stored = [0; 32];
        for (stored, byte) in stored.iter_mut().zip(self.bytes) {
            *stored = byte ^ invert;
        }
        stored[0] ^= 0x80;
        let mut rest = &stored[..self.bytes.len()];
        let whole = self.precision - self.scale;
        // The first group of the digits before the point is the short one, the last group behind it.
        text.group(&mut rest, whole % GROUP_DIGITS);
        for _ in 0..whole / GROUP_DIGITS {
            text.group(&mut rest, GROUP_DIGITS);
        }
        text.trim_zeros(usize::from(is_negative));
        if 0 < self.scale {
            text.push(b'.');
            for _ in 0..self.scale / GROUP_DIGITS {
                text.group(&mut rest, GROUP_DIGITS);
            }
            text.group(&mut rest, self.scale % GROUP_DIGITS);
        }
        let Text { space, length } = text;
        std::str::from_utf8(&space[..length]).unwrap_or_default()
    }
}

struct Text<'s> {
    space: &'s mut [u8; TEXT_LENGTH_MAX],
    length: usize,
}

impl Text<'_> {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.space.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    /// Appends the digits of one group. A group that does not fit its digits is damaged; its lower digits are shown.
    fn group(&mut self, rest: &mut &[u8], digits: u8) {
        let Some((group, after)) = rest.split_at_checked(BYTES[usize::from(digits)].into()) else { return };
        *rest = after;
        let mut number = big(group);
        let end = (self.length + usize::from(digits)).min(TEXT_LENGTH_MAX);
        for place in self.space[self.length..end].iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.length = end;
    }

    /// Removes zeros before the number, which begins here; one digit stays.
    fn trim_zeros(&mut self, start: usize) {
        let digits = &self.space[start..self.length];
        let zeros = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
        self.space.copy_within(start + zeros..self.length, start);
        self.length -= zeros;
        if self.length == start {
            self.push(b'0');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Decimal, TEXT_LENGTH_MAX, length};

    fn text(bytes: &[u8], precision: u8, scale: u8) -> String {
        Decimal::new(bytes, precision, scale).unwrap().write(&mut [0; TEXT_LENGTH_MAX]).to_owned()
    }

    #[test]
    fn digits_are_printed_as_the_server_prints_them() {
        // The example of `decimal2bin`: 1234567890.1234 as DECIMAL(14,4).
        let positive = [0x81, 0x0D, 0xFB, 0x38, 0xD2, 0x04, 0xD2];
        assert_eq!(text(&positive, 14, 4), "1234567890.1234");
        assert_eq!(text(&positive.map(|byte| !byte), 14, 4), "-1234567890.1234");
        assert_eq!(text(&[0x80, 0x05], 3, 2), "0.05");
        assert_eq!(text(&[0x7F, 0xCD], 3, 2), "-0.50");
        assert_eq!((text(&[0x80], 1, 0), text(&[0x85], 1, 1)), ("0".to_owned(), "0.5".to_owned()));
    }

    #[test]
    fn the_largest_type_fits() {
        assert_eq!((length(65, 30), length(65, 0), length(0, 0), length(66, 0), length(3, 4)), (Some(30), Some(29), None, None, None));
        let group = [0x3B, 0x9A, 0xC9, 0xFF];
        let nines = [&[0x80 | group[0]], &group[1..], &group.repeat(6)].concat();
        assert_eq!((nines.len(), text(&nines, 63, 0)), (28, "9".repeat(63)));
        assert!(Decimal::new(&nines, 65, 0).is_none());
        assert_eq!(text(&[0; 30], 65, 30).len(), TEXT_LENGTH_MAX - 1);
    }
}
