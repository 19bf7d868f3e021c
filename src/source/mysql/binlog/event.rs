//! Events: their header, their checksum, and which kind of event they are.
//!
//! Source: MySQL 9.7 `libs/mysql/binlog/event/binlog_event.h`; MariaDB 11.4 `sql/log_event.h`; MariaDB's documentation, "2-Binlog Event Header".

use super::bytes::{Malformed, Reader};

/// Whether events end with a checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// They do not.
    #[default]
    None,
    /// They end with the CRC-32 of all bytes before it.
    Crc32,
}

impl Checksum {
    /// By the name in `@@binlog_checksum`.
    #[must_use]
    pub fn of_variable(name: &str) -> Option<Self> {
        match name {
            "NONE" => Some(Self::None),
            "CRC32" => Some(Self::Crc32),
            _ => None,
        }
    }
}

/// The header of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Seconds since 1970: when its statement began. 0 in an event that the server made for this connection.
    pub timestamp: u32,
    /// The number of its kind.
    pub kind: u8,
    /// The server on which it was written first.
    pub server_id: u32,
    /// Its length, with header and checksum.
    pub size: u32,
    /// Where the next event begins in the file, modulo 2^32. 0 in an event that is in no file.
    pub next_position: u32,
    /// Flags.
    pub flags: u16,
}

impl Header {
    /// Length of a header.
    pub const LENGTH: usize = 19;

    /// Whether the server made the event for this connection: it is in no file (`LOG_EVENT_ARTIFICIAL_F`).
    #[must_use]
    pub const fn is_artificial(&self) -> bool {
        self.flags & 0x20 != 0
    }

    /// Whether the event describes the format of those that follow.
    #[must_use]
    pub const fn describes_format(&self) -> bool {
        self.kind == kind::FORMAT_DESCRIPTION
    }

    /// Whether a reader that does not know the event may pass over it (`LOG_EVENT_IGNORABLE_F`).
    #[must_use]
    pub const fn is_ignorable(&self) -> bool {
        self.flags & 0x80 != 0
    }
}

/// One event: its header and what follows, without the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The header.
    pub header: Header,
    /// What follows.
    pub body: &'a [u8],
}

impl<'a> Event<'a> {
    /// Reads an event, and verifies its checksum.
    ///
    /// # Errors
    /// Where its length or its checksum is wrong.
    pub fn read(bytes: &'a [u8], checksum: Checksum) -> Result<Self, Malformed> {
        let header = header(&mut Reader::new(bytes, "event header"))?;
        if header.size as usize != bytes.len() {
            return Err(Malformed("event: its length is not the one in its header"));
        }
        let body = &bytes[Header::LENGTH..];
        // Its own checksum is always there in a server that knows checksums; which ones follow, it says itself.
        if checksum == Checksum::None || header.kind == kind::FORMAT_DESCRIPTION {
            return Ok(Self { header, body });
        }
        let Some(body) = without_checksum(bytes) else {
            // Before the first description of the format, a server may send the name of the file with or without one.
            return if header.kind == kind::ROTATE && header.is_artificial() {
                Ok(Self { header, body })
            } else {
                Err(Malformed("event: its checksum is wrong"))
            };
        };
        Ok(Self { header, body })
    }

    /// Whether these bytes are an event that describes the format of those that follow.
    #[must_use]
    pub fn describes_format(bytes: &[u8]) -> bool {
        // The kind follows the time.
        bytes.get(4) == Some(&kind::FORMAT_DESCRIPTION)
    }

    /// Reads the next event of a transaction's payload, in which events have no checksums.
    ///
    /// # Errors
    /// Where its length is wrong.
    pub fn read_inner(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(bytes, Checksum::None)
    }
}

/// The body of an event whose checksum is right.
pub(super) fn without_checksum(event: &[u8]) -> Option<&[u8]> {
    let (content, checksum) = event.split_last_chunk::<4>()?;
    (crc32fast::hash(content) == u32::from_le_bytes(*checksum)).then(|| content.get(Header::LENGTH..)).flatten()
}

/// The length of an event by the header at its beginning. `None` where fewer bytes than a header are there.
pub(super) fn announced_length(bytes: &[u8]) -> Option<usize> {
    header(&mut Reader::new(bytes, "event header")).ok().map(|header| header.size as usize)
}

fn header(reader: &mut Reader<'_>) -> Result<Header, Malformed> {
    let timestamp = u32::from_le_bytes(reader.array()?);
    let kind = reader.byte()?;
    let server_id = u32::from_le_bytes(reader.array()?);
    let size = u32::from_le_bytes(reader.array()?);
    let next_position = u32::from_le_bytes(reader.array()?);
    let flags = u16::from_le_bytes(reader.array()?);
    Ok(Header { timestamp, kind, server_id, size, next_position, flags })
}

/// The numbers of the kinds of events.
pub(super) mod kind {
    pub(in super::super) const QUERY: u8 = 2;
    pub(in super::super) const STOP: u8 = 3;
    pub(in super::super) const ROTATE: u8 = 4;
    pub(in super::super) const INTVAR: u8 = 5;
    pub(in super::super) const RAND: u8 = 13;
    pub(in super::super) const USER_VARIABLE: u8 = 14;
    pub(in super::super) const FORMAT_DESCRIPTION: u8 = 15;
    pub(in super::super) const XID: u8 = 16;
    pub(in super::super) const BEGIN_LOAD_QUERY: u8 = 17;
    pub(in super::super) const EXECUTE_LOAD_QUERY: u8 = 18;
    pub(in super::super) const TABLE_MAP: u8 = 19;
    pub(in super::super) const WRITE_ROWS_1: u8 = 23;
    pub(in super::super) const UPDATE_ROWS_1: u8 = 24;
    pub(in super::super) const DELETE_ROWS_1: u8 = 25;
    pub(in super::super) const INCIDENT: u8 = 26;
    pub(in super::super) const HEARTBEAT: u8 = 27;
    pub(in super::super) const IGNORABLE: u8 = 28;
    pub(in super::super) const ROWS_QUERY: u8 = 29;
    pub(in super::super) const WRITE_ROWS_2: u8 = 30;
    pub(in super::super) const UPDATE_ROWS_2: u8 = 31;
    pub(in super::super) const DELETE_ROWS_2: u8 = 32;
    pub(in super::super) const GTID: u8 = 33;
    pub(in super::super) const ANONYMOUS_GTID: u8 = 34;
    pub(in super::super) const PREVIOUS_GTIDS: u8 = 35;
    pub(in super::super) const TRANSACTION_CONTEXT: u8 = 36;
    pub(in super::super) const VIEW_CHANGE: u8 = 37;
    pub(in super::super) const XA_PREPARE: u8 = 38;
    pub(in super::super) const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub(in super::super) const TRANSACTION_PAYLOAD: u8 = 40;
    pub(in super::super) const HEARTBEAT_2: u8 = 41;
    pub(in super::super) const GTID_TAGGED: u8 = 42;
    // MariaDB's own.
    pub(in super::super) const ANNOTATE_ROWS: u8 = 160;
    pub(in super::super) const BINLOG_CHECKPOINT: u8 = 161;
    pub(in super::super) const MARIADB_GTID: u8 = 162;
    pub(in super::super) const MARIADB_GTID_LIST: u8 = 163;
    pub(in super::super) const START_ENCRYPTION: u8 = 164;
    pub(in super::super) const QUERY_COMPRESSED: u8 = 165;
    pub(in super::super) const WRITE_ROWS_COMPRESSED_1: u8 = 166;
    pub(in super::super) const UPDATE_ROWS_COMPRESSED_1: u8 = 167;
    pub(in super::super) const DELETE_ROWS_COMPRESSED_1: u8 = 168;
    pub(in super::super) const WRITE_ROWS_COMPRESSED_2: u8 = 169;
    pub(in super::super) const UPDATE_ROWS_COMPRESSED_2: u8 = 170;
    pub(in super::super) const DELETE_ROWS_COMPRESSED_2: u8 = 171;
}

#[cfg(test)]
mod tests {
    use super::{Checksum, Event, Header, Malformed, kind};

    fn event(kind: u8, flags: u16, body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(Header::LENGTH + body.len() + 4).unwrap();
        let mut bytes = [&7_u32.to_le_bytes()[..], &[kind], &1_u32.to_le_bytes(), &size.to_le_bytes(), &90_u32.to_le_bytes()].concat();
        bytes.extend(flags.to_le_bytes());
        bytes.extend(body);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    #[test]
    fn a_checksum_is_verified_and_left_out() {
        let bytes = event(kind::XID, 0, b"12345678");
        let read = Event::read(&bytes, Checksum::Crc32).unwrap();
        assert_eq!((read.body, read.header.kind, read.header.next_position), (&b"12345678"[..], kind::XID, 90));
        let damaged = [&bytes[..20], &[bytes[20] ^ 1], &bytes[21..]].concat();
        assert_eq!(Event::read(&damaged, Checksum::Crc32), Err(Malformed("event: its checksum is wrong")));
        assert!(Event::read(&bytes[..bytes.len() - 1], Checksum::Crc32).is_err() && Event::read(b"", Checksum::None).is_err());
        assert_eq!(Event::read(&bytes, Checksum::None).unwrap().body.len(), 12);
    }

    #[test]
    fn the_first_name_of_a_file_comes_with_or_without_a_checksum() {
        let with = event(kind::ROTATE, 0x20, b"\x04\0\0\0\0\0\0\0binlog.000004");
        assert_eq!(&Event::read(&with, Checksum::Crc32).unwrap().body[8..], b"binlog.000004");
        let mut without = with[..with.len() - 4].to_vec();
        let size = u32::try_from(without.len()).unwrap();
        without[9..13].copy_from_slice(&size.to_le_bytes());
        assert_eq!(&Event::read(&without, Checksum::Crc32).unwrap().body[8..], b"binlog.000004");
    }
}
