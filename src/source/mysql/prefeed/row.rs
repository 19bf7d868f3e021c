//! A row of a prepared statement's answer, decoded in place.

use super::field::{Field, Sent};
use super::json;
use crate::event::{Cell, Row, RowError};
use crate::source::mysql::kind::Space;
use crate::source::mysql::row::ColumnShape;

const MALFORMED: RowError = RowError::Malformed { what: "as many values as columns were asked for" };

/// A row's bytes with what is needed to read them.
#[derive(Clone, Copy)]
pub(super) struct AnswerRow<'a> {
    /// The columns of the relation. Columns behind them only order the rows.
    pub(super) shapes: &'a [ColumnShape],
    /// All columns that were asked for.
    pub(super) fields: &'a [Field],
    pub(super) body: &'a [u8],
    pub(super) space: &'a Space,
}

impl Row for AnswerRow<'_> {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        let mut values = Values::of(self.fields, self.body)?;
        for shape in self.shapes {
            match values.next_value()? {
                None => visit(Cell::Null)?,
                Some(Sent::Value(value)) => shape.kind.show(&value, Cell::Absent, self.space, visit)?,
                Some(Sent::Digits(digits)) => visit(Cell::Decimal(without_fill(digits)))?,
                Some(Sent::Json(text)) => self.space.with_text(|out| {
                    json::compact(text, out);
                    visit(Cell::Json(out))
                })?,
            }
        }
        Ok(())
    }
}

/// A decimal number without the zeros that `ZEROFILL` puts in front.
fn without_fill(digits: &str) -> &str {
    let mut rest = digits;
    while let Some(after) = rest.strip_prefix('0').filter(|after| after.starts_with(|digit: char| digit.is_ascii_digit())) {
        rest = after;
    }
    rest
}

/// Iterates over the values of a row.
pub(super) struct Values<'a> {
    fields: &'a [Field],
    nulls: &'a [u8],
    rest: &'a [u8],
    index: usize,
}

impl<'a> Values<'a> {
    /// A zero comes first, then a bit for each column that is null, from the third bit on.
    pub(super) fn of(fields: &'a [Field], body: &'a [u8]) -> Result<Self, RowError> {
        let rest = body.strip_prefix(&[0]).ok_or(MALFORMED)?;
        let (nulls, rest) = rest.split_at_checked((fields.len() + 2).div_ceil(8)).ok_or(MALFORMED)?;
        Ok(Self { fields, nulls, rest, index: 0 })
    }

    /// The next value; `None` is null.
    pub(super) fn next_value(&mut self) -> Result<Option<Sent<'a>>, RowError> {
        let field = self.fields.get(self.index).ok_or(MALFORMED)?;
        let bit = self.index + 2;
        self.index += 1;
        if self.nulls[bit / 8] >> (bit % 8) & 1 == 1 {
            return Ok(None);
        }
        field.read(&mut self.rest).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, Sent, Values, without_fill};

    #[test]
    fn a_null_has_no_bytes() {
        let fields = [Field::Characters; 8];
        let body = [&[0, 0b0000_0100, 0b10][..], b"\x01b\x01c\x01d\x01e\x01f\x01g"].concat();
        let mut values = Values::of(&fields, &body).unwrap();
        let read: Vec<_> = (0..8).map(|_| values.next_value().unwrap().is_some()).collect();
        assert_eq!(read, [false, true, true, true, true, true, true, false]);
        assert!(values.next_value().is_err() && Values::of(&fields, &body[..2]).is_err());
        let mut damaged = Values::of(&fields, &body[..4]).unwrap();
        assert!(matches!(damaged.next_value(), Ok(None)) && damaged.next_value().is_err());
        let mut values = Values::of(&fields[..1], b"\0\0\x02ab").unwrap();
        assert!(matches!(values.next_value(), Ok(Some(Sent::Value(_)))));
    }

    #[test]
    fn a_decimal_number_loses_only_zeros_that_fill_it() {
        assert_eq!(["000.50", "0.5", "-0.50", "0", "00", "010"].map(without_fill), ["0.50", "0.5", "-0.50", "0", "0", "10"]);
    }
}
