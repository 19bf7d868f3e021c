//! Global transaction identifiers, as events carry them.
//!
//! Source: MariaDB 11.4 `sql/log_event.h` (`Gtid_log_event`, `Gtid_list_log_event`); MySQL 9.7 `control_events.h` (`Gtid_event`) and
//! "MySQL serialization library".

use super::bytes::{Malformed, Reader};
use super::event::Header;
use std::fmt;

/// A transaction of MariaDB begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MariaGtid {
    /// Its identifier.
    pub gtid: MariaId,
    /// What follows it in the log.
    pub ends: GroupEnd,
    /// Whether all its changes can be rolled back: no table of a non-transactional engine is concerned.
    pub is_transactional: bool,
    /// What it does with an XA transaction.
    pub xa: Xa,
    /// Which part of an `ALTER TABLE` it is.
    pub alter: Alter,
}

/// `domain-server-sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MariaId {
    /// The replication domain.
    pub domain: u32,
    /// The server that wrote the transaction first.
    pub server: u32,
    /// Its number in the domain.
    pub sequence: u64,
}

/// How a transaction of MariaDB ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupEnd {
    /// With the event that follows: a statement without a transaction.
    Standalone,
    /// With an event of its own.
    Commit,
}

/// What a transaction does with an XA transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xa {
    /// Nothing.
    None,
    /// It prepares one: its rows count only if a later transaction commits it.
    Prepare,
    /// It commits or rolls back one that was prepared.
    Complete,
}

/// Which part of an `ALTER TABLE` a statement is (`binlog_alter_two_phase`). All parts have the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alter {
    /// All of it, or another statement.
    Whole,
    /// It begins.
    Start,
    /// The table has the new definition.
    Commit,
    /// The table keeps the old one.
    Rollback,
}

impl fmt::Display for MariaId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

pub(super) fn maria(header: &Header, body: &[u8]) -> Result<MariaGtid, Malformed> {
    const STANDALONE: u8 = 1;
    const TRANSACTIONAL: u8 = 4;
    const PREPARED_XA: u8 = 64;
    const COMPLETED_XA: u8 = 128;
    const GROUP_COMMIT: u8 = 2;
    let mut reader = Reader::new(body, "event: a GTID of MariaDB");
    let sequence = reader.little(8)?;
    let domain = u32::from_le_bytes(reader.array()?);
    let flags = reader.byte()?;
    let xa = match (flags & PREPARED_XA != 0, flags & COMPLETED_XA != 0) {
        (false, false) => Xa::None,
        (true, _) => Xa::Prepare,
        (false, true) => Xa::Complete,
    };
    if flags & GROUP_COMMIT != 0 {
        reader.take(8)?;
    }
    if xa != Xa::None {
        reader.take(4)?;
        let (global, branch) = (reader.length(1)?, reader.length(1)?);
        reader.take(global + branch)?;
    }
    // Versions before 10.8 end here.
    let alter = reader.byte().map_or(Alter::Whole, alter);
    Ok(MariaGtid {
        gtid: MariaId { domain, server: header.server_id, sequence },
        ends: if flags & STANDALONE != 0 { GroupEnd::Standalone } else { GroupEnd::Commit },
        is_transactional: flags & TRANSACTIONAL != 0,
        xa,
        alter,
    })
}

const fn alter(more_flags: u8) -> Alter {
    const START: u8 = 2;
    const COMMIT: u8 = 4;
    const ROLLBACK: u8 = 8;
    match more_flags {
        flags if flags & START != 0 => Alter::Start,
        flags if flags & COMMIT != 0 => Alter::Commit,
        flags if flags & ROLLBACK != 0 => Alter::Rollback,
        _ => Alter::Whole,
    }
}

/// The last transaction of each domain and server before a file of MariaDB's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MariaGtidList<'a>(&'a [u8]);

impl MariaGtidList<'_> {
    /// The transactions.
    pub fn iter(&self) -> impl Iterator<Item = MariaId> {
        self.0.chunks_exact(16).map(|entry| {
            let word = |at: usize| entry[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
            MariaId { domain: word(0), server: word(4), sequence: u64::from(word(12)) << 32 | u64::from(word(8)) }
        })
    }
}

pub(super) fn maria_list(body: &[u8]) -> Result<MariaGtidList<'_>, Malformed> {
    let mut reader = Reader::new(body, "event: a list of GTIDs of MariaDB");
    // The upper four bits are flags.
    let count = reader.length(4)? & 0x0FFF_FFFF;
    let length = count.checked_mul(16).ok_or(reader.malformed())?;
    Ok(MariaGtidList(reader.take(length)?))
}

/// A transaction of MySQL begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MySqlGtid<'a> {
    /// Its identifier; `None` where the server gives none.
    pub gtid: Option<MySqlId<'a>>,
    /// When it was committed on the server that is read from: microseconds since 1970.
    pub committed_at: Option<u64>,
}

/// `uuid:number` or `uuid:tag:number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MySqlId<'a> {
    /// The server, or the group, that wrote the transaction first.
    pub source: [u8; 16],
    /// The tag; empty without one.
    pub tag: &'a str,
    /// Its number there.
    pub number: u64,
}

pub(super) fn mysql(body: &[u8], is_anonymous: bool) -> Result<MySqlGtid<'_>, Malformed> {
    let mut reader = Reader::new(body, "event: a GTID of MySQL");
    reader.byte()?;
    let source = reader.array()?;
    let number = reader.little(8)?;
    // 2 says that logical clocks follow, and after them the commit times.
    let mut committed_at = None;
    if !reader.is_empty() && reader.byte()? == 2 {
        reader.take(16)?;
        if 7 <= reader.len() {
            // The highest bit says that the time of the first commit follows, which is another one.
            committed_at = Some(reader.little(7)? & !(1 << 55));
        }
    }
    let gtid = (!is_anonymous).then_some(MySqlId { source, tag: "", number });
    Ok(MySqlGtid { gtid, committed_at })
}

/// Reads the fields of a serialised message: its version, its length, the last field that must not be ignored, then number and value of each.
pub(super) fn mysql_tagged(body: &[u8]) -> Result<MySqlGtid<'_>, Malformed> {
    const WHAT: &str = "event: a tagged GTID of MySQL";
    let mut reader = Reader::new(body, WHAT);
    if variable(&mut reader)? != 1 {
        return Err(Malformed("event: a version of tagged GTIDs that is not known"));
    }
    let (length, required) = (variable(&mut reader)?, variable(&mut reader)?);
    if length != body.len() as u64 {
        return Err(Malformed(WHAT));
    }
    let (mut source, mut tag, mut number, mut committed_at) = ([0; 16], "", None, None);
    while !reader.is_empty() {
        match variable(&mut reader)? {
            1 => {
                for byte in &mut source {
                    *byte = u8::try_from(variable(&mut reader)?).map_err(|_| Malformed(WHAT))?;
                }
            }
            // The lowest bit of a signed number is its sign.
            2 => number = Some(variable(&mut reader)? >> 1),
            3 => {
                let length = usize::try_from(variable(&mut reader)?).map_err(|_| Malformed(WHAT))?;
                tag = std::str::from_utf8(reader.take(length)?).map_err(|_| Malformed(WHAT))?;
            }
            6 => committed_at = Some(variable(&mut reader)?),
            0 | 4 | 5 | 7..=11 => drop(variable(&mut reader)?),
            field if field <= required => return Err(Malformed(WHAT)),
            // What follows a field that is not known cannot be told apart, and matters to nobody.
            _ => break,
        }
    }
    let number = number.ok_or(Malformed(WHAT))?;
    Ok(MySqlGtid { gtid: Some(MySqlId { source, tag, number }), committed_at })
}

/// A number whose first byte has as many trailing ones as bytes follow.
fn variable(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let first = reader.byte()?;
    let more = first.trailing_ones() as usize;
    let rest = reader.little(more)?;
    Ok(match more {
        // The first byte has no bit of the number.
        7 | 8 => rest,
        _ => rest << (7 - more) | u64::from(first) >> (more + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::{Alter, GroupEnd, MariaId, MySqlId, Xa, maria, maria_list, mysql, mysql_tagged, variable};
    use crate::source::mysql::binlog::bytes::Reader;
    use crate::source::mysql::binlog::event::Header;

    const HEADER: Header = Header { timestamp: 0, kind: 162, server_id: 7, size: 0, next_position: 0, flags: 0 };

    #[test]
    fn a_gtid_of_mariadb_says_how_its_transaction_ends() {
        let body = |flags: u8| [&5_u64.to_le_bytes()[..], &3_u32.to_le_bytes(), &[flags, 0, 0, 0, 0, 0, 0]].concat();
        let read = |flags| maria(&HEADER, &body(flags)).unwrap();
        assert_eq!(read(4).gtid, MariaId { domain: 3, server: 7, sequence: 5 });
        assert_eq!((read(4).ends, read(4).is_transactional, read(4).xa), (GroupEnd::Commit, true, Xa::None));
        assert_eq!((read(1 | 32).ends, read(1 | 32).is_transactional), (GroupEnd::Standalone, false));
        assert_eq!((read(64).xa, read(128).xa), (Xa::Prepare, Xa::Complete));
        assert!(maria(&HEADER, &body(0)[..12]).is_err());
        // As MariaDB 10.11 logs the two parts of an ALTER TABLE, the second one in a group of transactions.
        assert_eq!((read(0x29).alter, read(4).alter), (Alter::Whole, Alter::Whole));
        let start = [&body(0x29)[..13], &[2, 0, 0, 0, 0, 0]].concat();
        let commit = [&body(0x2B)[..13], &9_u64.to_le_bytes(), &[4], &8_u64.to_le_bytes()].concat();
        let xa = [&body(0xC0)[..13], &1_u32.to_le_bytes(), &[2, 1], b"abc", &[8]].concat();
        let alter = |body: &[u8]| maria(&HEADER, body).unwrap().alter;
        assert_eq!([alter(&start), alter(&commit), alter(&xa)], [Alter::Start, Alter::Commit, Alter::Rollback]);
    }

    #[test]
    fn a_list_of_gtids_is_as_long_as_it_says() {
        let entry = [&1_u32.to_le_bytes()[..], &2_u32.to_le_bytes(), &3_u64.to_le_bytes()].concat();
        let list = [&0x1000_0001_u32.to_le_bytes()[..], &entry].concat();
        let read: Vec<_> = maria_list(&list).unwrap().iter().collect();
        assert_eq!(read, [MariaId { domain: 1, server: 2, sequence: 3 }]);
        assert!(maria_list(&[&2_u32.to_le_bytes()[..], &entry].concat()).is_err());
    }

    #[test]
    fn a_gtid_of_mysql_may_carry_its_commit_time() {
        let start = [&[1][..], &[9; 16], &4_u64.to_le_bytes(), &[2], &[0; 16]].concat();
        let full = [&start[..], &[1, 0, 0, 0, 0, 0, 0x80], &[2; 7], &[9]].concat();
        let read = mysql(&full, false).unwrap();
        assert_eq!((read.gtid, read.committed_at), (Some(MySqlId { source: [9; 16], tag: "", number: 4 }), Some(1)));
        assert_eq!((mysql(&start, true).unwrap().gtid, mysql(&start, true).unwrap().committed_at), (None, None));
    }

    #[test]
    fn a_variable_number_says_its_length_in_its_first_byte() {
        let read = |bytes: &[u8]| variable(&mut Reader::new(bytes, "")).unwrap();
        assert_eq!([read(&[0]), read(&[2]), read(&[0xFE])], [0, 1, 127]);
        assert_eq!([read(&[0b01, 2]), read(&[0b011, 0, 1])], [128, 8192]);
        assert_eq!(read(&[0x7F, 1, 0, 0, 0, 0, 0, 0x80]), 0x80_0000_0000_0001);
        assert_eq!(read(&[0xFF, 1, 2, 0, 0, 0, 0, 0, 0]), 513);
        assert!(variable(&mut Reader::new(&[1], "")).is_err());
    }

    #[test]
    fn a_tagged_gtid_must_be_complete() {
        let fields = [&[0, 0, 2][..], &[6; 16], &[4, 20, 6, 8], b"mine"].concat();
        let message = |fields: &[u8], required: u8| {
            let length = u8::try_from(fields.len() + 3).unwrap();
            [&[2, length << 1, required << 1], fields].concat()
        };
        let complete = message(&fields, 3);
        assert_eq!(mysql_tagged(&complete).unwrap().gtid, Some(MySqlId { source: [3; 16], tag: "mine", number: 5 }));
        assert!(mysql_tagged(&message(&[&fields[..], &[60 << 1, 0]].concat(), 3)).is_ok());
        assert!(mysql_tagged(&message(&[&fields[..], &[60 << 1, 0]].concat(), 61)).is_err());
        assert!(mysql_tagged(&message(&fields[..19], 3)).is_err());
    }
}
