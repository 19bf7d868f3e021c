//! The layout of log rows: which columns they hold for one version of a table. It is stored beside the log.

use crate::event::{Column, FeedId, Relation};
use crate::source::sqlite::error::Error;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The schema of everything that is captured. Attached files are other databases; temporary tables belong to one connection.
pub(super) const SCHEMA: &str = "main";

/// What a log row of one version of a table holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// The table's name at that time.
    pub(super) table: Arc<str>,
    /// Its columns in table order.
    pub(super) columns: Vec<LayoutColumn>,
}

/// One column of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayoutColumn {
    pub(super) name: Arc<str>,
    /// Whether the column's affinity is BLOB: readers expect bytes there.
    pub(super) blob: bool,
    /// Whether it is part of the key.
    pub(super) key: bool,
}

impl Layout {
    /// Parses what is stored for the version `tid` of a table.
    pub(super) fn parse(tid: i64, text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|_| Error::Malformed { what: format!("the description of table version {tid}") })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_ref())
    }

    pub(super) fn key_names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter(|column| column.key).map(|column| column.name.as_ref())
    }

    pub(super) fn key_len(&self) -> usize {
        self.key_names().count()
    }

    /// Whether it has all columns of the other.
    pub(super) fn has_columns_of(&self, other: &Self) -> bool {
        other.columns.iter().all(|column| self.columns.iter().any(|known| known.name == column.name))
    }

    pub(super) fn relation(&self, feed: FeedId) -> Relation {
        let columns = self.columns.iter().map(|column| Column { name: column.name.clone(), key: column.key }).collect();
        Relation { feed, schema: SCHEMA.into(), table: self.table.clone(), columns }
    }
}
