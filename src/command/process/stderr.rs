//! Writes standard error from a thread of its own, so that logging never waits for a slow reader and never fails.
//!
//! The queue of lines is bounded. Lines beyond the limit, and lines whose write fails, are dropped whole and counted; the count is logged
//! once a line can be written again. Errors that end the process are always queued.

use crate::status::metrics::log_lines_dropped;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The target of the log line that counts dropped lines. It is logged at every level.
pub(super) const DROPPED: &str = "feedline::dropped";

/// Size limit of the queue.
const QUEUED_BYTES_MAX: usize = 256 << 10;
/// How long the end of the process waits for the queue to be written.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// What happens to a line if the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// It is dropped.
    Ordinary,
    /// It is kept: an error that ends the process, or a message of a command.
    Kept,
    /// It is kept: it counts the lines that were dropped.
    DropReport,
}

/// The queue to standard error.
pub(crate) static LINES: LazyLock<Lines> = LazyLock::new(|| {
    Lines::to(RawStderr, |lines| tracing::warn!(target: DROPPED, lines, "standard error was blocked: log lines were dropped"))
});

/// Standard error without the lock of the standard library, which a blocked write would hold.
struct RawStderr;

impl io::Write for RawStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(rustix::stdio::stderr(), bytes) {
                // Another process has set the shared descriptor to non-blocking.
                Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&rustix::stdio::stderr(), PollFlags::OUT)], None)?),
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A queue of lines to a writer thread.
pub(crate) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signals a new line.
    pushed: Condvar,
    /// Signals an empty queue.
    emptied: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<(Priority, Vec<u8>)>,
    bytes: usize,
    /// Whether a line is being written.
    is_writing: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next line and takes it.
    fn next(&self) -> (Priority, Vec<u8>) {
        let mut queue = self.queue();
        queue.is_writing = false;
        loop {
            if let Some((priority, line)) = queue.lines.pop_front() {
                queue.bytes -= line.len();
                queue.is_writing = true;
                return (priority, line);
            }
            self.emptied.notify_all();
            queue = self.pushed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Lines {
    /// Starts the writer thread. If the system grants no thread, no line is written.
    fn to(out: impl io::Write + Send + 'static, report_dropped: fn(u64)) -> Self {
        let shared = Arc::<Shared>::default();
        let writer = Writer { lines: Arc::clone(&shared), out, rest: Vec::new(), reported: 0, report_dropped };
        let started = std::thread::Builder::new().name("stderr".to_owned()).spawn(move || writer.run());
        shared.queue().is_writing = started.is_ok();
        Self(shared)
    }

    /// Queues a line, without waiting.
    pub(super) fn push(&self, priority: Priority, line: &[u8]) {
        let mut queue = self.0.queue();
        if priority == Priority::Ordinary && QUEUED_BYTES_MAX < queue.bytes + line.len() {
            log_lines_dropped().inc();
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back((priority, line.to_vec()));
        drop(queue);
        self.0.pushed.notify_one();
    }

    /// Waits until the queue is written, for at most a second.
    pub(crate) fn finish(&self) {
        let queue = self.0.queue();
        let is_pending = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let ended = self.0.emptied.wait_timeout_while(queue, LAST_LINES_TIMEOUT, is_pending);
        // Lines that are not written by now are lost.
        drop(ended);
    }
}

/// The state of the writer thread.
struct Writer<O> {
    lines: Arc<Shared>,
    out: O,
    /// The rest of a partly written line.
    rest: Vec<u8>,
    /// How many of the dropped lines have been reported.
    reported: u64,
    /// Queues a line that reports dropped lines.
    report_dropped: fn(u64),
}

impl<O: io::Write> Writer<O> {
    fn run(mut self) {
        // The total of dropped lines that a queued report covers; `None` if no report is queued.
        let mut reporting = None;
        loop {
            let (priority, line) = self.lines.next();
            let is_written = self.write(&line);
            match (priority, is_written) {
                (Priority::DropReport, true) => self.reported = reporting.take().unwrap_or(self.reported),
                (Priority::DropReport, false) => reporting = None,
                (_, true) => {}
                (_, false) => log_lines_dropped().inc(),
            }
            let dropped = log_lines_dropped().get();
            if is_written && reporting.is_none() && self.reported < dropped {
                reporting = Some(dropped);
                (self.report_dropped)(dropped - self.reported);
            }
        }
    }

    /// Writes the rest of the previous line, then this line. A partly written line counts as written; its rest follows later.
    fn write(&mut self, line: &[u8]) -> bool {
        while !self.rest.is_empty() {
            match self.out.write(&self.rest) {
                Ok(written) if 0 < written => drop(self.rest.drain(..written)),
                _ => return false,
            }
        }
        let mut written_bytes = 0;
        while written_bytes < line.len() {
            match self.out.write(&line[written_bytes..]) {
                Ok(written) if 0 < written => written_bytes += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ if written_bytes == 0 => return false,
                _ => {
                    self.rest = line[written_bytes..].to_vec();
                    break;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Lines, Priority, QUEUED_BYTES_MAX};
    use crate::status::metrics::log_lines_dropped;
    use std::io::{self, Write};
    use std::sync::{LazyLock, Mutex, MutexGuard};
    use std::time::Duration;

    /// Bytes until the disk is full, and the bytes that were written.
    static DISK: Mutex<(usize, Vec<u8>)> = Mutex::new((0, Vec::new()));
    static LINES: LazyLock<Lines> =
        LazyLock::new(|| Lines::to(Disk, |lines| LINES.push(Priority::DropReport, format!("{lines} dropped\n").as_bytes())));

    struct Disk;

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (free, taken) = &mut *disk();
            let count = bytes.len().min(*free);
            *free -= count;
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

    /// Waits until the disk ends with `end`; returns and clears its content.
    fn taken(end: &str) -> String {
        while !disk().1.ends_with(end.as_bytes()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        String::from_utf8(std::mem::take(&mut disk().1)).unwrap()
    }

    fn wait_for_dropped(dropped: u64) {
        while log_lines_dropped().get() < dropped {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn lines_are_written_whole_and_dropped_lines_are_reported() {
        for _ in 0..3 {
            LINES.push(Priority::Ordinary, b"nobody takes it\n");
        }
        wait_for_dropped(3);
        disk().0 = 1_000;
        LINES.push(Priority::Ordinary, b"first\n");
        assert_eq!(taken("dropped\n"), "first\n3 dropped\n");
        // A partly written line is finished before the next.
        disk().0 = 4;
        LINES.push(Priority::Ordinary, b"begun and finished\n");
        LINES.push(Priority::Ordinary, b"behind it\n");
        wait_for_dropped(4);
        disk().0 = 1_000;
        LINES.push(Priority::Kept, b"last\n");
        assert_eq!(taken("dropped\n"), "begun and finished\nlast\n1 dropped\n");
        // The queue is bounded, but keeps errors that end the process.
        let mut held = disk();
        held.0 = usize::MAX;
        let (line, before) = (vec![b'x'; 1 << 10], log_lines_dropped().get());
        let pushed = 2 * QUEUED_BYTES_MAX / line.len();
        for _ in 0..pushed {
            LINES.push(Priority::Ordinary, &line);
        }
        let dropped = log_lines_dropped().get() - before;
        assert!((pushed as u64 / 2 - 1..pushed as u64).contains(&dropped), "{dropped} of {pushed}");
        LINES.push(Priority::Kept, b"last\n");
        drop(held);
        assert!(taken("dropped\n").ends_with(&format!("last\n{dropped} dropped\n")), "{dropped}");
    }
}
