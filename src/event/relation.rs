//! Relations: a table and its columns, as the log describes them.

use crate::event::head::FeedId;
use crate::event::kind::ColumnKind;
use std::sync::Arc;

/// A table as the log describes it at this position. A format prepares each relation before its first row.
///
/// A source's log and its prefeed describe the same table by equal relations.
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
    /// What its values are.
    pub kind: ColumnKind,
    /// Whether its values may be null; `None` if the log does not say.
    pub nullable: Option<bool>,
    /// Whether it belongs to the key of the events.
    pub key: bool,
}

impl Column {
    /// A column of which the log says only name and kind. Key columns are never null.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, kind: ColumnKind, key: bool) -> Self {
        Self { name: name.into(), kind, nullable: if key { Some(false) } else { None }, key }
    }
}

#[cfg(test)]
mod tests {
    use super::{Column, Relation};
    use crate::event::{ColumnKind, FeedId};

    #[test]
    fn every_difference_makes_another_relation() {
        let number = ColumnKind::Integer { bits: 32, unsigned: false };
        let of = |columns: Vec<Column>| Relation { feed: FeedId(1), schema: "s".into(), table: "t".into(), columns };
        let plain = || Column::new("id", number.clone(), false);
        let all = [
            of(vec![]),
            of(vec![plain()]),
            of(vec![plain(), plain()]),
            of(vec![Column { name: "od".into(), ..plain() }]),
            of(vec![Column { kind: ColumnKind::Integer { bits: 64, unsigned: false }, ..plain() }]),
            of(vec![Column { nullable: Some(true), ..plain() }]),
            of(vec![Column::new("id", number.clone(), true)]),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
        assert_eq!(of(vec![plain()]), of(vec![plain()]));
    }
}
