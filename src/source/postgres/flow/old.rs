//! What the log tells of old rows.
//!
//! A table's relation message says it of its own rows. Rows of a partitioned table are formed by their partitions, each with a replica
//! identity of its own, but speak under their root's number, and the columns that are missing in them look like nulls. The server sends
//! the partition's relation message too, straight behind the root's and before its first row, and again whenever it changed. Which
//! partition a later row is from is not said: only what all of those that were met carry is taken for known.

use crate::source::postgres::pgoutput::{Identity, Old, Relation, Tuple, Value};
use crate::source::postgres::quote::table;
use crate::source::postgres::row::{Shape, WireRow};
use std::collections::BTreeMap;

/// What a relation message says of old rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The relation, as SQL names it.
    name: String,
    /// Whether they are whole.
    whole: bool,
    /// Its columns, and whether they carry a value.
    columns: BTreeMap<String, bool>,
}

impl Told {
    pub(super) fn by(relation: &Relation<'_>) -> Self {
        Self {
            name: table(relation.schema, relation.name),
            whole: relation.identity == Identity::Full,
            columns: relation.columns.iter().map(|column| (column.name.to_owned(), column.identity)).collect(),
        }
    }

    pub(super) fn sql_name(&self) -> &str {
        &self.name
    }

    /// Whether updates and deletes can come from it at all: without an identity the server refuses them.
    pub(super) fn identifies(&self) -> bool {
        self.whole || self.columns.values().any(|carried| *carried)
    }
}

/// Why a row's key is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) reason: String,
    pub(super) remedy: String,
}

/// What the old rows of one published table hold.
#[derive(Clone, Debug)]
pub(super) struct OldRows {
    /// Relations that form them, and those of them that form them whole.
    relations: usize,
    whole: usize,
    /// By column: whether a row that is not whole may carry it.
    carried: Vec<bool>,
    /// Whether all carry more than the key.
    beyond_key: bool,
    /// A relation whose identity does not hold the key: after an update without an old row the key may be another one.
    unknown: Option<Unknown>,
    /// The table itself, as SQL names it.
    name: String,
}

impl OldRows {
    /// Nothing is told yet.
    pub(super) fn new(name: String, shapes: &mut [Shape]) -> Self {
        for shape in &mut *shapes {
            shape.identity = false;
        }
        Self { relations: 0, whole: 0, carried: vec![false; shapes.len()], beyond_key: false, unknown: None, name }
    }

    /// Takes in what one relation says. `columns` and `shapes` are those of the published table.
    pub(super) fn take_in(&mut self, told: &Told, columns: &[(String, u32)], shapes: &mut [Shape]) {
        let is_first = self.relations == 0;
        self.relations += 1;
        self.whole += usize::from(told.whole);
        for ((shape, carried), (column, _)) in shapes.iter_mut().zip(&mut self.carried).zip(columns) {
            let of_column = told.columns.get(column).copied();
            let is_carried = told.whole || of_column == Some(true);
            shape.identity = is_carried && (is_first || shape.identity);
            *carried |= is_carried && !told.whole;
            if shape.key && !told.whole && of_column == Some(false) && self.unknown.is_none() {
                self.unknown = Some(Unknown {
                    reason: format!("its key column {column:?} is not part of the replica identity of {}", told.name),
                    remedy: format!("ALTER TABLE {} REPLICA IDENTITY FULL", told.name),
                });
            }
        }
        self.beyond_key = shapes.iter().any(|shape| shape.identity && !shape.key);
    }

    /// An old row with what is known of it.
    pub(super) fn row<'a>(&self, shapes: &'a [Shape], old: Old<'a>) -> WireRow<'a> {
        let (Old::Identity(tuple) | Old::Full(tuple)) = old;
        WireRow::old(shapes, tuple, !self.is_whole(tuple))
    }

    /// Whether all its nulls mean it. Where only some rows are whole, one that has a value which the others never carry is.
    fn is_whole(&self, tuple: Tuple<'_>) -> bool {
        let shows_more = || tuple.values().zip(&self.carried).any(|(value, carried)| !carried && value != Value::Null);
        0 < self.whole && (self.whole == self.relations || shows_more())
    }

    /// Whether it shows more than the key.
    pub(super) const fn shows_before(&self, row: &WireRow<'_>) -> bool {
        self.beyond_key || row.is_whole()
    }

    /// Why the key of a changed row is not known, if it is not.
    pub(super) fn unknown(&self, shapes: &[Shape], old: Option<Old<'_>>) -> Option<Unknown> {
        let Some(Old::Identity(tuple) | Old::Full(tuple)) = old else { return self.unknown.clone() };
        let has_key = shapes.iter().zip(tuple.values()).all(|(shape, value)| !shape.key || matches!(value, Value::Text(_)));
        (!has_key).then(|| {
            self.unknown.clone().unwrap_or_else(|| Unknown {
                reason: "an old row comes without its key".to_owned(),
                remedy: format!("ALTER TABLE {} REPLICA IDENTITY FULL", self.name),
            })
        })
    }
}
