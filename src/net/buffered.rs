//! A socket with one growing buffer for input and one for output.
//!
//! The buffers belong to the connection and not to a future, so a cancelled read or write loses nothing.

use super::socket::Socket;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket with its buffers. Whoever reads from it knows how long a message is, and says so before more is read.
pub struct Buffered {
    socket: Socket,
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    written: usize,
}

/// The initial size of the input buffer. It grows for larger messages.
const INPUT_BYTES: usize = 128 * 1024;

impl Buffered {
    /// Buffers for this socket.
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        Self { socket, input: vec![0; INPUT_BYTES], start: 0, end: 0, output: Vec::new(), written: 0 }
    }

    /// The bytes that have arrived and were not consumed yet.
    #[inline]
    #[must_use]
    pub fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    /// The place of the input's first byte. With [`Self::at`], bytes can still be read after they were consumed, until the next read.
    #[inline]
    #[must_use]
    pub const fn place(&self) -> usize {
        self.start
    }

    /// The bytes at these places. Nothing may have been read since the places were noted.
    ///
    /// # Panics
    /// Where there are no such places: a defect of the caller.
    #[inline]
    #[must_use]
    pub fn at(&self, places: Range<usize>) -> &[u8] {
        &self.input[places]
    }

    /// Moves on behind this many bytes.
    ///
    /// # Panics
    /// Where fewer have arrived: a defect of the caller.
    #[inline]
    pub const fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "what is consumed has arrived");
        self.start += count;
    }

    /// Takes `count` bytes out of the input, `at` bytes behind its beginning. What follows moves up.
    ///
    /// # Panics
    /// Where they have not arrived: a defect of the caller.
    pub fn cut(&mut self, at: usize, count: usize) {
        let from = self.start + at;
        self.input.copy_within(from + count..self.end, from);
        self.end -= count;
    }

    /// Waits for bytes, with space for a message of `needed` bytes; returns how many arrived. Cancel safe.
    ///
    /// # Errors
    /// The system's error, or that the server closed the connection.
    pub async fn read(&mut self, needed: usize) -> io::Result<usize> {
        self.reserve(needed);
        let read = poll_fn(|context| self.poll_socket(context)).await;
        self.took(read)
    }

    /// Like [`Self::read`], but polled.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn poll_read(&mut self, needed: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.reserve(needed);
        self.poll_socket(context).map(|read| self.took(read))
    }

    /// Reads the bytes that have arrived; `None` if there are none.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn try_read(&mut self, needed: usize) -> io::Result<Option<usize>> {
        match self.poll_read(needed, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(read) => read.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    fn took(&mut self, read: io::Result<usize>) -> io::Result<usize> {
        match read? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            count => {
                self.end += count;
                Ok(count)
            }
        }
    }

    fn poll_socket(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut free = ReadBuf::new(&mut self.input[self.end..]);
        Pin::new(&mut self.socket).poll_read(context, &mut free).map_ok(|()| free.filled().len())
    }

    /// Makes space in the input buffer: for the rest of the current message, or for the next bytes.
    fn reserve(&mut self, needed: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if 4 * INPUT_BYTES < self.input.len() {
                // A very large message was consumed: its memory is freed.
                self.input.truncate(INPUT_BYTES);
                self.input.shrink_to_fit();
            }
        }
        if self.input.len() - self.start < needed.max(INPUT_BYTES / 4) {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.input.len() {
            // The buffer grows as bytes arrive, not by the announced length.
            self.input.resize(needed.max(self.end + 1).min(2 * self.input.len()), 0);
        }
    }

    /// What is sent next: bytes are appended to it. [`Self::flush`] sends it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
        &mut self.output
    }

    /// Sends everything that was queued. Cancel safe: the rest stays for the next call.
    ///
    /// # Errors
    /// The system's error.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|context| {
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
        .await
    }
}

/// Without what the buffers hold: it may be a password.
impl fmt::Debug for Buffered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (input, output) = (self.end - self.start, self.output.len() - self.written);
        formatter.debug_struct("Buffered").field("input", &input).field("output", &output).finish_non_exhaustive()
    }
}
