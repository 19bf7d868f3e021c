//! Opens sessions with one output.

use super::error::Error;
use super::options::{Options, Target};
use super::ownership::{self, FileId};
use super::session::Session;
use super::writer::{Shared, WORK_QUEUE_MAX, Writer};
use crate::checkpoint::Identity;
use crate::feed::Feeds;
use crate::preflight::Findings;
use crate::sink::SinkConnector;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Opens sessions with one output.
#[derive(Debug)]
pub struct Connector {
    options: Options,
    /// The writer of the last session, which may still be writing.
    writer: Option<Writer>,
    /// The file that the last session wrote to.
    written_file: Option<FileId>,
}

impl Connector {
    /// Opens nothing yet.
    #[must_use]
    pub const fn new(options: Options) -> Self {
        Self { options, writer: None, written_file: None }
    }

    /// The output as a checkpoint keeps it.
    fn target_identity(&self) -> Result<Identity, Error> {
        let (name, value) = match &self.options.target {
            Target::Stdout => ("output", "stdout".to_owned()),
            Target::File(path) => {
                let path = std::path::absolute(path).map_err(|source| Error::of(&self.options.target, source))?;
                ("file", path.display().to_string())
            }
        };
        Ok(Identity::from([(name.to_owned(), value)]))
    }

    /// Checks whether the output could be opened. Read-only.
    fn check_target(&self) -> Result<(), Error> {
        match &self.options.target {
            Target::Stdout => Ok(()),
            Target::File(path) => ownership::check_path(path, &self.options),
        }
    }
}

impl SinkConnector for Connector {
    type Sink = Session;
    type Error = Error;

    fn select(&mut self, _feeds: Arc<Feeds>) {}

    async fn recognize(&mut self, _known: &Identity) -> Result<Identity, Error> {
        self.target_identity()
    }

    async fn preflight(&mut self) -> Result<Findings, Error> {
        self.check_target()?;
        let target = match &self.options.target {
            Target::Stdout => "the standard output".to_owned(),
            Target::File(path) => path.display().to_string(),
        };
        Ok(Findings { actions: vec![format!("append events to {target}, one per line")], ..Findings::default() })
    }

    /// The file is made by the first session.
    async fn establish(&mut self) -> Result<Identity, Error> {
        self.check_target()?;
        self.target_identity()
    }

    async fn connect(&mut self) -> Result<(Session, Identity), Error> {
        let identity = self.target_identity()?;
        // Two writers of one output would mix their lines.
        Writer::join(&mut self.writer).await;
        let shared = Arc::new(Shared::default());
        let (work, queue) = mpsc::channel(WORK_QUEUE_MAX);
        let (writer, opened) = Writer::start(self.options.clone(), self.written_file, queue, Arc::clone(&shared))?;
        self.writer = Some(writer);
        self.written_file = opened.await.map_err(|_| Error::Ended)??;
        Ok((Session::new(work, shared), identity))
    }
}
