//! Positions of prefeed rows: slices, and the numbering of rows in them.

use crate::event::Position;
use std::io::Write as _;

/// One prefeed slice: rows read under one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its number; it only grows over the life of the pipeline.
    pub number: u32,
    /// The number of its next row, from 0; resets come first.
    pub next_row: u32,
}

impl Slice {
    /// Positions of rows in this slice. `cut` is the cut as the source's positions begin with it. The layout is the same for every
    /// source: `cut-0-slice(6)row(9)0`. A prefeed row so sorts after all events before its cut, and before all events behind it.
    ///
    /// # Panics
    /// Where `cut` is longer than 42 bytes (its length is fixed in each source's code), and after 1.5 billion slices.
    #[must_use]
    pub fn positions(&self, cut: &str) -> RowPositions {
        let mut bytes = [0; Position::LENGTH_MAX];
        let mut rest = &mut bytes[..];
        let number = digits(self.number);
        write!(rest, "{cut}-0-{number}{:09}0", 0).expect("a cut of at most 42 bytes");
        let length = Position::LENGTH_MAX - rest.len();
        RowPositions { bytes, length }
    }

    /// Returns the number of the next row and takes it.
    pub const fn take_row(&mut self) -> u32 {
        let row = self.next_row;
        self.next_row += 1;
        row
    }
}

/// A slice's number in six bytes that sort as the numbers do: decimal below a million; from there on base 36 (0 to Z) with a letter first.
fn digits(number: u32) -> String {
    const MILLION: u32 = 1_000_000;
    let Some(mut beyond) = number.checked_sub(MILLION) else { return format!("{number:06}") };
    let mut digits = [0; 6];
    for digit in digits[1..].iter_mut().rev() {
        *digit = beyond % 36;
        beyond /= 36;
    }
    assert!(beyond < 26, "slice {number} has no number that sorts behind the one before it");
    digits[0] = 10 + beyond;
    digits.iter().filter_map(|digit| char::from_digit(*digit, 36)).map(|digit| digit.to_ascii_uppercase()).collect()
}

/// The positions of one slice's rows.
#[derive(Clone, Copy, Debug)]
pub struct RowPositions {
    bytes: [u8; Position::LENGTH_MAX],
    length: usize,
}

impl RowPositions {
    const ROW_DIGITS: usize = 9;

    /// The position of the row with this number.
    #[must_use]
    pub fn of(&self, row: u32) -> Position {
        let mut position = *self;
        let (mut row, end) = (row, self.length - 1);
        for digit in position.bytes[end - Self::ROW_DIGITS..end].iter_mut().rev() {
            *digit = b'0' + (row % 10) as u8;
            row /= 10;
        }
        Position::new(&position.bytes[..self.length])
    }
}

#[cfg(test)]
mod tests {
    use super::Slice;

    #[test]
    fn a_row_has_nine_digits_in_its_slice() {
        let mut slice = Slice { number: 12, next_row: 345 };
        let positions = slice.positions("00000001-00000000016B3748");
        assert_eq!(positions.of(slice.take_row()).as_bytes(), b"00000001-00000000016B3748-0-0000120000003450");
        assert_eq!(positions.of(999_999_999).as_bytes(), b"00000001-00000000016B3748-0-0000129999999990");
        assert_eq!(slice.next_row, 346);
    }

    #[test]
    fn positions_sort_and_keep_their_width_beyond_a_million_slices() {
        let position = |number, row| Slice { number, next_row: 0 }.positions("00000001-00000000016B3748").of(row);
        let rows = [(0, 5), (999_999, 0), (999_999, 7), (1_000_000, 0), (1_000_009, 1), (1_000_010, 0), (1_000_035, 3), (1_000_036, 0)];
        let late = [(61_466_175, 2), (61_466_176, 0), (100_000_000, 0), (1_573_120_575, 9)];
        let positions: Vec<_> = rows.into_iter().chain(late).map(|(number, row)| position(number, row)).collect();
        for pair in positions.windows(2) {
            assert!(pair[0].as_bytes() < pair[1].as_bytes() && pair[0].as_bytes().len() == pair[1].as_bytes().len(), "{pair:?}");
        }
        assert_eq!(position(1_000_000, 0).as_bytes(), b"00000001-00000000016B3748-0-A000000000000000");
        assert_eq!(position(1_000_035, 3).as_bytes(), b"00000001-00000000016B3748-0-A0000Z0000000030");
        assert_eq!(position(1_573_120_575, 9).as_bytes(), b"00000001-00000000016B3748-0-ZZZZZZ0000000090");
    }

    #[test]
    #[should_panic(expected = "has no number")]
    fn a_slice_that_would_sort_before_others_ends_the_run() {
        let _position = Slice { number: 1_573_120_576, next_row: 0 }.positions("1").of(0);
    }
}
