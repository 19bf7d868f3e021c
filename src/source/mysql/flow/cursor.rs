//! Where in the log the reading is.
//!
//! Events carry where they end, modulo 2^32. Those inside a transaction of MariaDB 11.4 do not. A file can be longer than 4 GiB: a transaction
//! lies in one file, however large it is.

use crate::source::mysql::binlog::{Header, Heartbeat, Rotate};
use crate::source::mysql::error::Error;
use crate::source::mysql::head;
use crate::source::mysql::token::{LogFile, LogId, Place, Token};

#[derive(Debug)]
pub(super) struct Cursor {
    log: LogId,
    file: LogFile,
    /// Where the last event ended, or less if its place is not known.
    offset: u64,
    /// All transactions before this place have been read.
    boundary: (LogFile, u64),
    /// Whether the current event moved on to this file. It ends in the one before it.
    has_rotated: bool,
}

impl Cursor {
    pub(super) fn new(from: &Token) -> Self {
        Self { log: from.log, file: from.file.clone(), offset: from.offset, boundary: (from.file.clone(), from.offset), has_rotated: false }
    }

    pub(super) const fn log(&self) -> LogId {
        self.log
    }

    pub(super) const fn boundary(&self) -> &(LogFile, u64) {
        &self.boundary
    }

    /// The boundary, as a place.
    pub(super) const fn place(&self) -> Place {
        Place { epoch: self.log.epoch, file: self.boundary.0.number, offset: self.boundary.1 }
    }

    /// Where this event begins.
    pub(super) fn start_of(&self, header: &Header) -> Result<Place, Error> {
        let offset = self.locate(header.next_position.wrapping_sub(header.size), self.offset)?;
        Ok(Place { epoch: self.log.epoch, file: self.file.number, offset })
    }

    /// Passes over an event, inside a transaction or between two.
    pub(super) fn pass(&mut self, header: &Header, is_inside: bool) -> Result<(), Error> {
        let end = self.offset + u64::from(header.size);
        match header.next_position {
            _ if std::mem::take(&mut self.has_rotated) || header.is_artificial() => {}
            0 if is_inside => self.offset = end,
            // The server repeats the description of the format where it begins to send.
            0 => {}
            next if header.describes_format() && next != low(end) => {}
            next => self.offset = self.locate(next, end)?,
        }
        Ok(())
    }

    /// The place in the file of which the lower 32 bits are known. `expected` is the place if no event was left out.
    fn locate(&self, known: u32, expected: u64) -> Result<u64, Error> {
        if low(expected) == known {
            return Ok(expected);
        }
        if self.file.number < self.boundary.0.number {
            // All of this file has been read, so it does not matter.
            return Ok(nearest(known, expected).unwrap_or(expected).max(self.offset));
        }
        // Where reading begins, the server leaves out what was read. No other event is as far as 2 GiB from the one before it.
        let read_to = if self.file.number == self.boundary.0.number { self.boundary.1 } else { 0 };
        let place = nearest(known, self.offset.max(read_to)).filter(|place| self.offset <= *place);
        place.ok_or(Error::Protocol { what: "the place of an event in the log, behind the one before it" })
    }

    /// Goes on to where a transaction begins.
    pub(super) const fn pass_to(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Everything up to here has been read.
    pub(super) fn advance(&mut self) {
        if (self.boundary.0.number, self.boundary.1) < (self.file.number, self.offset) {
            self.boundary = (self.file.clone(), self.offset);
        }
    }

    /// Everything up to this place has been read, which may lie between the last event and the next one.
    pub(super) fn advance_to(&mut self, file: &LogFile, offset: u64) {
        if (self.boundary.0.number, self.boundary.1) < (file.number, offset) {
            self.boundary = (file.clone(), offset);
        }
    }

    /// Goes on in another file, or where the server begins to send.
    pub(super) fn rotate(&mut self, rotate: &Rotate<'_>) -> Result<(), Error> {
        (self.file, self.offset, self.has_rotated) = (head::file(rotate.file)?, rotate.position, true);
        Ok(())
    }

    /// The server has nothing more than this.
    pub(super) fn rest_at(&mut self, heartbeat: &Heartbeat<'_>) -> Result<(), Error> {
        if self.file.to_string() == heartbeat.file && heartbeat.position != 0 {
            // An older kind of heartbeat has the position modulo 2^32.
            self.offset = match u32::try_from(heartbeat.position) {
                Ok(known) => self.locate(known, self.offset)?,
                Err(_) => heartbeat.position,
            };
        }
        Ok(())
    }
}

/// The lower 32 bits.
const fn low(offset: u64) -> u32 {
    (offset & 0xFFFF_FFFF) as u32
}

/// The place nearest to `near` with these lower 32 bits.
fn nearest(known: u32, near: u64) -> Option<u64> {
    near.checked_add_signed(known.wrapping_sub(low(near)).cast_signed().into())
}

#[cfg(test)]
mod tests {
    use super::{Cursor, low, nearest};
    use crate::checkpoint::ResumeToken;
    use crate::source::mysql::binlog::{Header, Heartbeat, Rotate};
    use crate::source::mysql::token::Token;

    const QUERY: u8 = 2;
    const FORMAT: u8 = 15;
    const GIB: u64 = 1 << 30;

    fn header(kind: u8, size: u32, next_position: u32) -> Header {
        Header { timestamp: 1, kind, server_id: 1, size, next_position, flags: 0 }
    }

    /// Goes on in this file, by an event that ends in the one before it.
    fn rotate(cursor: &mut Cursor, file: &str) {
        cursor.rotate(&Rotate { position: 4, file }).unwrap();
        cursor.pass(&header(QUERY, 40, 900_000), false).unwrap();
        cursor.advance();
    }

    fn cursor(offset: u64) -> Cursor {
        Cursor::new(&Token::try_from(&ResumeToken(format!("7/00000000000000ff/binlog.000003:{offset}").into())).unwrap())
    }

    #[test]
    fn the_nearest_place_has_the_known_bits() {
        assert_eq!([nearest(500, 400), nearest(400, 500), nearest(50, 4 * GIB - 50)], [Some(500), Some(400), Some(4 * GIB + 50)]);
        assert_eq!(nearest(u32::MAX, 5), None);
    }

    #[test]
    fn a_transaction_begins_where_its_first_event_does() {
        let mut cursor = cursor(500);
        assert_eq!(cursor.start_of(&header(QUERY, 42, 600)).unwrap().offset, 558);
        cursor.pass(&header(QUERY, 42, 600), true).unwrap();
        cursor.pass(&header(QUERY, 100, 0), true).unwrap();
        cursor.pass(&Header { flags: 0x20, ..header(QUERY, 100, 0) }, true).unwrap();
        assert_eq!((cursor.offset, cursor.place().offset), (700, 500));
        cursor.pass(&header(QUERY, 31, 900), false).unwrap();
        cursor.advance();
        assert_eq!(cursor.place().offset, 900);
        assert!(cursor.pass(&header(QUERY, 31, 899), false).is_err() && cursor.start_of(&header(QUERY, 31, 900)).is_err());
    }

    #[test]
    fn a_session_goes_on_in_the_middle_of_a_file() {
        // MariaDB 11.4 repeats the description of the format without a place, 10.11 with its own, and both leave out what was read.
        for (at, format) in [(5000, 0), (5000, 256), (3 * GIB, 256), (9 * GIB + 7, 256), (9 * GIB + 7, 0)] {
            let mut cursor = cursor(at);
            rotate(&mut cursor, "binlog.000003");
            for event in [header(FORMAT, 252, format), header(QUERY, 43, 299), header(QUERY, 40, 0)] {
                cursor.pass(&event, false).unwrap();
                cursor.advance();
            }
            assert_eq!(cursor.place().offset, at);
            let begin = header(QUERY, 42, low(at + 42));
            assert_eq!(cursor.start_of(&begin).unwrap().offset, at);
            cursor.pass_to(at);
            cursor.pass(&begin, false).unwrap();
            cursor.advance();
            assert_eq!(cursor.place().offset, at + 42);
        }
    }

    #[test]
    fn a_file_may_be_longer_than_4_gib() {
        let mut cursor = cursor(4 * GIB - 100);
        for _ in 0..5 {
            // A transaction whose events have no places.
            cursor.pass(&header(QUERY, low(GIB), 0), true).unwrap();
        }
        cursor.pass(&header(QUERY, 31, low(GIB - 100 + 31)), false).unwrap();
        assert_eq!(cursor.offset, 9 * GIB - 100 + 31);
    }

    #[test]
    fn the_boundary_never_goes_back() {
        let mut cursor = cursor(500);
        rotate(&mut cursor, "binlog.000002");
        cursor.pass(&header(QUERY, 40, 3_000_000_000), false).unwrap();
        cursor.advance();
        assert_eq!((cursor.place().file, cursor.place().offset), (3, 500));
        rotate(&mut cursor, "binlog.000004");
        cursor.advance();
        assert_eq!((cursor.place().file, cursor.place().offset), (4, 4));
        cursor.rest_at(&Heartbeat { file: "binlog.000003", position: 900 }).unwrap();
        cursor.rest_at(&Heartbeat { file: "binlog.000004", position: 300 }).unwrap();
        cursor.advance();
        assert_eq!(cursor.place().offset, 300);
        assert!(cursor.rotate(&Rotate { position: 4, file: "nonsense" }).is_err());
    }
}
