//! Reads rows of the log cell by cell.

use super::kind::Kind;
use super::pgoutput::{Tuple, Value};
use crate::event::{Cell, Row, RowError};

/// What is known about one column of a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnShape {
    /// How its values are read.
    pub(super) kind: Kind,
    /// Whether every old row carries its value: it is part of the replica identity.
    pub(super) identity: bool,
    /// Whether it is part of the key of events.
    pub(super) key: bool,
}

/// A row of the log, with what is needed to read it.
#[derive(Clone, Copy)]
pub(super) struct WireRow<'a> {
    shapes: &'a [ColumnShape],
    tuple: Tuple<'a>,
    /// The old row, if the log carries it: unchanged values are taken from it.
    old: Option<OldTuple<'a>>,
    /// Whether only columns of the replica identity carry values. The others are sent as null, whatever their value.
    identity_only: bool,
}

/// An old row.
#[derive(Clone, Copy)]
struct OldTuple<'a> {
    tuple: Tuple<'a>,
    identity_only: bool,
}

impl<'a> WireRow<'a> {
    /// A new row. Values that it leaves out are taken from the old row, if that has them.
    pub(super) fn new(shapes: &'a [ColumnShape], tuple: Tuple<'a>, old: Option<Self>) -> Self {
        let old = old.map(|old| OldTuple { tuple: old.tuple, identity_only: old.identity_only });
        Self { shapes, tuple, old, identity_only: false }
    }

    /// An old row.
    pub(super) const fn old(shapes: &'a [ColumnShape], tuple: Tuple<'a>, identity_only: bool) -> Self {
        Self { shapes, tuple, old: None, identity_only }
    }

    /// Whether every column is known.
    pub(super) const fn is_full(&self) -> bool {
        !self.identity_only
    }

    /// Whether the key's bytes differ from those of `new`. A value that was not sent because it did not change does not differ.
    pub(super) fn is_rekeyed_by(&self, new: &Self) -> bool {
        self.shapes
            .iter()
            .zip(self.tuple.values().zip(new.tuple.values()))
            .any(|(shape, (old, new))| shape.key && new != Value::Unchanged && old != new)
    }
}

impl Row for WireRow<'_> {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        if usize::from(self.tuple.columns()) != self.shapes.len() {
            return Err(RowError::Malformed { what: "as many values as the relation has columns" });
        }
        let mut old_values = self.old.map(|old| old.tuple.values());
        for (shape, value) in self.shapes.iter().zip(self.tuple.values()) {
            let old = old_values.as_mut().and_then(Iterator::next);
            match value {
                _ if self.identity_only && !shape.identity => visit(Cell::Absent)?,
                Value::Text(text) => shape.kind.show(text, visit)?,
                Value::Null => visit(Cell::Null)?,
                Value::Unchanged => match old {
                    Some(Value::Text(text)) => shape.kind.show(text, visit)?,
                    Some(Value::Null) if shape.identity || self.old.is_some_and(|old| !old.identity_only) => visit(Cell::Null)?,
                    _ => visit(Cell::Unchanged)?,
                },
            }
        }
        Ok(())
    }
}
