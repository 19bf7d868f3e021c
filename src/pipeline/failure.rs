//! Failures of a pipeline, and how a run ends.

use crate::fault::{Classify, Code, Exit, Fault, with_causes};
use crate::preflight::Warning;
use crate::status::{LastError, WaitFor};
use std::time::Duration;

/// Why a pipeline failed, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// The stable code, documented in `docs/errors.md`.
    pub code: Code,
    /// Whether it is transient, a gap, or fatal.
    pub fault: Fault,
    /// What happened, where, and what to do.
    pub message: String,
}

impl Failure {
    /// The failure for this error, its causes included.
    pub fn of(error: &impl Classify) -> Self {
        Self { code: error.code(), fault: error.fault(), message: with_causes(error) }
    }

    /// The failure of a start that a preflight refuses.
    #[must_use]
    pub fn of_refusal(Warning { code, message }: Warning) -> Self {
        Self { code, fault: Fault::Fatal, message }
    }

    /// One failure for all of them, with the code and the fault of the first; `None` if there are none.
    #[must_use]
    pub fn joined(failures: Vec<Self>) -> Option<Self> {
        failures.into_iter().reduce(|first, next| Self { message: format!("{}\n{}", first.message, next.message), ..first })
    }

    /// The failure as the status shows it, where the next attempt is made in `delay`.
    pub(super) fn shown(&self, delay: Duration) -> LastError {
        LastError::new(self.code, &self.message, delay)
    }

    /// Whom or what it waits for, where nothing is wrong: others are at work, and no restart is counted.
    pub(super) fn waits_for(&self) -> Option<WaitFor> {
        match self.code {
            Code::PostgresHeldUp | Code::SqliteLocked => Some(WaitFor::Snapshot),
            code if code.exit() == Exit::Held => Some(WaitFor::Instance),
            _ => None,
        }
    }

    /// Whether the same attempt may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.fault == Fault::Transient
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything that was read is confirmed and in the checkpoint.
    Drained,
    /// Stopped at the deadline. Unconfirmed records are sent at the next start.
    Deadline {
        /// Records that were not confirmed.
        unconfirmed: u64,
    },
    /// Stopped by a failure.
    Failed(Failure),
    /// A defect: a part of the pipeline panicked.
    Crashed {
        /// The panic's message.
        message: String,
    },
}

impl Ending {
    /// The exit status of the process.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Drained => Exit::Clean,
            Self::Deadline { .. } => Exit::Deadline,
            Self::Failed(failure) => failure.code.exit(),
            Self::Crashed { .. } => Exit::Crash,
        }
    }
}
