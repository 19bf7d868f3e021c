//! Commands to a running pipeline.

use crate::status::Side;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long a command may wait for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How many commands may wait.
const COMMANDS_MAX: usize = 16;

/// A command to a running pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read nothing more until [`Self::Resume`]. What was read is still delivered, and all connections are kept.
    Pause,
    /// End a pause.
    Resume,
    /// End the side's session and begin a new one at once. Where the side waits for its next attempt, that is made at once.
    Restart(Side),
    /// Send a `reset` for each of these feeds, and all their rows again, between live events. Feeds are named `schema.table`.
    ReadAgain(Vec<String>),
    /// Log by these directives, as in `log.level`.
    SetLogLevel(String),
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The pipeline still begins, or has ended.
    #[error("the pipeline is not running: wait until source and sink were reached")]
    NotRunning,
    /// No feed has this name.
    #[error("{0} is not published by this pipeline: name one of its feeds as schema.table")]
    UnknownFeed(String),
    /// The level of the log cannot be set.
    #[error("the level of the log cannot be set: {0}")]
    LogLevel(String),
}

/// Sets the level of the log.
pub type SetLogLevel = fn(&str) -> Result<(), String>;

/// Sends commands to a pipeline.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Request>);

/// A command that waits for its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Result<(), Refused>>,
}

/// A handle, and where its commands arrive.
pub(super) fn channel() -> (Handle, mpsc::Receiver<Request>) {
    let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
    (Handle(sender), receiver)
}

impl Handle {
    /// Gives a command to the pipeline. After `Ok` it is being carried out; the status shows how far it is.
    ///
    /// # Errors
    /// Why it is not carried out.
    pub async fn send(&self, command: Command) -> Result<(), Refused> {
        let (answer, answered) = oneshot::channel();
        let sent = async {
            self.0.send(Request { command, answer }).await.ok()?;
            answered.await.ok()
        };
        timeout(ANSWER_WITHIN, sent).await.ok().flatten().unwrap_or(Err(Refused::NotRunning))
    }
}
