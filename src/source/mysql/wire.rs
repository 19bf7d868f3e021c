//! Reads and writes packets of the client's protocol (MySQL documentation, "Protocol Basics").
//!
//! A packet of 16 MiB or more comes in several parts. They are joined in the input buffer.

#![expect(clippy::cast_possible_truncation, reason = "each number was compared with its limit")]

use super::error::Error;
use crate::net::{Buffered, Socket};
use std::io;
use std::ops::Range;
use std::task::{Context, Poll};

/// One packet of the server, in the input buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet(Range<usize>);

#[derive(Debug)]
pub(super) struct Wire {
    buffered: Buffered,
    address: String,
    /// The number of the next part, of either side.
    sequence: u8,
    /// How many bytes of the current packet have been joined.
    joined: usize,
    /// Whether all of it has.
    is_complete: bool,
    /// The longest packet that is accepted.
    length_max: usize,
}

/// A header: three bytes for the length, and the number of the part.
const HEADER_LENGTH: usize = 4;
/// The length of a part that another one follows.
const PART_LENGTH: usize = 0xFF_FFFF;
/// The server makes no packet above 1 GiB (`max_allowed_packet`), but an event may hold one and its own header.
const LENGTH_MAX: usize = (1 << 30) + (1 << 16);
/// The limit until the login is complete, because the server has proved nothing yet.
const LENGTH_MAX_BEFORE_LOGIN: usize = 1 << 16;

impl Wire {
    /// A connection on which the server has sent its greeting.
    pub(super) fn new(socket: Socket, address: String, sequence: u8) -> Self {
        Self { buffered: Buffered::new(socket), address, sequence, joined: 0, is_complete: false, length_max: LENGTH_MAX_BEFORE_LOGIN }
    }

    /// From now on accepts all lengths that the protocol allows.
    pub(super) const fn accept_all_lengths(&mut self) {
        self.length_max = LENGTH_MAX;
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Connection { address: self.address.clone(), source }
    }

    /// The next packet, if it has arrived completely. It stays the next one until it is consumed.
    pub(super) fn packet(&mut self) -> Result<Option<Packet>, Error> {
        while !self.is_complete {
            let Some(length) = self.part()? else { return Ok(None) };
            let header = self.header_at();
            if self.buffered.input().len() < header + HEADER_LENGTH + length {
                return Ok(None);
            }
            if 0 < self.joined {
                self.buffered.cut(header, HEADER_LENGTH);
            }
            self.joined += length;
            self.is_complete = length < PART_LENGTH;
            self.sequence = self.sequence.wrapping_add(1);
        }
        Ok(Some(Packet(HEADER_LENGTH..HEADER_LENGTH + self.joined)))
    }

    /// The bytes of a packet that was not consumed yet.
    #[inline]
    pub(super) fn body(&self, packet: &Packet) -> &[u8] {
        &self.buffered.input()[packet.0.clone()]
    }

    /// The places of a packet's bytes. Nothing may have been read since it was returned.
    pub(super) const fn places(&self, packet: &Packet) -> Range<usize> {
        let place = self.buffered.place();
        place + packet.0.start..place + packet.0.end
    }

    /// The bytes at these places, until the next read.
    pub(super) fn at(&self, places: Range<usize>) -> &[u8] {
        self.buffered.at(places)
    }

    /// Moves on to the packet after this one.
    #[inline]
    pub(super) const fn consume(&mut self, packet: &Packet) {
        (self.joined, self.is_complete) = (0, false);
        self.buffered.consume(packet.0.end);
    }

    /// Waits for bytes; returns how many arrived. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<usize, Error> {
        let needed = self.needed()?;
        self.buffered.read(needed).await.map_err(|error| self.failed(error))
    }

    /// Reads the bytes that have arrived; `None` if there are none.
    pub(super) fn try_read(&mut self) -> Result<Option<usize>, Error> {
        let needed = self.needed()?;
        self.buffered.try_read(needed).map_err(|error| self.failed(error))
    }

    /// Like [`Self::read`], but polled.
    pub(super) fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        let needed = self.needed()?;
        self.buffered.poll_read(needed, context).map_err(|error| self.failed(error))
    }

    /// How long the current packet is as far as is known.
    fn needed(&self) -> Result<usize, Error> {
        Ok(self.header_at() + HEADER_LENGTH + self.part()?.unwrap_or_default())
    }

    /// Where the header of the current part is: behind what was joined. The first part of a packet that has several is never empty.
    const fn header_at(&self) -> usize {
        if self.joined == 0 { 0 } else { HEADER_LENGTH + self.joined }
    }

    /// The length of the current part; `None` if its header has not arrived.
    fn part(&self) -> Result<Option<usize>, Error> {
        let header = self.buffered.input().get(self.header_at()..).and_then(|rest| rest.first_chunk::<HEADER_LENGTH>());
        let Some([low, middle, high, sequence]) = header.copied() else { return Ok(None) };
        let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
        if sequence != self.sequence {
            return Err(Error::Protocol { what: "the number of a packet" });
        }
        if self.length_max < self.joined + length {
            return Err(Error::Protocol { what: "the length of a packet" });
        }
        Ok(Some(length))
    }

    /// Queues a command, which begins a new exchange. [`Self::flush`] sends it.
    pub(super) fn command(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.sequence = 0;
        self.push(write);
    }

    /// Queues a packet of the current exchange.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let output = self.buffered.output();
        let start = output.len();
        output.extend_from_slice(&[0, 0, 0, self.sequence]);
        write(output);
        let length = u32::try_from(output.len() - start - HEADER_LENGTH).unwrap_or(u32::MAX).to_le_bytes();
        output[start..start + 3].copy_from_slice(&length[..3]);
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// Sends everything that was queued. Cancel safe: the rest stays for the next call.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.buffered.flush().await.map_err(|error| self.failed(error))
    }
}

/// Appends a length-encoded integer.
pub(super) fn put_packed(out: &mut Vec<u8>, number: usize) {
    match number {
        0..=0xFA => out.push(number as u8),
        0xFB..=0xFFFF => {
            out.push(0xFC);
            out.extend_from_slice(&(number as u16).to_le_bytes());
        }
        _ => {
            out.push(0xFD);
            out.extend_from_slice(&(number as u32).to_le_bytes()[..3]);
        }
    }
}

/// Appends bytes after their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_packed(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a string and its final zero.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}
