//! Standard output and files: one line for each event, for the demonstration, for pipes and for tests.
//!
//! A line is the record's body; a tombstone prints nothing. Lines are confirmed once they are flushed, those of a file once they
//! are on the disk. A line that a crash left unfinished at a file's end is cut off when the file is opened again.

use crate::batch::{Ack, Batch};
use crate::checkpoint::Identity;
use crate::fault::{Classify, Code, Fault};
use crate::feed::Feeds;
use crate::preflight::Findings;
use crate::sink::{Sink, SinkConnector};
use rustix::fs::{Access, access};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot};
use writer::{Shared, Work, Writer};

mod own;
mod writer;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The process's standard output.
    Stdout,
    /// A file, appended to, made where it is not there.
    File(PathBuf),
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The output.
    pub target: Target,
    /// Whose events they are: a file that is there must hold its events and nothing else.
    pub pipeline: Arc<str>,
}

/// Why lines could not be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Whoever read the standard output is gone.
    #[error("nobody reads the standard output any more; start the pipeline again with a reader, or write to a file")]
    Closed,
    /// The output refused the lines.
    #[error("write {target}: {source}; check that the path exists, that it may be written, and that the disk has room")]
    Unwritable {
        /// The file's path, or `standard output`.
        target: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A file of something else.
    #[error(
        "{} was not written by the pipeline {pipeline:?}, and is left as it is: set sink.path to a file of its own, or move this one away",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose events it should hold.
        pipeline: Arc<str>,
    },
    /// A pipe, a device, a directory.
    #[error("{} is not a regular file, which keeps what is written: name one, or use sink.kind = \"stdout\" for a pipe", path.display())]
    Special {
        /// What is there.
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
    fn of(target: &Target, source: io::Error) -> Self {
        match target {
            Target::Stdout if source.kind() == io::ErrorKind::BrokenPipe => Self::Closed,
            Target::Stdout => Self::Unwritable { target: "standard output".to_owned(), source: Arc::new(source) },
            Target::File(path) => Self::Unwritable { target: path.display().to_string(), source: Arc::new(source) },
        }
    }
}

/// Batches that wait for the writer: it takes all that are there at once, and makes them durable together.
const WAITING_MAX: usize = 16;

/// Opens sessions with one output.
#[derive(Debug)]
pub struct Connector {
    options: Options,
    /// The writer of the last session, which may still be writing.
    writer: Option<Writer>,
    /// The file that it wrote to.
    known: Option<own::Node>,
}

impl Connector {
    /// Opens nothing yet.
    #[must_use]
    pub const fn new(options: Options) -> Self {
        Self { options, writer: None, known: None }
    }
}

impl Connector {
    fn place(&self) -> Result<Identity, Error> {
        let (name, value) = match &self.options.target {
            Target::Stdout => ("output", "stdout".to_owned()),
            Target::File(path) => {
                let path = std::path::absolute(path).map_err(|source| Error::of(&self.options.target, source))?;
                ("file", path.display().to_string())
            }
        };
        Ok(Identity::from([(name.to_owned(), value)]))
    }

    /// Looks whether the output could be opened, making nothing.
    fn look(&self) -> Result<(), Error> {
        match &self.options.target {
            Target::Stdout => Ok(()),
            Target::File(path) => own::look(path, &self.options),
        }
    }
}

/// Whether a file can be written, or made where it is not there.
fn openable(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(access(path, Access::READ_OK | Access::WRITE_OK)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
            Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
        }
        Err(error) => Err(error),
    }
}

impl SinkConnector for Connector {
    type Sink = Session;
    type Error = Error;

    fn select(&mut self, _feeds: Arc<Feeds>) {}

    async fn identity(&mut self) -> Result<Identity, Error> {
        self.place()
    }

    async fn verify(&mut self) -> Result<Identity, Error> {
        self.look()?;
        self.identity().await
    }

    async fn preflight(&mut self) -> Result<Findings, Error> {
        self.look()?;
        let place = match &self.options.target {
            Target::Stdout => "the standard output".to_owned(),
            Target::File(path) => path.display().to_string(),
        };
        Ok(Findings { actions: vec![format!("append events to {place}, a line each")], ..Findings::default() })
    }

    async fn connect(&mut self) -> Result<(Session, Identity), Error> {
        let identity = self.place()?;
        // Two writers of one output would mix their lines.
        Writer::join(&mut self.writer).await;
        let shared = Arc::new(Shared::default());
        let (work, waiting) = mpsc::channel(WAITING_MAX);
        let (writer, opened) = Writer::start(self.options.clone(), self.known, waiting, Arc::clone(&shared))?;
        self.writer = Some(writer);
        self.known = opened.await.map_err(|_| Error::Ended)??;
        Ok((Session { work, shared }, identity))
    }
}

/// One opened output.
#[derive(Debug)]
pub struct Session {
    work: mpsc::Sender<Work>,
    shared: Arc<Shared>,
}

impl Sink for Session {
    type Error = Error;

    async fn submit(&mut self, batch: Arc<Batch>, ack: Ack) -> Result<(), Error> {
        self.work.send(Work::Lines { batch, ack }).await.map_err(|_| self.failure())
    }

    fn failure(&mut self) -> Error {
        self.shared.failure.get().cloned().unwrap_or(Error::Ended)
    }

    async fn close(self) -> Result<(), Error> {
        let (asked, done) = oneshot::channel();
        if self.work.send(Work::Done(asked)).await.is_ok() && done.await.is_ok() {
            return Ok(());
        }
        Err(self.shared.failure.get().cloned().unwrap_or(Error::Ended))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Release);
    }
}
