//! Reads and writes messages of the PostgreSQL protocol, with one growing buffer for input and one for output.
//!
//! The buffers belong to the connection and not to a future, so a cancelled read or write loses nothing.

use super::error::Error;
use crate::net::Socket;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One message of the server, in the input buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    address: String,
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    written: usize,
    /// The longest message that is accepted.
    length_max: usize,
}

/// The initial size of the input buffer. It grows for larger messages.
const INPUT_BYTES: usize = 128 * 1024;
/// The server makes no message above 1 GiB (`MaxAllocSize`). A larger length is not the PostgreSQL protocol.
const LENGTH_MAX: usize = 1 << 30;
/// The limit until the login is complete, because the server has proved nothing yet. The longest message then is an error with its context.
const LENGTH_MAX_BEFORE_LOGIN: usize = 1 << 16;

impl Wire {
    pub(super) fn new(socket: Socket, address: String) -> Self {
        Self {
            socket,
            address,
            input: vec![0; INPUT_BYTES],
            start: 0,
            end: 0,
            output: Vec::new(),
            written: 0,
            length_max: LENGTH_MAX_BEFORE_LOGIN,
        }
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
        let body = self.start + 5..self.start + 1 + length;
        Ok((body.end <= self.end).then_some(Frame { tag, body }))
    }

    /// The bytes of a message that was not consumed yet.
    #[inline]
    pub(super) fn body(&self, frame: &Frame) -> &[u8] {
        &self.input[frame.body.clone()]
    }

    /// Moves on to the message after this one.
    #[inline]
    pub(super) const fn consume(&mut self, frame: &Frame) {
        self.start = frame.body.end;
    }

    /// Waits for bytes; returns how many arrived. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<usize, Error> {
        self.reserve()?;
        let read = poll_fn(|context| self.poll_read(context)).await;
        self.took(read)
    }

    /// Like [`Self::read`], but polled.
    pub(super) fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        self.reserve()?;
        self.poll_read(context).map(|read| self.took(read))
    }

    /// Reads the bytes that have arrived; `None` if there are none.
    pub(super) fn try_read(&mut self) -> Result<Option<usize>, Error> {
        self.reserve()?;
        match self.poll_read(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(read) => self.took(read).map(Some),
            Poll::Pending => Ok(None),
        }
    }

    fn took(&mut self, read: io::Result<usize>) -> Result<usize, Error> {
        match read {
            Ok(0) => Err(self.failed(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"))),
            Ok(count) => {
                self.end += count;
                Ok(count)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut free = ReadBuf::new(&mut self.input[self.end..]);
        Pin::new(&mut self.socket).poll_read(context, &mut free).map_ok(|()| free.filled().len())
    }

    /// Makes space in the input buffer: for the rest of the current message, or for the next bytes.
    fn reserve(&mut self) -> Result<(), Error> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if 4 * INPUT_BYTES < self.input.len() {
                // A very large message was consumed: its memory is freed.
                self.input.truncate(INPUT_BYTES);
                self.input.shrink_to_fit();
            }
        }
        let needed = self.header()?.map_or(5, |(_, length)| 1 + length);
        if self.input.len() - self.start < needed.max(INPUT_BYTES / 4) {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.input.len() {
            // The buffer grows as bytes arrive, not by the announced length.
            self.input.resize(needed.min(2 * self.input.len()), 0);
        }
        Ok(())
    }

    /// The tag of the next message, and its length without the tag.
    #[inline]
    fn header(&self) -> Result<Option<(u8, usize)>, Error> {
        let Some([tag, length @ ..]) = self.input[self.start..self.end].first_chunk::<5>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        let is_possible = (4..=self.length_max).contains(&length);
        if is_possible { Ok(Some((*tag, length))) } else { Err(Error::Protocol { what: "length of a message" }) }
    }

    /// Queues a message. Messages of the start-up have no `tag`. [`Self::flush`] sends it.
    pub(super) fn push(&mut self, tag: Option<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
        self.output.extend(tag);
        let start = self.output.len();
        self.output.extend_from_slice(&[0; 4]);
        write(&mut self.output);
        let length = u32::try_from(self.output.len() - start).expect("messages of a client are small");
        self.output[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Sends everything that was queued. Cancel safe: the rest stays for the next call.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        let sent = poll_fn(|context| {
            while self.written < self.output.len() {
                let rest = &self.output[self.written..];
                match Pin::new(&mut self.socket).poll_write(context, rest) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => self.written += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Pin::new(&mut self.socket).poll_flush(context)
        })
        .await;
        sent.map_err(|error| self.failed(error))
    }
}

/// Appends a string and its final zero.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}
