//! Relations: a table and its columns, as the log describes them.

use crate::event::head::FeedId;
use std::sync::Arc;

/// A table as the log describes it at this position. A format prepares each relation before its first row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Relation {
    /// The feed to which the table belongs.
    pub feed: FeedId,
    /// The schema's name; `main` for SQLite.
    pub schema: Arc<str>,
    /// The table's name.
    pub table: Arc<str>,
    /// Columns in table order.
    pub columns: Vec<Column>,
}

/// One column of a relation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// The column's name.
    pub name: Arc<str>,
    /// Whether it belongs to the key of the events.
    pub key: bool,
}
