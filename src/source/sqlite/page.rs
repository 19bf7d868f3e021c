//! A page: the buffer in which rows go from the thread that reads SQLite to the batch. It holds tagged values and is reused.

use crate::event::RowError;
use crate::source::sqlite::log_row::{Anchor, Heading};
use rusqlite::types::ValueRef;

/// A bounded number of rows, encoded one after the other.
#[derive(Debug, Default)]
pub(super) struct Page {
    bytes: Vec<u8>,
    /// Offset of the next row to be taken.
    offset: usize,
    /// The last row that was appended.
    newest: Option<Anchor>,
}

/// A value as SQLite stored it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum StoredValue<'p> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'p [u8]),
    Blob(&'p [u8]),
}

const MALFORMED: RowError = RowError::Malformed { what: "a page of rows ends early" };

impl Page {
    /// A page is handed over when it has grown to this size. One huge row may exceed it.
    pub(super) const BYTES: usize = 128 * 1024;
    /// Size of a row's length and heading, which stand before its values.
    const HEADING_BYTES: usize = 5 * 8;

    /// Empties it for the next rows, and gives back the memory of a huge row.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * Self::BYTES);
        self.offset = 0;
        self.newest = None;
    }

    pub(super) const fn is_full(&self) -> bool {
        Self::BYTES <= self.bytes.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.offset == self.bytes.len()
    }

    pub(super) const fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a row; `write` appends its values.
    pub(super) fn push<E>(&mut self, heading: Heading, write: impl FnOnce(&mut Values<'_>) -> Result<(), E>) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 8]);
        for number in [heading.seq, heading.tid, heading.op, heading.at] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        write(&mut Values(&mut self.bytes))?;
        let length = (self.bytes.len() - start - 8) as u64;
        self.bytes[start..start + 8].copy_from_slice(&length.to_le_bytes());
        self.newest = Some(Anchor::of(&heading, &self.bytes[start + Self::HEADING_BYTES..]));
        Ok(())
    }

    /// The last row that was appended.
    pub(super) const fn newest(&self) -> Option<Anchor> {
        self.newest
    }

    /// The next row, without taking it; `None` at the end.
    pub(super) fn peek(&self) -> Result<Option<(Heading, &[u8])>, RowError> {
        let mut rest = &self.bytes[self.offset..];
        if rest.is_empty() {
            return Ok(None);
        }
        let length = usize::try_from(take_number(&mut rest)?).map_err(|_| MALFORMED)?;
        let mut row = rest.get(..length).ok_or(MALFORMED)?;
        let mut number = || take_number(&mut row);
        let heading = Heading { seq: number()?, tid: number()?, op: number()?, at: number()? };
        Ok(Some((heading, row)))
    }

    /// Takes the row that [`Self::peek`] shows.
    pub(super) fn advance(&mut self) {
        if let Some(Ok(length)) = self.bytes.get(self.offset..self.offset + 8).map(<[u8; 8]>::try_from) {
            self.offset += 8 + usize::try_from(u64::from_le_bytes(length)).unwrap_or(0);
        }
    }
}

/// The values of a row that is being appended.
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

/// Takes the next value.
pub(super) fn take_value<'p>(rest: &mut &'p [u8]) -> Result<StoredValue<'p>, RowError> {
    let variable = |rest: &mut &'p [u8]| {
        let length = usize::try_from(take_number(rest)?).map_err(|_| MALFORMED)?;
        take(rest, length)
    };
    Ok(match take(rest, 1)? {
        [0] => StoredValue::Null,
        [1] => StoredValue::Integer(take_number(rest)?),
        [2] => StoredValue::Real(f64::from_bits(take_number(rest)?.cast_unsigned())),
        [3] => StoredValue::Text(variable(rest)?),
        [4] => StoredValue::Blob(variable(rest)?),
        _ => return Err(MALFORMED),
    })
}

#[cfg(test)]
mod tests {
    use super::{Page, StoredValue, take_value};
    use crate::source::sqlite::log_row::Heading;
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
        assert_eq!(take_value(&mut rest), Ok(StoredValue::Null));
        assert_eq!(take_value(&mut rest), Ok(StoredValue::Integer(i64::MIN)));
        assert!(matches!(take_value(&mut rest), Ok(StoredValue::Real(zero)) if zero == 0.0 && zero.is_sign_negative()));
        assert_eq!(take_value(&mut rest), Ok(StoredValue::Text(b"\xFFa\0")));
        assert_eq!(take_value(&mut rest), Ok(StoredValue::Blob(b"")));
        assert!(rest.is_empty() && take_value(&mut rest).is_err());
        page.advance();
        assert!(page.is_empty() && page.peek().unwrap().is_none());
    }
}
