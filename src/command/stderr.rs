//! Standard error, written by a thread of its own: who says something never waits for a reader there, and never fails with it.
//!
//! What is not written yet is bounded. Beyond that, and where a write fails, lines are dropped whole and counted, and their number
//! is said as soon as a line is written again. What ends the process is always kept.

use super::log::DROPPED;
use crate::status::metrics::log_lines_dropped;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// As many bytes wait to be written.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// How long the end of the process waits for its last lines to be written.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// It is dropped where too much waits.
    Ordinary,
    /// It is kept: why the process ends, or what a command says.
    LastWord,
    /// It says how many lines were dropped.
    Dropped,
}

/// Where a line goes, once it is whole.
pub(super) static LINES: LazyLock<Lines> = LazyLock::new(|| {
    Lines::to(Descriptor, |lines| tracing::warn!(target: DROPPED, lines, "standard error took no more: log lines were dropped"))
});

/// Writes to a descriptor without the lock of the standard library, which a write that does not return would keep.
struct Descriptor;

impl io::Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(rustix::stdio::stderr(), bytes) {
                // Somebody else who writes there does not want to wait; this thread does.
                Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&rustix::stdio::stderr(), PollFlags::OUT)], None)?),
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines on their way to a writer.
pub(super) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    came: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<(Weight, Vec<u8>)>,
    bytes: usize,
    /// Whether a line is being written.
    is_writing: bool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next line.
    fn next(&self) -> (Weight, Vec<u8>) {
        let mut waiting = self.waiting();
        waiting.is_writing = false;
        loop {
            if let Some((weight, line)) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.is_writing = true;
                return (weight, line);
            }
            self.written.notify_all();
            waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Lines {
    /// Starts the thread that writes; where the system grants none, no line is written.
    fn to(out: impl io::Write + Send + 'static, say_dropped: fn(u64)) -> Self {
        let shared = Arc::<Shared>::default();
        let writer = Writer { lines: Arc::clone(&shared), out, rest: Vec::new(), said_dropped: 0, say_dropped };
        let started = std::thread::Builder::new().name("stderr".to_owned()).spawn(move || writer.run());
        shared.waiting().is_writing = started.is_ok();
        Self(shared)
    }

    /// Takes a line; never waits for anybody.
    pub(super) fn push(&self, weight: Weight, line: &[u8]) {
        let mut waiting = self.0.waiting();
        if weight == Weight::Ordinary && WAITING_BYTES_MAX < waiting.bytes + line.len() {
            log_lines_dropped().inc();
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back((weight, line.to_vec()));
        drop(waiting);
        self.0.came.notify_one();
    }

    /// Waits until all is written; not for long.
    pub(super) fn finish(&self) {
        let waiting = self.0.waiting();
        let is_open = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        let ended = self.0.written.wait_timeout_while(waiting, LAST_LINES_TIMEOUT, is_open);
        // What is not written by now is not to be written.
        drop(ended);
    }
}

/// What the thread holds.
struct Writer<O> {
    lines: Arc<Shared>,
    out: O,
    /// The rest of a line that was written in part.
    rest: Vec<u8>,
    /// How many of the dropped lines are said.
    said_dropped: u64,
    /// Pushes a line that says how many.
    say_dropped: fn(u64),
}

impl<O: io::Write> Writer<O> {
    fn run(mut self) {
        // How many were dropped when the line that says it was made; `None` while none is on its way.
        let mut saying = None;
        loop {
            let (weight, line) = self.lines.next();
            let is_written = self.write(&line);
            match (weight, is_written) {
                (Weight::Dropped, true) => self.said_dropped = saying.take().unwrap_or(self.said_dropped),
                (Weight::Dropped, false) => saying = None,
                (_, true) => {}
                (_, false) => log_lines_dropped().inc(),
            }
            let dropped = log_lines_dropped().get();
            if is_written && saying.is_none() && self.said_dropped < dropped {
                saying = Some(dropped);
                (self.say_dropped)(dropped - self.said_dropped);
            }
        }
    }

    /// Writes a line, after the rest of the one before; a line of which something is written is finished later.
    fn write(&mut self, line: &[u8]) -> bool {
        while !self.rest.is_empty() {
            match self.out.write(&self.rest) {
                Ok(written) if 0 < written => drop(self.rest.drain(..written)),
                _ => return false,
            }
        }
        let mut begun = 0;
        while begun < line.len() {
            match self.out.write(&line[begun..]) {
                Ok(written) if 0 < written => begun += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ if begun == 0 => return false,
                _ => {
                    self.rest = line[begun..].to_vec();
                    break;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Lines, WAITING_BYTES_MAX, Weight};
    use crate::status::metrics::log_lines_dropped;
    use std::io::{self, Write};
    use std::sync::{LazyLock, Mutex, MutexGuard};
    use std::time::Duration;

    /// As many bytes are taken before the disk is full, and what was taken.
    static DISK: Mutex<(usize, Vec<u8>)> = Mutex::new((0, Vec::new()));
    static LINES: LazyLock<Lines> =
        LazyLock::new(|| Lines::to(Disk, |lines| LINES.push(Weight::Dropped, format!("{lines} dropped\n").as_bytes())));

    struct Disk;

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, taken) = &mut *disk();
            let count = bytes.len().min(*room);
            *room -= count;
            taken.extend_from_slice(&bytes[..count]);
            if count == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn disk() -> MutexGuard<'static, (usize, Vec<u8>)> {
        DISK.lock().unwrap()
    }

    /// What was taken up to this.
    fn taken(end: &str) -> String {
        while !disk().1.ends_with(end.as_bytes()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        String::from_utf8(std::mem::take(&mut disk().1)).unwrap()
    }

    fn until(dropped: u64) {
        while log_lines_dropped().get() < dropped {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn lines_are_whole_and_those_that_are_missing_are_counted_and_said() {
        for _ in 0..3 {
            LINES.push(Weight::Ordinary, b"nobody takes it\n");
        }
        until(3);
        disk().0 = 1_000;
        LINES.push(Weight::Ordinary, b"first\n");
        assert_eq!(taken("dropped\n"), "first\n3 dropped\n");
        // A line that was begun is finished before the next.
        disk().0 = 4;
        LINES.push(Weight::Ordinary, b"begun and finished\n");
        LINES.push(Weight::Ordinary, b"behind it\n");
        until(4);
        disk().0 = 1_000;
        LINES.push(Weight::LastWord, b"last\n");
        assert_eq!(taken("dropped\n"), "begun and finished\nlast\n1 dropped\n");
        // What waits is bounded, and a last word is kept.
        let mut held = disk();
        held.0 = usize::MAX;
        let (line, before) = (vec![b'x'; 1 << 10], log_lines_dropped().get());
        let pushed = 2 * WAITING_BYTES_MAX / line.len();
        for _ in 0..pushed {
            LINES.push(Weight::Ordinary, &line);
        }
        let dropped = log_lines_dropped().get() - before;
        assert!((pushed as u64 / 2 - 1..pushed as u64).contains(&dropped), "{dropped} of {pushed}");
        LINES.push(Weight::LastWord, b"last\n");
        drop(held);
        assert!(taken("dropped\n").ends_with(&format!("last\n{dropped} dropped\n")), "{dropped}");
    }
}
