//! Errors of resolving the configured feeds against a catalogue.

use crate::checkpoint::FeedName;
use crate::fault::{Classify, Code, Fault};
use crate::feed::route::Destination;
use std::sync::Arc;

/// Why the configured feeds do not fit the catalogue. Feeds are counted from 0, as in the path of a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Two feeds match the same table.
    #[error("table {table} is in feeds[{first}] and in feeds[{second}]: keep it in one of them")]
    TableInTwoFeeds {
        /// The table.
        table: FeedName,
        /// The first feed that matches it.
        first: usize,
        /// Another feed that matches it.
        second: usize,
    },
    /// A pattern matches no table.
    #[error("feeds[{feed}].tables: `{pattern}` matches no table of the source{}", suggestion(nearest.as_deref()))]
    TableMissing {
        /// The index of the feed.
        feed: usize,
        /// The pattern.
        pattern: String,
        /// The most similar table.
        nearest: Option<String>,
    },
    /// A pattern names a view.
    #[error("feeds[{feed}].tables: `{pattern}` is a view, and the log has no rows of views: name the tables that it reads")]
    View {
        /// The index of the feed.
        feed: usize,
        /// The pattern.
        pattern: String,
    },
    /// A configured key column does not exist.
    #[error("feeds[{feed}].key: table {table} has no column `{column}`{}", suggestion(nearest.as_deref()))]
    KeyColumnMissing {
        /// The index of the feed.
        feed: usize,
        /// The table.
        table: FeedName,
        /// The column.
        column: Arc<str>,
        /// The most similar column.
        nearest: Option<String>,
    },
    /// A configured key has no columns.
    #[error("feeds[{feed}].key is empty: name columns, or remove the setting to use the primary key")]
    KeyEmpty {
        /// The index of the feed.
        feed: usize,
    },
    /// Two tables share a destination, so that readers would take equal keys of both for one row.
    #[error("tables {first} and {second} both go to `{destination}`: give one another route, or use {{table}} in it")]
    DestinationShared {
        /// One table.
        first: FeedName,
        /// The other table.
        second: FeedName,
        /// The destination of both.
        destination: Destination,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(": did you mean `{name}`?")).unwrap_or_default()
}

impl Classify for ResolveError {
    fn fault(&self) -> Fault {
        Fault::Fatal
    }

    fn code(&self) -> Code {
        match self {
            Self::TableInTwoFeeds { .. } => Code::TableInTwoFeeds,
            Self::TableMissing { .. } | Self::View { .. } => Code::TableMissing,
            Self::KeyColumnMissing { .. } | Self::KeyEmpty { .. } => Code::ConfigInvalid,
            Self::DestinationShared { .. } => Code::DestinationShared,
        }
    }
}
