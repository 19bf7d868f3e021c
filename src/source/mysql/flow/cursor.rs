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
}

impl Cursor {
    pub(super) fn new(from: &Token) -> Self {
        Self { log: from.log, file: from.file.clone(), offset: from.offset, boundary: (from.file.clone(), from.offset) }
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
    pub(super) fn start_of(&self, header: &Header) -> Place {
        let offset = lift(header.next_position.wrapping_sub(header.size), self.offset);
        Place { epoch: self.log.epoch, file: self.file.number, offset }
    }

    /// Passes over an event, inside a transaction or between two.
    pub(super) fn pass(&mut self, header: &Header, is_inside: bool) {
        match header.next_position {
            _ if header.is_artificial() => {}
            0 if is_inside => self.offset += u64::from(header.size),
            // The server repeats the description of the format where it begins to send.
            0 => {}
            next => self.offset = lift(next, self.offset),
        }
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
        (self.file, self.offset) = (head::file(rotate.file)?, rotate.position);
        Ok(())
    }

    /// The server has nothing more than this.
    pub(super) fn rest_at(&mut self, heartbeat: &Heartbeat<'_>) {
        if self.file.to_string() == heartbeat.file && heartbeat.position != 0 {
            // An older kind of heartbeat has the position modulo 2^32.
            let is_whole = u64::from(u32::MAX) < heartbeat.position;
            self.offset = if is_whole { heartbeat.position } else { lift(heartbeat.position as u32, self.offset) };
        }
    }
}

/// The smallest position from `floor` on that is `low` modulo 2^32.
fn lift(low: u32, floor: u64) -> u64 {
    const ROUND: u64 = 1 << 32;
    let position = floor & !(ROUND - 1) | u64::from(low);
    if position < floor { position + ROUND } else { position }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, lift};
    use crate::checkpoint::ResumeToken;
    use crate::source::mysql::binlog::{Header, Heartbeat, Rotate};
    use crate::source::mysql::token::Token;

    fn header(size: u32, next_position: u32, flags: u16) -> Header {
        Header { timestamp: 1, kind: 2, server_id: 1, size, next_position, flags }
    }

    fn cursor() -> Cursor {
        Cursor::new(&Token::try_from(&ResumeToken("7/00000000000000ff/binlog.000003:500".into())).unwrap())
    }

    #[test]
    fn a_position_is_the_next_one_with_these_lower_bits() {
        assert_eq!([lift(500, 400), lift(400, 500), lift(0, 1 << 32), lift(u32::MAX, 5)], [500, (1 << 32) + 400, 1 << 32, (1 << 32) - 1]);
    }

    #[test]
    fn a_transaction_begins_where_its_first_event_does() {
        let mut cursor = cursor();
        assert_eq!(cursor.start_of(&header(42, 600, 0)).offset, 558);
        cursor.pass(&header(252, 0, 0), false);
        cursor.pass(&header(42, 600, 0), true);
        cursor.pass(&header(100, 0, 0), true);
        cursor.pass(&header(100, 0, 0x20), true);
        assert_eq!((cursor.offset, cursor.place().offset), (700, 500));
        cursor.pass(&header(31, 900, 0), false);
        cursor.advance();
        assert_eq!(cursor.place().offset, 900);
        // More than 4 GiB on.
        cursor.pass(&header(31, 800, 0), false);
        cursor.advance();
        assert_eq!(cursor.place().offset, (1 << 32) + 800);
    }

    #[test]
    fn the_boundary_never_goes_back() {
        let mut cursor = cursor();
        cursor.rotate(&Rotate { position: 4, file: "binlog.000002" }).unwrap();
        cursor.advance();
        assert_eq!((cursor.place().file, cursor.place().offset), (3, 500));
        cursor.rotate(&Rotate { position: 4, file: "binlog.000004" }).unwrap();
        cursor.advance();
        assert_eq!((cursor.place().file, cursor.place().offset), (4, 4));
        cursor.rest_at(&Heartbeat { file: "binlog.000003", position: 900 });
        cursor.rest_at(&Heartbeat { file: "binlog.000004", position: 300 });
        cursor.advance();
        assert_eq!(cursor.place().offset, 300);
        assert!(cursor.rotate(&Rotate { position: 4, file: "nonsense" }).is_err());
    }
}
