//! The layout of log rows: which columns they hold for one version of a table. It is stored beside the log.

use crate::event::{Column, ColumnKind, FeedId, Relation};
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
    /// Its type, if the table is STRICT: each value is then of this storage class, or NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) strict: Option<StrictType>,
}

/// The types of STRICT tables that admit one storage class (`stricttables.html`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StrictType {
    Integer,
    Real,
    Text,
    Blob,
}

impl StrictType {
    /// The type of a STRICT table's column; `None` for ANY.
    pub(super) fn parse(declared: &str) -> Option<Self> {
        match declared.to_ascii_uppercase().as_str() {
            "INT" | "INTEGER" => Some(Self::Integer),
            "REAL" => Some(Self::Real),
            "TEXT" => Some(Self::Text),
            "BLOB" => Some(Self::Blob),
            _ => None,
        }
    }

    const fn kind(self) -> ColumnKind {
        match self {
            Self::Integer => ColumnKind::Integer { bits: 64, unsigned: false },
            Self::Real => ColumnKind::Float { bits: 64 },
            Self::Text => ColumnKind::Text { length: None },
            Self::Blob => ColumnKind::Bytes { length: None },
        }
    }
}

impl LayoutColumn {
    fn kind(&self) -> ColumnKind {
        self.strict.map_or(ColumnKind::Any, StrictType::kind)
    }
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
        let columns = self.columns.iter().map(|column| Column::new(column.name.clone(), column.kind(), column.key)).collect();
        Relation { feed, schema: SCHEMA.into(), table: self.table.clone(), columns }
    }
}

#[cfg(test)]
mod tests {
    use super::{Layout, LayoutColumn, StrictType};
    use crate::event::{ColumnKind, FeedId};

    #[test]
    fn only_a_strict_column_has_a_kind_and_what_was_stored_without_stays_the_same() {
        let stored = r#"{"table":"t","columns":[{"name":"id","blob":false,"key":true}]}"#;
        let layout = Layout::parse(1, stored).unwrap();
        assert_eq!(serde_json::to_string(&layout).unwrap(), stored);
        assert_eq!(layout.relation(FeedId(0)).columns[0].kind, ColumnKind::Any);
        let column = |declared| LayoutColumn { name: "c".into(), blob: false, key: false, strict: StrictType::parse(declared) };
        let columns = ["INT", "integer", "REAL", "TEXT", "BLOB", "ANY"].map(column).to_vec();
        let strict = Layout { table: "t".into(), columns };
        let read = Layout::parse(1, &serde_json::to_string(&strict).unwrap()).unwrap();
        let kinds: Vec<_> = read.relation(FeedId(0)).columns.into_iter().map(|column| column.kind).collect();
        let integer = ColumnKind::Integer { bits: 64, unsigned: false };
        let (text, bytes) = (ColumnKind::Text { length: None }, ColumnKind::Bytes { length: None });
        assert_eq!(kinds, [integer.clone(), integer, ColumnKind::Float { bits: 64 }, text, bytes, ColumnKind::Any]);
    }
}
