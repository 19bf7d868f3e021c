//! Which columns of old rows the log carries.
//!
//! For a plain table its relation message says so. Rows of a partitioned table are logged by its partitions, each with a replica identity
//! of its own, but under the root's OID; columns that the identity lacks look like nulls. The server sends a partition's relation
//! message directly after its root's, before the partition's first row and again after each change of it. Later rows do not say which
//! partition they are from, so only columns that all partitions seen so far carry count as known.

use crate::source::postgres::pgoutput::{Identity, Old, Relation, Tuple, Value};
use crate::source::postgres::quote::table;
use crate::source::postgres::row::{ColumnShape, WireRow};
use std::collections::BTreeMap;

/// What a relation message says about old rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplicaIdentity {
    /// The relation's name in SQL.
    name: String,
    /// Whether old rows are complete.
    is_full: bool,
    /// The relation's columns, and whether old rows carry them.
    columns: BTreeMap<String, bool>,
}

impl ReplicaIdentity {
    pub(super) fn of(relation: &Relation<'_>) -> Self {
        Self {
            name: table(relation.schema, relation.name),
            is_full: relation.identity == Identity::Full,
            columns: relation.columns.iter().map(|column| (column.name.to_owned(), column.identity)).collect(),
        }
    }

    pub(super) fn sql_name(&self) -> &str {
        &self.name
    }

    /// Whether the relation can have updates and deletes: without a replica identity the server refuses them.
    pub(super) fn identifies(&self) -> bool {
        self.is_full || self.columns.values().any(|carried| *carried)
    }
}

/// Why the key of a row is not known, and the SQL to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnknownKey {
    pub(super) reason: String,
    pub(super) remedy: String,
}

/// What the old rows of one published table hold.
#[derive(Clone, Debug)]
pub(super) struct OldRows {
    /// How many relations log rows of the table.
    relations: usize,
    /// How many of them log complete old rows.
    full: usize,
    /// By column: whether an incomplete old row may carry it.
    carried: Vec<bool>,
    /// Whether all old rows carry more than the key.
    beyond_key: bool,
    /// Set if the identity of a relation lacks a key column: an update without an old row may have changed the key.
    unknown: Option<UnknownKey>,
    /// The table's name in SQL.
    name: String,
}

impl OldRows {
    /// No relation is known yet.
    pub(super) fn new(name: String, shapes: &mut [ColumnShape]) -> Self {
        for shape in &mut *shapes {
            shape.identity = false;
        }
        Self { relations: 0, full: 0, carried: vec![false; shapes.len()], beyond_key: false, unknown: None, name }
    }

    /// Adds a relation. `columns` and `shapes` are those of the published table.
    pub(super) fn add(&mut self, identity: &ReplicaIdentity, columns: &[(String, u32)], shapes: &mut [ColumnShape]) {
        let is_first = self.relations == 0;
        self.relations += 1;
        self.full += usize::from(identity.is_full);
        for ((shape, carried), (column, _)) in shapes.iter_mut().zip(&mut self.carried).zip(columns) {
            let of_column = identity.columns.get(column).copied();
            let is_carried = identity.is_full || of_column == Some(true);
            shape.identity = is_carried && (is_first || shape.identity);
            *carried |= is_carried && !identity.is_full;
            if shape.key && !identity.is_full && of_column == Some(false) && self.unknown.is_none() {
                self.unknown = Some(UnknownKey {
                    reason: format!("its key column {column:?} is not part of the replica identity of {}", identity.name),
                    remedy: format!("ALTER TABLE {} REPLICA IDENTITY FULL", identity.name),
                });
            }
        }
        self.beyond_key = shapes.iter().any(|shape| shape.identity && !shape.key);
    }

    /// An old row, with what is known about it.
    pub(super) fn row<'a>(&self, shapes: &'a [ColumnShape], old: Old<'a>) -> WireRow<'a> {
        let (Old::Identity(tuple) | Old::Full(tuple)) = old;
        WireRow::old(shapes, tuple, !self.is_full(tuple))
    }

    /// Whether the old row is complete, so that its nulls are values. If only some relations log complete rows, a row is complete if it has
    /// a value in a column that incomplete rows never carry.
    fn is_full(&self, tuple: Tuple<'_>) -> bool {
        let shows_more = || tuple.values().zip(&self.carried).any(|(value, carried)| !carried && value != Value::Null);
        0 < self.full && (self.full == self.relations || shows_more())
    }

    /// Whether the row shows more than the key.
    pub(super) const fn shows_before(&self, row: &WireRow<'_>) -> bool {
        self.beyond_key || row.is_full()
    }

    /// Why the key of a changed row is not known; `None` if it is known.
    pub(super) fn unknown(&self, shapes: &[ColumnShape], old: Option<Old<'_>>) -> Option<UnknownKey> {
        let Some(Old::Identity(tuple) | Old::Full(tuple)) = old else { return self.unknown.clone() };
        let has_key = shapes.iter().zip(tuple.values()).all(|(shape, value)| !shape.key || matches!(value, Value::Text(_)));
        (!has_key).then(|| {
            self.unknown.clone().unwrap_or_else(|| UnknownKey {
                reason: "an old row comes without its key".to_owned(),
                remedy: format!("ALTER TABLE {} REPLICA IDENTITY FULL", self.name),
            })
        })
    }
}
