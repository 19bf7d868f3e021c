//! Processes that a test has started: what they print, and how they end. Both are waited for with a deadline.

use crate::servers::port::wait_for;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a process may take. Some of them do much.
const LIMIT: Duration = Duration::from_mins(3);

/// The lines that a process prints, with their ends.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    pub(crate) fn of(output: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            while output.read_line(&mut line).is_ok_and(|bytes| 0 < bytes) && sender.send(std::mem::take(&mut line)).is_ok() {}
        });
        Self(lines)
    }

    /// The next line; `None` at the end.
    pub(crate) fn next(&self) -> Option<String> {
        match self.0.recv_timeout(LIMIT) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the process printed no line within {LIMIT:?}"),
        }
    }

    /// All lines up to the first with this text.
    pub(crate) fn until(&self, text: &str) -> String {
        let (mut said, deadline) = (String::new(), Instant::now() + LIMIT);
        while !said.contains(text) {
            assert!(Instant::now() < deadline, "{text:?} is not printed: {said}");
            said += &self.next().unwrap_or_else(|| panic!("the output ended without {text:?}: {said}"));
        }
        said
    }

    /// All lines up to the end.
    pub(crate) fn rest(&self) -> String {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// Waits for a process that ends by itself.
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    wait_for("the process ends", LIMIT, || child.try_wait().expect("ask for its end"))
}
