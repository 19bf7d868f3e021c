//! Why a format cannot write events.

use crate::event::RowError;
use crate::fault::{Classify, Code, Fault};

/// Why a format cannot write the events of a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The format cannot express the table.
    #[error("table {table} does not fit the format: {reason}; leave it out of the feeds, or set another format.kind")]
    Unfit {
        /// The table.
        table: String,
        /// What the format cannot express.
        reason: &'static str,
    },
    /// The event does not fit a batch.
    #[error("an event of table {table} cannot be written: {source}")]
    Event {
        /// The table.
        table: String,
        /// Why.
        source: RowError,
    },
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        Fault::Fatal
    }

    fn code(&self) -> Code {
        match self {
            Self::Unfit { .. } => Code::FormatUnfit,
            Self::Event { .. } => Code::RowUnreadable,
        }
    }
}
