//! A row of a query's answer, decoded in place: the protocol's `DataRow` (PostgreSQL documentation, 55.7).

use crate::event::{Cell, Row, RowError};
use crate::source::postgres::kind::Kind;

const MALFORMED: RowError = RowError::Malformed { what: "as many values as columns were asked for" };

/// A row's bytes with the kinds of its columns.
#[derive(Clone, Copy)]
pub(super) struct AnswerRow<'a> {
    pub(super) kinds: &'a [Kind],
    /// The message's body.
    pub(super) body: &'a [u8],
}

impl Row for AnswerRow<'_> {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        let mut values = Values::of(self.body)?;
        for kind in self.kinds {
            match values.next_value()? {
                None => visit(Cell::Null)?,
                Some(text) => kind.show(text, visit)?,
            }
        }
        if values.left == 0 { Ok(()) } else { Err(MALFORMED) }
    }
}

/// Iterates over the values of a row.
pub(super) struct Values<'a> {
    left: u16,
    rest: &'a [u8],
}

impl<'a> Values<'a> {
    pub(super) fn of(body: &'a [u8]) -> Result<Self, RowError> {
        let (count, rest) = body.split_first_chunk::<2>().ok_or(MALFORMED)?;
        Ok(Self { left: u16::from_be_bytes(*count), rest })
    }

    /// The next value; `None` is null.
    pub(super) fn next_value(&mut self) -> Result<Option<&'a [u8]>, RowError> {
        self.left = self.left.checked_sub(1).ok_or(MALFORMED)?;
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.rest = rest;
            return Ok(None);
        };
        let (value, rest) = rest.split_at_checked(length).ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(Some(value))
    }
}
