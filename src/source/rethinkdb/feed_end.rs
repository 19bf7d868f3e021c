//! Why a changefeed ended, although it may be opened again.

use std::fmt;

/// Why a changefeed ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedEnd {
    /// The server ended it.
    Closed {
        /// The server's text.
        text: String,
    },
    /// The server threw its queue away: changes are missing.
    Overflowed {
        /// The server's text.
        text: String,
    },
    /// The scan of the table came to a halt, as it does after an overflow of which the server does not tell.
    Stalled {
        /// The table.
        table: String,
    },
    /// A change does not fit the document that the changes before it leave.
    LeftOut {
        /// The table.
        table: String,
        /// The document's key, perhaps cut.
        key: String,
    },
    /// A document has no primary key: the table was made anew, with another one.
    Keyless {
        /// The table.
        table: String,
    },
}

impl FeedEnd {
    /// Whether the server left changes out while the feed was open.
    pub(super) const fn has_left_out(&self) -> bool {
        !matches!(self, Self::Closed { .. } | Self::Keyless { .. })
    }
}

impl fmt::Display for FeedEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { text } | Self::Overflowed { text } => formatter.write_str(text),
            Self::Stalled { table } => write!(formatter, "the scan of table {table} came to a halt; raise source.queue_size"),
            Self::Keyless { table } => write!(formatter, "a document of table {table} lacks the primary key"),
            Self::LeftOut { table, key } => write!(formatter, "it left out a change of document {key} of table {table}"),
        }
    }
}
