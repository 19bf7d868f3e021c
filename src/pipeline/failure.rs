//! How a pipeline ends.

use crate::fault::{Classify, Code, Exit, Fault};
use std::error::Error;

/// Why a pipeline stopped, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// The stable number, documented in `docs/errors.md`.
    pub code: Code,
    /// What kind of fault it is.
    pub fault: Fault,
    /// What happened, where, and what to do.
    pub message: String,
}

impl Failure {
    /// The failure that this error is, its causes included.
    pub fn of(error: &impl Classify) -> Self {
        Self { code: error.code(), fault: error.fault(), message: with_causes(error) }
    }

    /// The failure that all these errors are together: what a person must mend counts for more than what may pass.
    ///
    /// # Panics
    /// Where there is none.
    pub fn of_all<E: Classify>(errors: &[E]) -> Self {
        let grave = errors.iter().find(|error| error.fault() != Fault::Transient).or(errors.first()).expect("at least one error");
        let messages: Vec<_> = errors.iter().map(|error| with_causes(error)).collect();
        Self { code: grave.code(), fault: grave.fault(), message: messages.join("\n") }
    }

    /// Whether the same attempt may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.fault == Fault::Transient
    }
}

/// An error and the chain of its causes, each said once.
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
    /// Stopped at the deadline; what is unconfirmed follows at the next start.
    Deadline {
        /// Records that were not confirmed.
        unconfirmed: u64,
    },
    /// Stopped for a fault.
    Failed(Failure),
    /// A defect: a part of the pipeline panicked.
    Crashed {
        /// The panic's message.
        message: String,
    },
}

impl Ending {
    /// The exit status that says so.
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
