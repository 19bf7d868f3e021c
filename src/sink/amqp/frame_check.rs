//! Checks the frames of a broker before the AMQP client parses them.
//!
//! The client parses nested tables by recursion, and a stack overflow ends the process. Without this check a server that is not
//! authenticated could cause one, and so could anybody who publishes to a queue that feedline reads.

use super::dial::Stream;
use super::socket::{FromTokioSocket, Socket, TokioSocket};
use futures_util::{AsyncRead, AsyncWrite};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The largest frame that feedline negotiates, whatever the broker offers: the client's buffers are many times this size. It is
/// RabbitMQ's own default.
pub(super) const FRAME_BYTES_MAX: u32 = 128 << 10;
/// How deep tables and lists may be nested. RabbitMQ's own are three deep (`x-death`).
const DEPTH_MAX: usize = 32;
const FRAME_HEAD: usize = 7;
const FRAME_END: usize = 1;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
/// Class and method of `connection.start`, the only method with a table.
const START: [u8; 4] = [0, 10, 0, 10];

/// A stream to a broker that fails before the client can read a frame that is too deep or too large.
pub(super) struct CheckedStream {
    stream: Stream,
    checker: FrameChecker,
}

impl CheckedStream {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, checker: FrameChecker::default() }
    }
}

impl FromTokioSocket for CheckedStream {
    fn from_tokio(inner: TokioSocket) -> Self {
        Self::new(Stream::Plain(Socket::from_tokio(inner)))
    }
}

impl AsyncRead for CheckedStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.checker.check(&buffer[..read]).map(|()| read))
    }
}

impl AsyncWrite for CheckedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// Checks incoming frames piece by piece. The client parses a frame when its last byte has arrived.
#[derive(Debug, Default)]
struct FrameChecker {
    /// The bytes so far of the current frame: all of them if the frame can hold a table, else only its head.
    held: Vec<u8>,
    /// How many more bytes of the current frame are passed without a check.
    skipped: usize,
}

impl FrameChecker {
    fn check(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let skipped = self.skipped.min(bytes.len());
            self.skipped -= skipped;
            bytes = &bytes[skipped..];
            if self.skipped == 0 {
                bytes = &bytes[self.hold(bytes)?..];
            }
        }
        Ok(())
    }

    /// Holds the bytes that belong to the head, or to a frame that is checked. Returns how many bytes that were.
    fn hold(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let frame_bytes = self.frame_bytes();
        let taken = bytes.len().min(frame_bytes - self.held.len());
        self.held.extend_from_slice(&bytes[..taken]);
        if self.held.len() == FRAME_HEAD && frame_bytes == FRAME_HEAD {
            // The head is complete and tells the frame's length.
            let (kind, rest) = (self.held[0], self.frame_bytes() - FRAME_HEAD);
            if !matches!(kind, METHOD | HEADER) {
                self.held.clear();
                self.skipped = rest;
            } else if FRAME_BYTES_MAX as usize <= rest {
                return Err(refused(format!("a frame of {rest} bytes is larger than the accepted {FRAME_BYTES_MAX}")));
            }
        } else if self.held.len() == frame_bytes {
            let deep = table(&self.held).is_some_and(is_deep);
            self.held.clear();
            if deep {
                return Err(refused(format!("a table is nested more than {DEPTH_MAX} deep")));
            }
        }
        Ok(taken)
    }

    /// The length of the frame; of its head while that is incomplete.
    fn frame_bytes(&self) -> usize {
        match self.held.get(3..FRAME_HEAD).and_then(<[u8]>::first_chunk::<4>) {
            Some(length) => FRAME_HEAD + u32::from_be_bytes(*length) as usize + FRAME_END,
            None => FRAME_HEAD,
        }
    }
}

fn refused(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// The frame's table if it has one, beginning with the table's length.
fn table(frame: &[u8]) -> Option<&[u8]> {
    let payload = frame.get(FRAME_HEAD..)?;
    if frame[0] == METHOD {
        // The table follows the two bytes of the protocol version.
        return payload.strip_prefix(&START)?.get(2..);
    }
    // Class, weight and body size come first, then the flags of the properties, of which headers are the third.
    let (flags, mut rest) = payload.get(12..)?.split_first_chunk::<2>()?;
    let (mut flags, first) = (u16::from_be_bytes(*flags), u16::from_be_bytes(*flags));
    while flags & 1 == 1 {
        let (more, after) = rest.split_first_chunk::<2>()?;
        (flags, rest) = (u16::from_be_bytes(*more), after);
    }
    for property in [15, 14] {
        if first >> property & 1 == 1 {
            let (length, after) = rest.split_first()?;
            rest = after.get(usize::from(*length)..)?;
        }
    }
    (first >> 13 & 1 == 1).then_some(rest)
}

/// Whether the table is nested too deep. The client itself refuses bytes that are not a table.
fn is_deep(table: &[u8]) -> bool {
    let Some((length, mut rest)) = length(table) else { return false };
    // For each open table or list: where it ends, in bytes from the end, and whether its values have names (only in tables).
    let mut open = vec![(rest.len().saturating_sub(length), true)];
    while let Some((end, is_named)) = open.last().copied() {
        if rest.len() <= end {
            open.pop();
            continue;
        }
        if DEPTH_MAX < open.len() {
            return true;
        }
        let Some((kind, after)) = value(rest, is_named) else { return false };
        let size = match kind {
            b't' | b'b' | b'B' => Some(1),
            b's' | b'u' | b'U' => Some(2),
            b'i' | b'I' | b'f' => Some(4),
            b'D' => Some(5),
            b'l' | b'L' | b'd' | b'T' => Some(8),
            b'V' => Some(0),
            b'S' | b'x' | b'A' | b'F' => None,
            _ => return false,
        };
        rest = if let Some(size) = size {
            after.get(size..).unwrap_or_default()
        } else {
            let Some((length, after)) = self::length(after) else { return false };
            if matches!(kind, b'A' | b'F') {
                open.push((after.len().saturating_sub(length), kind == b'F'));
                after
            } else {
                after.get(length..).unwrap_or_default()
            }
        };
    }
    false
}

/// A value's type, and the bytes that follow.
fn value(bytes: &[u8], is_named: bool) -> Option<(u8, &[u8])> {
    let name = if is_named { 1 + usize::from(*bytes.first()?) } else { 0 };
    let (kind, after) = bytes.get(name..)?.split_first()?;
    Some((*kind, after))
}

fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, after) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*length) as usize, after))
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, FrameChecker, HEADER, METHOD, START};

    fn sized(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, 0, 1], sized(payload).as_slice(), b"\xce"].concat()
    }

    fn deep(depth: usize) -> Vec<u8> {
        let inner = (1..depth).fold(b"\x01tt\x01".to_vec(), |inner, _| [b"\x01aF".as_slice(), &sized(&inner)].concat());
        sized(&inner)
    }

    /// The same with lists, whose values have no names.
    fn lists(depth: usize) -> Vec<u8> {
        let inner = (2..depth).fold(b"t\x01sFF".to_vec(), |inner, _| [b"I\0\0\0\x07A".as_slice(), &sized(&inner), b"V"].concat());
        sized(&[b"\x01sS\0\0\0\x02FF\x01aA".as_slice(), &sized(&inner), b"\x01lA\0\0\0\0"].concat())
    }

    fn passes(bytes: &[u8], piece_bytes: usize) -> bool {
        let mut checker = FrameChecker::default();
        bytes.chunks(piece_bytes).all(|piece| checker.check(piece).is_ok())
    }

    #[test]
    fn a_table_nested_too_deep_is_refused() {
        for (depth, expected) in [(1, true), (DEPTH_MAX, true), (DEPTH_MAX + 1, false), (5_000, false)] {
            let start = frame(METHOD, &[START.as_slice(), &[0, 9], &deep(depth), b"\0\0\0\x05PLAIN"].concat());
            let listed = frame(METHOD, &[START.as_slice(), &[0, 9], &lists(depth.max(2))].concat());
            let head = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0b1110_0000, 0];
            let header = frame(HEADER, &[&head, b"\x04text\x02gz".as_slice(), &deep(depth)].concat());
            for frame in [start, listed, header] {
                let bytes = [b"\x08\0\0\0\0\0\0\xce".as_slice(), b"\x03\0\x01\0\0\0\x03FFF\xce", &frame].concat();
                for piece_bytes in [1, 7, 100_000] {
                    assert_eq!(passes(&bytes, piece_bytes), expected, "{depth} deep, in pieces of {piece_bytes} bytes");
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_not_a_table_are_passed_to_the_client() {
        let cut = frame(METHOD, &[START.as_slice(), b"\0\x09\xff\xff\xff\xff\x01aF\xff\xff\xff\xff"].concat());
        for bytes in [b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), &frame(HEADER, b"\0\x3c"), &frame(METHOD, b""), &cut] {
            assert!(passes(&bytes.repeat(3), 5));
        }
        assert!(!passes(&[1, 0, 0, 0xff, 0xff, 0xff, 0xff], 5), "a frame with a huge length in its head is not held");
    }
}
