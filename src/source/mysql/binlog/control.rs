//! Events about the log itself: its files, their format, and how far it goes.
//!
//! Source: MySQL 9.7 `libs/mysql/binlog/event/control_events.h`.

use super::bytes::{Malformed, Reader};
use super::event::{Checksum, Header};

/// The log goes on in this file. It is the last event of a file, and the server makes one at the beginning of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate<'a> {
    /// Where in the file.
    pub position: u64,
    /// The name of the file.
    pub file: &'a str,
}

/// The format of the events that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatDescription<'a> {
    /// The version of the server that wrote them.
    pub server_version: &'a str,
    /// Whether they end with a checksum.
    pub checksum: Checksum,
}

/// The server is there, and has sent its log up to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat<'a> {
    /// The name of the file.
    pub file: &'a str,
    /// Where in the file.
    pub position: u64,
}

pub(super) fn rotate(body: &[u8]) -> Result<Rotate<'_>, Malformed> {
    let mut reader = Reader::new(body, "event: the name of the next file of the log");
    let position = reader.little(8)?;
    Ok(Rotate { position, file: text(&reader)? })
}

/// The lengths of the parts that follow the header vary by server; feedline reads no event of a server whose lengths differ from today's.
pub(super) fn format_description(body: &[u8]) -> Result<FormatDescription<'_>, Malformed> {
    let mut reader = Reader::new(body, "event: the description of the log's format");
    if reader.little(2)? != 4 {
        return Err(Malformed("event: another format of the log than version 4"));
    }
    let version = reader.take(50)?;
    let version = version.split(|&byte| byte == 0).next().unwrap_or_default();
    let server_version = std::str::from_utf8(version).map_err(|_| reader.malformed())?;
    reader.take(4)?;
    if usize::from(reader.byte()?) != Header::LENGTH {
        return Err(Malformed("event: another length of its header than 19"));
    }
    // The lengths of the parts, then one byte for the kind of checksum, then a checksum whatever its kind.
    let (_, kind) = reader.rest().split_last_chunk::<5>().ok_or(reader.malformed())?;
    let checksum = match kind[0] {
        0 => Checksum::None,
        1 => Checksum::Crc32,
        _ => return Err(Malformed("event: a kind of checksum that is not known")),
    };
    Ok(FormatDescription { server_version, checksum })
}

pub(super) fn heartbeat<'a>(header: &Header, body: &'a [u8]) -> Result<Heartbeat<'a>, Malformed> {
    let reader = Reader::new(body, "event: a heartbeat");
    Ok(Heartbeat { file: text(&reader)?, position: header.next_position.into() })
}

/// Version 2 has tagged fields: 1 is the name of the file, 2 the position in it, 0 the end.
pub(super) fn heartbeat_2(body: &[u8]) -> Result<Heartbeat<'_>, Malformed> {
    let mut reader = Reader::new(body, "event: a heartbeat");
    let (mut file, mut position) = ("", 0);
    while !reader.is_empty() {
        let (field, value) = match reader.packed()? {
            0 => break,
            field => (field, reader.packed_bytes()?),
        };
        let mut value = Reader::new(value, "event: a heartbeat");
        match field {
            1 => file = text(&value)?,
            2 => position = value.packed()?,
            _ => {}
        }
    }
    Ok(Heartbeat { file, position })
}

fn text<'a>(reader: &Reader<'a>) -> Result<&'a str, Malformed> {
    std::str::from_utf8(reader.rest()).map_err(|_| reader.malformed())
}
