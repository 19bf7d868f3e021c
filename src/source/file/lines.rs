//! The lines of a file, with the position behind each.

use crate::checkpoint::ScanPosition;
use crate::source::file::error::Error;
use crate::source::file::path::open;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

/// About how many bytes are read ahead.
const AHEAD_BYTES: usize = 256 * 1024;
/// The longest line that may be a row.
const LINE_BYTES_MAX: usize = 64 << 20;

/// A position between two lines, stored as `offset:lines:checksum`: how many bytes and lines lie before it, and the CRC-32C of those bytes.
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
    fn from(position: LinePosition) -> Self {
        Self(format!("{}:{}:{:08x}", position.offset, position.lines, position.checksum).into())
    }
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    position: LinePosition,
    /// Lines that were read and not taken yet.
    ahead: Vec<u8>,
    /// Offset of the next line in `ahead`.
    next: usize,
}

impl Lines {
    /// Opens the file at a position. Reads everything before it, to check that it is unchanged.
    pub(super) fn open(path: PathBuf, position: LinePosition) -> Result<Self, Error> {
        let mut file = BufReader::new(open(&path)?);
        let (mut left, mut checksum) = (position.offset, 0);
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
        if left != 0 || checksum != position.checksum {
            return Err(Error::Changed { path, offset: position.offset });
        }
        Ok(Self { path, file, position, ahead: Vec::new(), next: 0 })
    }

    /// Whether the next line has been read already.
    pub(super) const fn has_line(&self) -> bool {
        self.next < self.ahead.len()
    }

    /// Reads the next lines, always whole ones.
    pub(super) fn read_ahead(&mut self) -> Result<(), Error> {
        self.ahead.clear();
        self.next = 0;
        while self.ahead.len() < AHEAD_BYTES {
            let mut line = (&mut self.file).take(LINE_BYTES_MAX as u64);
            let count = line.read_until(b'\n', &mut self.ahead).map_err(|source| Error::Unreadable { path: self.path.clone(), source })?;
            if count == LINE_BYTES_MAX {
                return Err(self.refuse_next(format!("it is longer than {LINE_BYTES_MAX} bytes")));
            }
            if count == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The next line that was read; `None` where there is none.
    pub(super) fn peek(&self) -> Option<&[u8]> {
        let rest = &self.ahead[self.next..];
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        (!rest.is_empty()).then_some(&rest[..end])
    }

    /// Moves on to the line behind it.
    pub(super) fn advance(&mut self) {
        let Some(line) = self.peek() else { return };
        (self.position, self.next) = (self.position.after(line), self.next + line.len());
    }

    /// The position before the next line.
    pub(super) const fn position(&self) -> LinePosition {
        self.position
    }

    /// The error that names the next line.
    pub(super) fn refuse_next(&self, reason: String) -> Error {
        Error::Line { path: self.path.clone(), line: self.position.lines + 1, reason }
    }
}
