//! Writes a command's result to standard output, and its messages to standard error.

use super::escape::escape_controls;
use super::stderr::{LINES, Priority};
use crate::fault::Exit;
use std::io::{ErrorKind, Write};

/// Writes a result to standard output. A reader that has closed it is no error.
pub(crate) fn print(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(escape_controls(text).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            say(&format!("write standard output: {error}\n"));
            Exit::Repair
        }
        _ => Exit::Clean,
    }
}

/// Writes a message to standard error, in order with the log.
pub(crate) fn say(text: &str) {
    LINES.push(Priority::Kept, escape_controls(text).as_bytes());
}
