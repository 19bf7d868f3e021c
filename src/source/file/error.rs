//! Why a file of rows could not be read.

use crate::fault::{Classify, Code, Fault};
use crate::format;
use std::io;
use std::path::PathBuf;

/// Why a file of rows could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened or read.
    #[error("feeds.prefeed: {path} cannot be read: {source}; check the path (relative to the working directory) and its permissions")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// It is not the file that was begun.
    #[error(
        "feeds.prefeed: {path} changed in its first {offset} bytes, which were sent; put the old file back, or run `feedline checkpoint rewind --feed TABLE`"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// How far it was read.
        offset: u64,
    },
    /// A line is not a row of the table.
    #[error("feeds.prefeed: {path}, line {line}: {reason}; correct the line and start again: nothing behind it was sent")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// Why it is no row.
        reason: String,
    },
    /// The format cannot write the table's events.
    #[error(transparent)]
    Format(#[from] format::Error),
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreadable { .. } | Self::Changed { .. } | Self::Line { .. } => Fault::Fatal,
            Self::Format(error) => error.fault(),
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Unreadable { .. } => Code::DatasetUnreadable,
            Self::Changed { .. } => Code::DatasetChanged,
            Self::Line { .. } => Code::DatasetLine,
            Self::Format(error) => error.code(),
        }
    }
}
