//! Lines of a file, with the place after each.

use super::{Error, open};
use crate::checkpoint::ScanPosition;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

/// About how much is read ahead.
const AHEAD_BYTES: usize = 256 * 1024;
/// A longer line is no row.
const LINE_BYTES_MAX: usize = 64 << 20;

/// A place between two lines: `offset:line:checksum`, the line counted from 1, the checksum that of all bytes before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinePosition {
    offset: u64,
    lines: u64,
    checksum: u32,
}

impl LinePosition {
    pub(super) fn parse(position: &ScanPosition) -> Option<Self> {
        let mut parts = position.0.split(':');
        let offset = parts.next()?.parse().ok()?;
        let lines = parts.next()?.parse().ok()?;
        let checksum = u32::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Self { offset, lines, checksum })
    }

    fn after(self, line: &[u8]) -> Self {
        Self { offset: self.offset + line.len() as u64, lines: self.lines + 1, checksum: crc32c::crc32c_append(self.checksum, line) }
    }
}

impl From<LinePosition> for ScanPosition {
    fn from(place: LinePosition) -> Self {
        Self(format!("{}:{}:{:08x}", place.offset, place.lines, place.checksum).into())
    }
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    place: LinePosition,
    ahead: Vec<u8>,
    /// Where the next line begins in `ahead`.
    next: usize,
}

impl Lines {
    /// Opens it at a place, and proves that what lies before is what it was.
    pub(super) fn open(path: PathBuf, place: LinePosition) -> Result<Self, Error> {
        let mut file = BufReader::new(open(&path)?);
        let (mut left, mut checksum) = (place.offset, 0);
        while 0 < left {
            let bytes = file.fill_buf().map_err(|source| Error::Unreadable { path: path.clone(), source })?;
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 {
                break;
            }
            checksum = crc32c::crc32c_append(checksum, &bytes[..count]);
            file.consume(count);
            left -= count as u64;
        }
        if left != 0 || checksum != place.checksum {
            return Err(Error::Changed { path, offset: place.offset });
        }
        Ok(Self { path, file, place, ahead: Vec::new(), next: 0 })
    }

    /// Whether a line is there without reading.
    pub(super) const fn is_ahead(&self) -> bool {
        self.next < self.ahead.len()
    }

    /// Reads whole lines.
    pub(super) fn read_ahead(&mut self) -> Result<(), Error> {
        self.ahead.clear();
        self.next = 0;
        while self.ahead.len() < AHEAD_BYTES {
            let mut line = (&mut self.file).take(LINE_BYTES_MAX as u64);
            let count = line.read_until(b'\n', &mut self.ahead).map_err(|source| Error::Unreadable { path: self.path.clone(), source })?;
            if count == LINE_BYTES_MAX {
                return Err(self.refused(format!("it is longer than {LINE_BYTES_MAX} bytes")));
            }
            if count == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The next line of those that were read; `None` where there are none.
    pub(super) fn peek(&self) -> Option<&[u8]> {
        let rest = &self.ahead[self.next..];
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        (!rest.is_empty()).then_some(&rest[..end])
    }

    /// Goes on to the line after it.
    pub(super) fn advance(&mut self) {
        let Some(line) = self.peek() else { return };
        (self.place, self.next) = (self.place.after(line), self.next + line.len());
    }

    /// The place before the next line.
    pub(super) const fn place(&self) -> LinePosition {
        self.place
    }

    /// What is wrong with the next line.
    pub(super) fn refused(&self, reason: String) -> Error {
        Error::Line { path: self.path.clone(), line: self.place.lines + 1, reason }
    }
}
