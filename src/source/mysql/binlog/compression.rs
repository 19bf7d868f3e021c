//! Parts of the log that a server compresses: MariaDB statements, rows and columns, and MySQL transactions.
//!
//! Source: MariaDB 11.4 `sql/log_event.cc` (`binlog_buf_compress`), `sql/field_comp.cc`; MySQL 9.7
//! `libs/mysql/binlog/event/compression/`.

use super::bytes::{Malformed, Reader, big};
use super::event::announced_length;
use flate2::read::{DeflateDecoder, ZlibDecoder};
use std::io::{Cursor, ErrorKind, Read};

/// Whether bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// They are as they are.
    Plain,
    /// As MariaDB compresses events (`log_bin_compress`).
    Maria,
}

/// Bytes that may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed<'a> {
    bytes: &'a [u8],
    packing: Packing,
}

const EVENT: Malformed = Malformed("event: its compressed part");

impl<'a> Packed<'a> {
    pub(super) const fn new(bytes: &'a [u8], packing: Packing) -> Self {
        Self { bytes, packing }
    }

    /// The bytes, which are unpacked into `space` if they are compressed.
    ///
    /// # Errors
    /// Where they are not compressed as they should be.
    pub fn unpack<'s>(&self, space: &'s mut Vec<u8>) -> Result<&'s [u8], Malformed>
    where
        'a: 's,
    {
        if self.packing == Packing::Plain {
            return Ok(self.bytes);
        }
        let mut reader = Reader::new(self.bytes, EVENT.0);
        // The highest bit is set, then three bits for the method, which is 0 for zlib, then how many bytes the length has.
        let head = reader.byte()?;
        if head & 0xF8 != 0x80 {
            return Err(EVENT);
        }
        let length = big(reader.take(usize::from(head & 7))?);
        inflate(ZlibDecoder::new(reader.rest()), length, space).ok_or(EVENT)
    }
}

/// The value of a compressed column of MariaDB, which is unpacked into `space` if it is stored compressed.
pub(super) fn column<'s>(value: &'s [u8], space: &'s mut Vec<u8>) -> Result<&'s [u8], Malformed> {
    const COLUMN: Malformed = Malformed("value of a compressed column");
    let mut reader = Reader::new(value, COLUMN.0);
    if reader.is_empty() {
        return Ok(value);
    }
    let head = reader.byte()?;
    match head >> 4 {
        0 => Ok(reader.rest()),
        8 => {
            let length = big(reader.take(usize::from(head & 7))?);
            // With this bit there is no zlib header.
            let inflated = if head & 8 == 0 {
                inflate(ZlibDecoder::new(reader.rest()), length, space)
            } else {
                inflate(DeflateDecoder::new(reader.rest()), length, space)
            };
            inflated.ok_or(COLUMN)
        }
        _ => Err(COLUMN),
    }
}

/// Decompresses to exactly this length; `None` where that fails.
fn inflate(compressed: impl Read, length: u64, space: &mut Vec<u8>) -> Option<&[u8]> {
    space.clear();
    // One byte more than announced is enough to see that there is more.
    compressed.take(length.checked_add(1)?).read_to_end(space).ok()?;
    (space.len() as u64 == length).then_some(space)
}

/// A whole transaction of MySQL, compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    is_compressed: bool,
    bytes: &'a [u8],
}

const PAYLOAD: Malformed = Malformed("event: a compressed transaction");

/// Reads the fields before the compressed events: number, length and value of each. 0 ends them, 2 is the kind of compression.
pub(super) fn payload(body: &[u8]) -> Result<Payload<'_>, Malformed> {
    let mut reader = Reader::new(body, PAYLOAD.0);
    let mut compression = None;
    loop {
        let field = reader.packed()?;
        if field == 0 {
            break;
        }
        let value = reader.packed_bytes()?;
        if field == 2 {
            compression = Some(Reader::new(value, PAYLOAD.0).packed()?);
        }
    }
    let is_compressed = match compression {
        Some(0) => true,
        Some(255) => false,
        _ => return Err(Malformed("event: a transaction with a compression that is not known")),
    };
    Ok(Payload { is_compressed, bytes: reader.rest() })
}

impl Payload<'_> {
    /// Begins to decompress its events. The compressed bytes are copied: the events may outlive the packet that brought them.
    ///
    /// # Errors
    /// Where the decompressor cannot be made.
    pub fn events(&self) -> Result<PayloadEvents, Malformed> {
        let bytes = Cursor::new(self.bytes.to_vec());
        if !self.is_compressed {
            return Ok(PayloadEvents(Decompressed::Plain(bytes)));
        }
        let decoder = zstd::Decoder::with_buffer(bytes).map_err(|_| PAYLOAD)?;
        Ok(PayloadEvents(Decompressed::Zstd(Box::new(decoder))))
    }
}

/// The events of a compressed transaction. They are decompressed one by one, however large the transaction is.
pub struct PayloadEvents(Decompressed);

enum Decompressed {
    Plain(Cursor<Vec<u8>>),
    Zstd(Box<zstd::Decoder<'static, Cursor<Vec<u8>>>>),
}

impl PayloadEvents {
    /// Puts the next event into `event`; returns false at the end.
    ///
    /// # Errors
    /// Where the bytes cannot be decompressed, or end inside an event.
    pub fn next(&mut self, event: &mut Vec<u8>) -> Result<bool, Malformed> {
        event.clear();
        self.fill(event, super::event::Header::LENGTH)?;
        if event.is_empty() {
            return Ok(false);
        }
        let length = announced_length(event).filter(|length| super::event::Header::LENGTH <= *length).ok_or(PAYLOAD)?;
        self.fill(event, length)?;
        if event.len() == length { Ok(true) } else { Err(PAYLOAD) }
    }

    /// Reads until there are this many bytes, or no more.
    fn fill(&mut self, event: &mut Vec<u8>, length: usize) -> Result<(), Malformed> {
        let missing = length.saturating_sub(event.len()) as u64;
        let read = match &mut self.0 {
            Decompressed::Plain(bytes) => bytes.take(missing).read_to_end(event),
            Decompressed::Zstd(decoder) => decoder.take(missing).read_to_end(event),
        };
        read.map(drop).or_else(|error| if error.kind() == ErrorKind::UnexpectedEof { Ok(()) } else { Err(PAYLOAD) })
    }
}

impl std::fmt::Debug for PayloadEvents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PayloadEvents").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Packed, Packing, column, payload};
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, ZlibEncoder};
    use std::io::Write as _;

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_events_are_as_long_as_they_say() {
        let text = b"insert insert insert insert insert";
        let head = |length: u8| [&[0x81, length][..], &zlib(text)].concat();
        let unpack = |bytes: &[u8]| Packed::new(bytes, Packing::Maria).unpack(&mut Vec::new()).map(<[u8]>::to_vec);
        assert_eq!(unpack(&head(34)).unwrap(), text);
        assert!(unpack(&head(33)).is_err() && unpack(&head(35)).is_err() && unpack(&head(34)[..9]).is_err() && unpack(&[]).is_err());
        assert_eq!(Packed::new(text, Packing::Plain).unpack(&mut Vec::new()).unwrap(), text);
    }

    #[test]
    fn a_compressed_column_is_stored_in_three_ways() {
        let text = b"aaaaaaaaaaaaaaaaaaaaaaaaaa";
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(text).unwrap();
        let raw = [&[0x89, 26][..], &raw.finish().unwrap()].concat();
        let read = |value: &[u8]| column(value, &mut Vec::new()).map(<[u8]>::to_vec);
        assert_eq!((read(b"").unwrap(), read(b"\0abc").unwrap()), (Vec::new(), b"abc".to_vec()));
        assert_eq!((read(&[&[0x81, 26][..], &zlib(text)].concat()).unwrap(), read(&raw).unwrap()), (text.to_vec(), text.to_vec()));
        assert!(read(&raw[..5]).is_err() && read(&[0x40, 1]).is_err());
    }

    #[test]
    fn a_compressed_transaction_gives_its_events_one_by_one() {
        let event = |size: u8| {
            let mut bytes = vec![0; usize::from(size)];
            bytes[9] = size;
            bytes
        };
        let compressed = zstd::encode_all(&[event(19), event(60)].concat()[..], 0).unwrap();
        let body = |compressed: &[u8]| [&[2, 1, 0, 3, 1, 79, 0], compressed].concat();
        let bytes = body(&compressed);
        let mut events = payload(&bytes).unwrap().events().unwrap();
        let mut read = Vec::new();
        assert!(events.next(&mut read).unwrap() && read.len() == 19);
        assert!(events.next(&mut read).unwrap() && read.len() == 60);
        assert!(!events.next(&mut read).unwrap());
        let short = body(&zstd::encode_all(&event(60)[..50], 0).unwrap());
        assert!(payload(&short).unwrap().events().unwrap().next(&mut read).is_err());
        assert!(payload(&[2, 1, 7, 0]).is_err());
    }
}
