//! Reads and writes the messages of the driver protocol: handshake messages that end with a zero byte, then frames.

use super::error::Error;
use super::handshake::MESSAGE_MAX;
use crate::net::{Buffered, Socket};
use std::io;
use std::ops::Range;

/// One frame of the server, in the input buffer: a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The query that it answers.
    pub(super) token: u64,
    body: Range<usize>,
}

/// Token, then length.
const HEADER_LENGTH: usize = 12;
/// The longest response that is accepted. A batch aims at 1 MB but holds at least one document, and a change holds its document twice
/// (RethinkDB 2.4.4 accepts queries up to 128 MiB).
const LENGTH_MAX: usize = 512 << 20;

#[derive(Debug)]
pub(super) struct Wire {
    buffered: Buffered,
    address: String,
}

impl Wire {
    pub(super) fn new(socket: Socket, address: String) -> Self {
        Self { buffered: Buffered::new(socket), address }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Connection { address: self.address.clone(), source }
    }

    /// Waits for the next handshake message; returns it without its zero byte. No byte behind it is consumed.
    pub(super) async fn message(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            let input = self.buffered.input();
            if let Some(end) = memchr::memchr(0, &input[..input.len().min(MESSAGE_MAX)]) {
                let message = input[..end].to_vec();
                self.buffered.consume(end + 1);
                return Ok(message);
            }
            if MESSAGE_MAX <= input.len() {
                return Err(Error::Protocol { what: "the length of a handshake message" });
            }
            self.buffered.read(MESSAGE_MAX).await.map_err(|error| self.failed(error))?;
        }
    }

    /// Waits for the next frame. It stays the next one until it is consumed. Cancel safe.
    pub(super) async fn frame(&mut self) -> Result<Frame, Error> {
        loop {
            let header = header(self.buffered.input())?;
            let needed = HEADER_LENGTH + header.map_or(0, |(_, length)| length);
            if let Some((token, _)) = header.filter(|_| needed <= self.buffered.input().len()) {
                let place = self.buffered.place();
                return Ok(Frame { token, body: place + HEADER_LENGTH..place + needed });
            }
            self.buffered.read(needed).await.map_err(|error| self.failed(error))?;
        }
    }

    /// The bytes of a frame, until the next read.
    pub(super) fn body(&self, frame: &Frame) -> &[u8] {
        self.buffered.at(frame.body.clone())
    }

    /// Moves on to the frame after this one.
    pub(super) const fn consume(&mut self, frame: &Frame) {
        self.buffered.consume(frame.body.end - self.buffered.place());
    }

    /// What is sent next, as it is.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        self.buffered.output()
    }

    /// Queues a query. [`Self::flush`] sends it.
    pub(super) fn push(&mut self, token: u64, query: &str) {
        let length = u32::try_from(query.len()).expect("queries of this client are small");
        let output = self.buffered.output();
        output.extend_from_slice(&token.to_le_bytes());
        output.extend_from_slice(&length.to_le_bytes());
        output.extend_from_slice(query.as_bytes());
    }

    /// Sends everything that was queued. Cancel safe: the rest stays for the next call.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.buffered.flush().await.map_err(|error| self.failed(error))
    }
}

/// The token of the next frame, and the length of its body; `None` if the header has not arrived.
fn header(input: &[u8]) -> Result<Option<(u64, usize)>, Error> {
    let Some((token, rest)) = input.split_first_chunk::<8>() else { return Ok(None) };
    let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if LENGTH_MAX < length {
        return Err(Error::Protocol { what: "the length of a response" });
    }
    Ok(Some((u64::from_le_bytes(*token), length)))
}

#[cfg(test)]
mod tests {
    use super::header;

    #[test]
    fn a_header_is_read_once_it_is_complete_and_possible() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0];
        for end in 0..bytes.len() {
            assert_eq!(header(&bytes[..end]).unwrap(), None);
        }
        assert_eq!(header(&bytes).unwrap(), Some((1, 3)));
        assert!(header(&[1, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]).is_err());
    }
}
