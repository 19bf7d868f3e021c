//! Failures of a pipeline, and how a run ends.

use crate::fault::{Classify, Code, Exit, Fault};
use crate::status::LastError;
use std::error::Error;
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

    /// One failure for all these errors. Code and fault are those of the first error that is not transient.
    ///
    /// # Panics
    /// When there are no errors.
    pub fn of_all<E: Classify>(errors: &[E]) -> Self {
        let grave = errors.iter().find(|error| error.fault() != Fault::Transient).or(errors.first()).expect("at least one error");
        let messages: Vec<_> = errors.iter().map(|error| with_causes(error)).collect();
        Self { code: grave.code(), fault: grave.fault(), message: messages.join("\n") }
    }

    /// The failure as the status shows it, where the next attempt is made in `delay`.
    pub(super) fn shown(&self, delay: Duration) -> LastError {
        LastError::new(self.code, &self.message, delay)
    }

    /// Whether the same attempt may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.fault == Fault::Transient
    }
}

/// An error and the chain of its causes. A cause that the text already contains is left out.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
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
