//! Reads and writes the messages of the wire protocol: `OP_MSG` (MongoDB manual, "MongoDB Wire Protocol"), one document in each.

use super::bson::Document;
use super::error::Error;
use crate::net::{Buffered, Socket};
use std::io;
use std::ops::Range;
use std::task::{Context, Poll};

/// One reply of the server, in the input buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The request that it answers.
    pub(super) answers: i32,
    /// Where its document lies.
    body: Range<usize>,
    end: usize,
}

/// Length, number of the request, number of the request that is answered, kind of message.
const HEADER_LENGTH: usize = 16;
/// The flags, and the kind of the section that follows.
const FLAGS_LENGTH: usize = 5;
/// The kind of all messages.
const OP_MSG: i32 = 2013;
/// The flag that says that a checksum of four bytes ends the message.
const HAS_CHECKSUM: u32 = 1;
/// The longest reply that is accepted. A server sends 48,000,000 bytes at most (`maxMessageSizeBytes`).
const LENGTH_MAX: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Wire {
    buffered: Buffered,
    address: String,
    /// The number of the newest request.
    request: i32,
}

impl Wire {
    pub(super) fn new(socket: Socket, address: String) -> Self {
        Self { buffered: Buffered::new(socket), address, request: 0 }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Connection { address: self.address.clone(), source }
    }

    /// Waits for the next reply. It stays the next one until it is consumed. Cancel safe.
    pub(super) async fn frame(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.arrived()? {
                return Ok(frame);
            }
            self.read().await?;
        }
    }

    /// The next reply, if all of it has arrived.
    pub(super) fn arrived(&self) -> Result<Option<Frame>, Error> {
        let (input, place) = (self.buffered.input(), self.buffered.place());
        let Some(header) = Header::read(input)?.filter(|header| header.length <= input.len()) else { return Ok(None) };
        let message = &input[HEADER_LENGTH..header.length];
        let wrong = Error::Protocol { what: "a reply" };
        let (Some(flags), Some(0)) = (message.first_chunk().map(|flags| u32::from_le_bytes(*flags)), message.get(4)) else {
            return Err(wrong);
        };
        let checksum_length = if flags & HAS_CHECKSUM == 0 { 0 } else { 4 };
        let start = HEADER_LENGTH + FLAGS_LENGTH;
        let end = header.length.checked_sub(checksum_length).filter(|end| start <= *end).ok_or(wrong)?;
        Document::new(&input[start..end]).map_err(|_| Error::Protocol { what: "a reply" })?;
        Ok(Some(Frame { answers: header.answers, body: place + start..place + end, end: place + header.length }))
    }

    /// Waits for bytes; returns how many have come. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<usize, Error> {
        let needed = self.needed()?;
        self.buffered.read(needed).await.map_err(|error| self.failed(error))
    }

    /// Like [`Self::read`], but polled.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        let needed = self.needed()?;
        self.buffered.poll_read(needed, context).map(|read| read.map_err(|error| self.failed(error)))
    }

    /// Reads the bytes that have arrived; `None` if there are none.
    pub(super) fn try_read(&mut self) -> Result<Option<usize>, Error> {
        let needed = self.needed()?;
        self.buffered.try_read(needed).map_err(|error| self.failed(error))
    }

    fn needed(&self) -> Result<usize, Error> {
        Ok(Header::read(self.buffered.input())?.map_or(HEADER_LENGTH, |header| header.length))
    }

    /// The document of a reply, until the next read.
    pub(super) fn body(&self, frame: &Frame) -> &[u8] {
        self.buffered.at(frame.body.clone())
    }

    /// Moves on to the reply after this one.
    pub(super) const fn consume(&mut self, frame: &Frame) {
        self.buffered.consume(frame.end - self.buffered.place());
    }

    /// Queues a command; returns its number. [`Self::flush`] sends it.
    pub(super) fn push(&mut self, command: &[u8]) -> i32 {
        self.request = self.request.wrapping_add(1).max(1);
        let length = u32::try_from(HEADER_LENGTH + FLAGS_LENGTH + command.len()).expect("commands of this client are small");
        let output = self.buffered.output();
        output.extend_from_slice(&length.to_le_bytes());
        for number in [self.request, 0, OP_MSG, 0] {
            output.extend_from_slice(&number.to_le_bytes());
        }
        output.push(0);
        output.extend_from_slice(command);
        self.request
    }

    /// Sends a command without a session, and waits for its reply.
    pub(super) async fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, Error> {
        self.push(command);
        self.flush().await?;
        let frame = self.frame().await?;
        let reply = self.body(&frame).to_vec();
        self.consume(&frame);
        Ok(reply)
    }

    /// Sends everything that was queued. Cancel safe: the rest stays for the next call.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.buffered.flush().await.map_err(|error| self.failed(error))
    }
}

/// What is needed of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    /// Of the whole message.
    length: usize,
    answers: i32,
}

impl Header {
    /// `None` if it has not arrived.
    fn read(input: &[u8]) -> Result<Option<Self>, Error> {
        let Some(header) = input.first_chunk::<HEADER_LENGTH>() else { return Ok(None) };
        let [length, _, answers, kind] = [0, 4, 8, 12].map(|at| i32::from_le_bytes(*header[at..].first_chunk().unwrap_or(&[0; 4])));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if kind != OP_MSG || !(HEADER_LENGTH + FLAGS_LENGTH..=LENGTH_MAX).contains(&length) {
            return Err(Error::Protocol { what: "the header of a reply" });
        }
        Ok(Some(Self { length, answers }))
    }
}

#[cfg(test)]
mod tests {
    use super::Header;

    #[test]
    fn a_header_is_read_once_it_is_complete_and_possible() {
        let header = |length: i32, kind: i32| [length, 9, 7, kind].map(i32::to_le_bytes).concat();
        let good = header(26, 2013);
        for end in 0..good.len() {
            assert_eq!(Header::read(&good[..end]).unwrap(), None);
        }
        assert_eq!(Header::read(&good).unwrap(), Some(Header { length: 26, answers: 7 }));
        for wrong in [header(20, 2013), header(-1, 2013), header(i32::MAX, 2013), header(26, 1)] {
            assert!(Header::read(&wrong).is_err());
        }
    }
}
