//! What one side of the engine does: its session, what it waits for, and how it failed last.

use crate::event::Timestamp;
use crate::fault::Code;
use std::time::Duration;
use tokio::time::Instant;

/// One side of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Reads the source.
    Source,
    /// Writes to the sink.
    Sink,
}

/// What one side does.
#[derive(Debug)]
pub struct SideStatus {
    /// Whether its session is open; `None` until one was tried.
    pub connected: Option<bool>,
    /// Since when it has had no session because of a failure.
    pub away_since: Option<Instant>,
    /// Its last failure.
    pub error: Option<LastError>,
    /// What it waits for, other than input.
    pub waiting: Option<Waiting>,
    /// When its loop last turned.
    pub(super) alive_at: Instant,
}

impl SideStatus {
    pub(super) fn new(now: Instant) -> Self {
        Self { connected: None, away_since: None, error: None, waiting: None, alive_at: now }
    }

    /// Whether its session is open.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected == Some(true)
    }

    pub(super) fn set_connected(&mut self, connected: bool) {
        self.connected = Some(connected);
        if connected {
            self.away_since = None;
            if let Some(error) = &mut self.error {
                error.end();
            }
        }
    }

    pub(super) fn failed(&mut self, error: LastError) {
        self.away_since.get_or_insert_with(Instant::now);
        self.error = Some(error);
    }
}

/// The last failure of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// Its code.
    pub code: Code,
    /// What happened, where, and what to do.
    pub message: String,
    /// When it happened, by our clock.
    pub at: Timestamp,
    /// When the next attempt is due; `None` where there is none, or it succeeded.
    pub next_attempt: Option<Instant>,
    /// Whether an attempt has succeeded since.
    pub is_over: bool,
}

impl LastError {
    /// A failure of this moment, after which the next attempt is made in `delay`.
    #[must_use]
    pub fn new(code: Code, message: &str, delay: Duration) -> Self {
        Self { code, message: message.to_owned(), at: Timestamp::now(), next_attempt: Some(Instant::now() + delay), is_over: false }
    }

    /// A failure of this moment that ended the run.
    #[must_use]
    pub fn fatal(code: Code, message: &str) -> Self {
        Self { next_attempt: None, ..Self::new(code, message, Duration::ZERO) }
    }

    pub(super) const fn end(&mut self) {
        self.next_attempt = None;
        self.is_over = true;
    }
}

/// What a side waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What it is.
    pub what: WaitFor,
    /// Who holds it, where that is known.
    pub held_by: Option<String>,
    /// Since when.
    pub since: Instant,
}

/// What a side can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// Another instance holds the pipeline.
    Instance,
    /// The broker: it has not confirmed what fills the memory, or the channel to the sink side.
    Broker,
    /// A snapshot, or what a start makes in the database, which the transactions of others delay.
    Snapshot,
    /// The command that ends the pause.
    Resume,
    /// The checkpoint, which is to be saved before the sink's new session is used.
    Checkpoint,
}

impl WaitFor {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Broker => "broker",
            Self::Snapshot => "snapshot",
            Self::Resume => "resume",
            Self::Checkpoint => "checkpoint",
        }
    }
}
