//! Why lines could not be written.

use super::options::Target;
use crate::fault::{Classify, Code, Fault};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why lines could not be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The reader of standard output has ended.
    #[error("nobody reads the standard output any more; start the pipeline with a reader that stays, or write to a file")]
    Closed,
    /// The system refused to open or write the output.
    #[error("cannot write {target}: {source}; check the path, its permissions and the free disk space")]
    Unwritable {
        /// The file's path, or `standard output`.
        target: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The file was written by something else.
    #[error("{} was not written by the pipeline {pipeline:?}; set sink.path to another file, or move this one away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The pipeline whose events it should hold.
        pipeline: Arc<str>,
    },
    /// The path is a pipe, a device or a directory.
    #[error("{} is not a regular file; name one in sink.path, or use sink.kind = \"stdout\" for a pipe", path.display())]
    Special {
        /// The path.
        path: PathBuf,
    },
    /// The session ended before the lines were written.
    #[error("lines were not written because the session ended first; they are sent again")]
    Ended,
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Closed | Self::Unwritable { .. } | Self::Foreign { .. } | Self::Special { .. } => Fault::Fatal,
            Self::Ended => Fault::Transient,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Closed => Code::OutputClosed,
            Self::Unwritable { .. } | Self::Special { .. } => Code::OutputUnwritable,
            Self::Foreign { .. } => Code::OutputForeign,
            Self::Ended => Code::RecordsUnconfirmed,
        }
    }
}

impl Error {
    /// The error for a failed system call on `target`.
    pub(super) fn of(target: &Target, source: io::Error) -> Self {
        match target {
            Target::Stdout if source.kind() == io::ErrorKind::BrokenPipe => Self::Closed,
            Target::Stdout => Self::Unwritable { target: "standard output".to_owned(), source: Arc::new(source) },
            Target::File(path) => Self::Unwritable { target: path.display().to_string(), source: Arc::new(source) },
        }
    }
}
