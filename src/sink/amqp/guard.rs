//! What a broker sends, looked at before the client reads it.
//!
//! The client follows tables inside tables by recursion, and a stack that overflows ends the process: a server that has proved nothing
//! could do that, and so could whoever publishes to a queue that is read here.

use super::dial::Stream;
use super::link::FRAME_BYTES_MAX;
use super::socket::{Inner, Over, Socket};
use futures_util::{AsyncRead, AsyncWrite};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

/// How deep tables and lists may lie in each other. RabbitMQ's own lie three deep (`x-death`).
const DEPTH_MAX: usize = 32;
const FRAME_HEAD: usize = 7;
const FRAME_END: usize = 1;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
/// Class and method of `connection.start`, the one that holds a table.
const START: [u8; 4] = [0, 10, 0, 10];

/// A stream to a broker whose frames the client can follow.
pub(super) struct Guarded {
    stream: Stream,
    frames: Frames,
}

impl Guarded {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, frames: Frames::default() }
    }
}

impl Over for Guarded {
    fn over(inner: Inner) -> Self {
        Self::new(Stream::Plain(Socket::over(inner)))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.frames.look(&buffer[..read]).map(|()| read))
    }
}

impl AsyncWrite for Guarded {
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

/// Frames as they come in, piece by piece. The client reads one when its last byte is there.
#[derive(Debug, Default)]
struct Frames {
    /// Of a frame with tables all that has come; of another its head alone.
    held: Vec<u8>,
    /// How many bytes of the frame are not looked at.
    skipped: usize,
}

impl Frames {
    fn look(&mut self, mut bytes: &[u8]) -> io::Result<()> {
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

    /// Takes what belongs to the head, or to a frame that is held; returns how much that is.
    fn hold(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let whole = self.whole();
        let taken = bytes.len().min(whole - self.held.len());
        self.held.extend_from_slice(&bytes[..taken]);
        if self.held.len() == FRAME_HEAD && whole == FRAME_HEAD {
            // It is known now how long it is.
            let (kind, rest) = (self.held[0], self.whole() - FRAME_HEAD);
            if !matches!(kind, METHOD | HEADER) {
                self.held.clear();
                self.skipped = rest;
            } else if FRAME_BYTES_MAX as usize <= rest {
                return Err(refused(format!("a frame of {rest} bytes that was not agreed on")));
            }
        } else if self.held.len() == whole {
            let deep = table(&self.held).is_some_and(is_deep);
            self.held.clear();
            if deep {
                return Err(refused(format!("a table in which others lie more than {DEPTH_MAX} deep")));
            }
        }
        Ok(taken)
    }

    /// How many bytes the frame has, as far as that is known.
    fn whole(&self) -> usize {
        match self.held.get(3..FRAME_HEAD).and_then(<[u8]>::first_chunk::<4>) {
            Some(length) => FRAME_HEAD + u32::from_be_bytes(*length) as usize + FRAME_END,
            None => FRAME_HEAD,
        }
    }
}

fn refused(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The table of a frame that has one, from its length on.
fn table(frame: &[u8]) -> Option<&[u8]> {
    let payload = frame.get(FRAME_HEAD..)?;
    if frame[0] == METHOD {
        // Behind the version of the protocol.
        return payload.strip_prefix(&START)?.get(2..);
    }
    // Class, weight and the body's size; then which properties there are, of which headers are the third.
    let (flags, mut rest) = payload.get(12..)?.split_first_chunk::<2>()?;
    let (mut flags, first) = (u16::from_be_bytes(*flags), u16::from_be_bytes(*flags));
    while flags & 1 == 1 {
        let (more, behind) = rest.split_first_chunk::<2>()?;
        (flags, rest) = (u16::from_be_bytes(*more), behind);
    }
    for property in [15, 14] {
        if first >> property & 1 == 1 {
            let (length, behind) = rest.split_first()?;
            rest = behind.get(usize::from(*length)..)?;
        }
    }
    (first >> 13 & 1 == 1).then_some(rest)
}

/// Whether tables and lists lie too deep in this one. What is no table the client refuses by itself.
fn is_deep(table: &[u8]) -> bool {
    let Some((length, mut rest)) = length(table) else { return false };
    // Where each that is open ends, counted from the end, and whether its values have names.
    let mut open = vec![(rest.len().saturating_sub(length), true)];
    while let Some((end, is_named)) = open.last().copied() {
        if rest.len() <= end {
            open.pop();
            continue;
        }
        if DEPTH_MAX < open.len() {
            return true;
        }
        let Some((kind, behind)) = value(rest, is_named) else { return false };
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
            behind.get(size..).unwrap_or_default()
        } else {
            let Some((length, behind)) = self::length(behind) else { return false };
            if matches!(kind, b'A' | b'F') {
                open.push((behind.len().saturating_sub(length), kind == b'F'));
                behind
            } else {
                behind.get(length..).unwrap_or_default()
            }
        };
    }
    false
}

/// A value's kind, and what follows.
fn value(bytes: &[u8], is_named: bool) -> Option<(u8, &[u8])> {
    let name = if is_named { 1 + usize::from(*bytes.first()?) } else { 0 };
    let (kind, behind) = bytes.get(name..)?.split_first()?;
    Some((*kind, behind))
}

fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, behind) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*length) as usize, behind))
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, Frames, HEADER, METHOD, START};

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

    /// A table of lists instead, which have no names.
    fn lists(depth: usize) -> Vec<u8> {
        let inner = (2..depth).fold(b"t\x01sFF".to_vec(), |inner, _| [b"I\0\0\0\x07A".as_slice(), &sized(&inner), b"V"].concat());
        sized(&[b"\x01sS\0\0\0\x02FF\x01aA".as_slice(), &sized(&inner), b"\x01lA\0\0\0\0"].concat())
    }

    fn looks(bytes: &[u8], at_once: usize) -> bool {
        let mut frames = Frames::default();
        bytes.chunks(at_once).all(|piece| frames.look(piece).is_ok())
    }

    #[test]
    fn what_lies_too_deep_is_not_passed_on() {
        for (depth, passes) in [(1, true), (DEPTH_MAX, true), (DEPTH_MAX + 1, false), (5_000, false)] {
            let start = frame(METHOD, &[START.as_slice(), &[0, 9], &deep(depth), b"\0\0\0\x05PLAIN"].concat());
            let listed = frame(METHOD, &[START.as_slice(), &[0, 9], &lists(depth.max(2))].concat());
            let head = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0b1110_0000, 0];
            let header = frame(HEADER, &[&head, b"\x04text\x02gz".as_slice(), &deep(depth)].concat());
            for frame in [start, listed, header] {
                let bytes = [b"\x08\0\0\0\0\0\0\xce".as_slice(), b"\x03\0\x01\0\0\0\x03FFF\xce", &frame].concat();
                for at_once in [1, 7, 100_000] {
                    assert_eq!(looks(&bytes, at_once), passes, "{depth} deep, {at_once} bytes at once");
                }
            }
        }
    }

    #[test]
    fn what_is_no_table_is_left_to_the_client() {
        let cut = frame(METHOD, &[START.as_slice(), b"\0\x09\xff\xff\xff\xff\x01aF\xff\xff\xff\xff"].concat());
        for bytes in [b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), &frame(HEADER, b"\0\x3c"), &frame(METHOD, b""), &cut] {
            assert!(looks(&bytes.repeat(3), 5));
        }
        assert!(!looks(&[1, 0, 0, 0xff, 0xff, 0xff, 0xff], 5), "nothing is held that was only announced");
    }
}
