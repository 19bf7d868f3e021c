//! Rows on their way from SQLite's thread to the batch: one buffer of tagged values, reused.

use crate::event::RowError;
use crate::source::sqlite::history::Anchor;
use rusqlite::types::ValueRef;

/// A bounded run of rows.
#[derive(Debug, Default)]
pub(super) struct Page {
    bytes: Vec<u8>,
    /// Where the next row to be taken begins.
    at: usize,
    /// The row that was appended last.
    newest: Option<Anchor>,
}

/// What stands before the values of a log row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heading {
    pub(super) seq: i64,
    pub(super) tid: i64,
    pub(super) op: i64,
    /// The writer's clock, in microseconds.
    pub(super) at: i64,
}

/// One value as SQLite stored it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stored<'p> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'p [u8]),
    Blob(&'p [u8]),
}

const MALFORMED: RowError = RowError::Malformed { what: "a page of rows ends early" };

impl Page {
    /// A page is handed over when it has grown to this; one huge row may exceed it.
    pub(super) const BYTES: usize = 128 * 1024;
    /// A row's length and its heading, before its values.
    const HEADING: usize = 5 * 8;

    /// Makes it empty for the next rows, giving back what one huge row took.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * Self::BYTES);
        self.at = 0;
        self.newest = None;
    }

    pub(super) const fn is_full(&self) -> bool {
        Self::BYTES <= self.bytes.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) const fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a row whose values `write` appends.
    pub(super) fn push<E>(&mut self, heading: Heading, write: impl FnOnce(&mut Values<'_>) -> Result<(), E>) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 8]);
        for number in [heading.seq, heading.tid, heading.op, heading.at] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        write(&mut Values(&mut self.bytes))?;
        let length = (self.bytes.len() - start - 8) as u64;
        self.bytes[start..start + 8].copy_from_slice(&length.to_le_bytes());
        self.newest = Some(Anchor::of(&heading, &self.bytes[start + Self::HEADING..]));
        Ok(())
    }

    /// The row that was appended last.
    pub(super) const fn newest(&self) -> Option<Anchor> {
        self.newest
    }

    /// The next row, which stays the next until [`Self::advance`]; `None` at the end.
    pub(super) fn peek(&self) -> Result<Option<(Heading, &[u8])>, RowError> {
        let mut rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let length = usize::try_from(take_number(&mut rest)?).map_err(|_| MALFORMED)?;
        let mut row = rest.get(..length).ok_or(MALFORMED)?;
        let mut number = || take_number(&mut row);
        let heading = Heading { seq: number()?, tid: number()?, op: number()?, at: number()? };
        Ok(Some((heading, row)))
    }

    /// Goes on behind the row that [`Self::peek`] shows.
    pub(super) fn advance(&mut self) {
        if let Some(Ok(length)) = self.bytes.get(self.at..self.at + 8).map(<[u8; 8]>::try_from) {
            self.at += 8 + usize::try_from(u64::from_le_bytes(length)).unwrap_or(0);
        }
    }
}

/// Where a row's values go.
pub(super) struct Values<'b>(&'b mut Vec<u8>);

impl Values<'_> {
    pub(super) fn push(&mut self, value: ValueRef<'_>) {
        let bytes = &mut *self.0;
        let mut variable = |tag: u8, content: &[u8]| {
            bytes.push(tag);
            bytes.extend_from_slice(&(content.len() as u64).to_le_bytes());
            bytes.extend_from_slice(content);
        };
        match value {
            ValueRef::Text(text) => variable(3, text),
            ValueRef::Blob(blob) => variable(4, blob),
            ValueRef::Null => bytes.push(0),
            ValueRef::Integer(number) => {
                bytes.push(1);
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            ValueRef::Real(number) => {
                bytes.push(2);
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
}

fn take<'p>(rest: &mut &'p [u8], length: usize) -> Result<&'p [u8], RowError> {
    let (taken, left) = rest.split_at_checked(length).ok_or(MALFORMED)?;
    *rest = left;
    Ok(taken)
}

fn take_number(rest: &mut &[u8]) -> Result<i64, RowError> {
    Ok(i64::from_le_bytes(take(rest, 8)?.try_into().map_err(|_| MALFORMED)?))
}

/// Takes the next value off.
pub(super) fn take_value<'p>(rest: &mut &'p [u8]) -> Result<Stored<'p>, RowError> {
    let variable = |rest: &mut &'p [u8]| {
        let length = usize::try_from(take_number(rest)?).map_err(|_| MALFORMED)?;
        take(rest, length)
    };
    Ok(match take(rest, 1)? {
        [0] => Stored::Null,
        [1] => Stored::Integer(take_number(rest)?),
        [2] => Stored::Real(f64::from_bits(take_number(rest)?.cast_unsigned())),
        [3] => Stored::Text(variable(rest)?),
        [4] => Stored::Blob(variable(rest)?),
        _ => return Err(MALFORMED),
    })
}

#[cfg(test)]
mod tests {
    use super::{Heading, Page, Stored, take_value};
    use rusqlite::types::ValueRef;

    #[test]
    fn rows_come_out_as_they_went_in() {
        let mut page = Page::default();
        let heading = Heading { seq: 7, tid: 2, op: 4, at: -1 };
        let values = [ValueRef::Null, ValueRef::Integer(i64::MIN), ValueRef::Real(-0.0), ValueRef::Text(b"\xFFa\0"), ValueRef::Blob(b"")];
        page.push(heading, |row| {
            for value in values {
                row.push(value);
            }
            Ok::<_, ()>(())
        })
        .unwrap();
        let (found, mut rest) = page.peek().unwrap().unwrap();
        assert_eq!(found, heading);
        assert_eq!(take_value(&mut rest), Ok(Stored::Null));
        assert_eq!(take_value(&mut rest), Ok(Stored::Integer(i64::MIN)));
        assert!(matches!(take_value(&mut rest), Ok(Stored::Real(zero)) if zero == 0.0 && zero.is_sign_negative()));
        assert_eq!(take_value(&mut rest), Ok(Stored::Text(b"\xFFa\0")));
        assert_eq!(take_value(&mut rest), Ok(Stored::Blob(b"")));
        assert!(rest.is_empty() && take_value(&mut rest).is_err());
        page.advance();
        assert!(page.is_empty() && page.peek().unwrap().is_none());
    }
}
