//! Why configured feeds and a source's catalogue do not fit.

use crate::checkpoint::FeedName;
use crate::fault::{Classify, Code, Fault};
use crate::feed::route::Destination;
use std::sync::Arc;

/// The longest destination that any broker takes: an AMQP short string. A sink knows its own narrower limits.
pub(super) const DESTINATION_BYTES_MAX: usize = 255;

/// Why rules and catalogue do not fit. Rules are counted from 0, as in the path of a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A table is named by two rules.
    #[error("table {table} is named by feeds[{first}] and by feeds[{second}]: leave it to one of them")]
    TableInTwoFeeds {
        /// The table.
        table: FeedName,
        /// The first rule that names it.
        first: usize,
        /// Another one.
        second: usize,
    },
    /// A pattern means no table.
    #[error("feeds[{feed}].tables: `{pattern}` matches no table of the source{}", suggestion(nearest.as_deref()))]
    TableMissing {
        /// The rule.
        feed: usize,
        /// The pattern.
        pattern: String,
        /// The table that is most like it.
        nearest: Option<String>,
    },
    /// A configured key column does not exist.
    #[error("feeds[{feed}].key: table {table} has no column `{column}`{}", suggestion(nearest.as_deref()))]
    KeyColumnMissing {
        /// The rule.
        feed: usize,
        /// The table.
        table: FeedName,
        /// The column.
        column: Arc<str>,
        /// The column that is most like it.
        nearest: Option<String>,
    },
    /// A configured key has no column.
    #[error("feeds[{feed}].key: it names no column; leave the setting out for the primary key")]
    KeyEmpty {
        /// The rule.
        feed: usize,
    },
    /// Two tables share a destination, so that equal keys of both would be taken for one row.
    #[error("tables {first} and {second} would both go to `{destination}`: give the route of one another name, or use {{table}} in it")]
    DestinationShared {
        /// A table.
        first: FeedName,
        /// Another one.
        second: FeedName,
        /// Where both would go.
        destination: Destination,
    },
    /// A destination's name is empty or too long for any broker.
    #[error("the destination of table {table}, `{destination}`, has {} bytes; a name has 1 to {DESTINATION_BYTES_MAX}: give the table a route of its own", destination.len())]
    DestinationInvalid {
        /// The table.
        table: FeedName,
        /// Its destination.
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
            Self::TableMissing { .. } => Code::TableMissing,
            Self::KeyColumnMissing { .. } | Self::KeyEmpty { .. } => Code::ConfigInvalid,
            Self::DestinationShared { .. } => Code::DestinationShared,
            Self::DestinationInvalid { .. } => Code::DestinationInvalid,
        }
    }
}
