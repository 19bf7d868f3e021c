//! Reads and writes messages of the PostgreSQL protocol.

use super::error::Error;
use crate::net::{Buffered, Socket};
use std::io;
use std::ops::Range;
use std::task::{Context, Poll};

/// One message of the server, in the input buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Wire {
    buffered: Buffered,
    address: String,
    /// The longest message that is accepted.
    length_max: usize,
}

/// The server makes no message above 1 GiB (`MaxAllocSize`). A larger length is not the PostgreSQL protocol.
const LENGTH_MAX: usize = 1 << 30;
/// The limit until the login is complete, because the server has proved nothing yet. The longest message then is an error with its context.
const LENGTH_MAX_BEFORE_LOGIN: usize = 1 << 16;

impl Wire {
    pub(super) fn new(socket: Socket, address: String) -> Self {
        Self { buffered: Buffered::new(socket), address, length_max: LENGTH_MAX_BEFORE_LOGIN }
    }

    /// From now on accepts all lengths that the protocol allows.
    pub(super) const fn accept_all_lengths(&mut self) {
        self.length_max = LENGTH_MAX;
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn failed(&self, source: io::Error) -> Error {
        Error::Connection { address: self.address.clone(), source }
    }

    /// The next message, if it has arrived completely. It stays the next one until it is consumed.
    #[inline]
    pub(super) fn frame(&self) -> Result<Option<Frame>, Error> {
        let Some((tag, length)) = self.header()? else { return Ok(None) };
        let place = self.buffered.place();
        let is_complete = length < self.buffered.input().len();
        Ok(is_complete.then_some(Frame { tag, body: place + 5..place + 1 + length }))
    }

    /// The bytes of a message, until the next read.
    #[inline]
    pub(super) fn body(&self, frame: &Frame) -> &[u8] {
        self.buffered.at(frame.body.clone())
    }

    /// Moves on to the message after this one.
    #[inline]
    pub(super) const fn consume(&mut self, frame: &Frame) {
        self.buffered.consume(frame.body.end - self.buffered.place());
    }

    /// Waits for bytes; returns how many arrived. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<usize, Error> {
        let needed = self.needed()?;
        self.buffered.read(needed).await.map_err(|error| self.failed(error))
    }

    /// Like [`Self::read`], but polled.
    pub(super) fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        let needed = self.needed()?;
        self.buffered.poll_read(needed, context).map_err(|error| self.failed(error))
    }

    /// Reads the bytes that have arrived; `None` if there are none.
    pub(super) fn try_read(&mut self) -> Result<Option<usize>, Error> {
        let needed = self.needed()?;
        self.buffered.try_read(needed).map_err(|error| self.failed(error))
    }

    /// How long the next message is; a header, if not even that has arrived.
    fn needed(&self) -> Result<usize, Error> {
        Ok(self.header()?.map_or(5, |(_, length)| 1 + length))
    }

    /// The tag of the next message, and its length without the tag.
    #[inline]
    fn header(&self) -> Result<Option<(u8, usize)>, Error> {
        let Some([tag, length @ ..]) = self.buffered.input().first_chunk::<5>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        let is_possible = (4..=self.length_max).contains(&length);
        if is_possible { Ok(Some((*tag, length))) } else { Err(Error::Protocol { what: "length of a message" }) }
    }

    /// Queues a message. Messages of the start-up have no `tag`. [`Self::flush`] sends it.
    pub(super) fn push(&mut self, tag: Option<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let output = self.buffered.output();
        output.extend(tag);
        let start = output.len();
        output.extend_from_slice(&[0; 4]);
        write(output);
        let length = u32::try_from(output.len() - start).expect("messages of a client are small");
        output[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Sends everything that was queued. Cancel safe: the rest stays for the next call.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.buffered.flush().await.map_err(|error| self.failed(error))
    }
}

/// Appends a string and its final zero.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}
