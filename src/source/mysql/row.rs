//! Reads rows of the log cell by cell.

use super::binlog::{Image, Value, apply_json_diff, write_json};
use super::kind::{Kind, Space};
use crate::event::{Cell, Row, RowError};

/// What is known about one column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnShape {
    /// How its values become cells.
    pub kind: Kind,
    /// Whether it is part of the key of events.
    pub key: bool,
}

/// A row of the log, with what is needed to read it.
#[derive(Clone, Copy, Debug)]
pub struct LogRow<'a> {
    shapes: &'a [ColumnShape],
    image: Image<'a>,
    /// The old state of a row that was changed: what the new one does not carry is as it was.
    old: Option<Image<'a>>,
    space: &'a Space,
}

impl<'a> LogRow<'a> {
    /// A row that was added or removed, or the old state of one that was changed. What it does not carry is not known.
    #[must_use]
    pub const fn whole(shapes: &'a [ColumnShape], image: Image<'a>, space: &'a Space) -> Self {
        Self { shapes, image, old: None, space }
    }

    /// The new state of a row that was changed.
    #[must_use]
    pub const fn changed(shapes: &'a [ColumnShape], old: Image<'a>, new: Image<'a>, space: &'a Space) -> Self {
        Self { shapes, image: new, old: Some(old), space }
    }

    /// Whether it carries columns beyond the key.
    #[must_use]
    pub fn shows_more_than_key(&self) -> bool {
        self.shapes.iter().enumerate().any(|(index, shape)| !shape.key && self.image.carries(index))
    }

    /// The number of the first column that the row does not carry, among all or among those of the key.
    #[must_use]
    pub fn first_missing(&self, of_key: bool) -> Option<usize> {
        let carries = |index| self.image.carries(index) || self.old.is_some_and(|old| old.carries(index));
        self.shapes.iter().enumerate().position(|(index, shape)| (shape.key || !of_key) && !carries(index))
    }

    /// Whether the values of the key differ from those of `new`. What `new` does not carry did not change.
    #[must_use]
    pub fn is_rekeyed_by(&self, new: &Self) -> bool {
        let values = self.image.values().zip(new.image.values());
        self.shapes.iter().zip(values).any(|(shape, (old, new))| shape.key && new != Ok(Value::Absent) && old != new)
    }

    /// Shows changes to the old JSON value as the new value.
    fn show_json(&self, index: usize, changes: &[u8], visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        const WITHOUT_OLD: RowError = RowError::Malformed { what: "changes to a JSON value without the old value (binlog_row_image)" };
        let old = self.old.and_then(|old| old.values().nth(index)).transpose().map_err(malformed)?;
        let Some(Value::Json(document)) = old else { return Err(WITHOUT_OLD) };
        let (mut before, mut after) = (String::new(), String::new());
        write_json(document, &mut before).and_then(|()| apply_json_diff(&before, changes, &mut after)).map_err(malformed)?;
        visit(Cell::Json(&after))
    }
}

fn malformed(error: super::binlog::Malformed) -> RowError {
    RowError::Malformed { what: error.0 }
}

impl Row for LogRow<'_> {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        if self.image.columns().len() != self.shapes.len() {
            return Err(RowError::Malformed { what: "as many values as the relation has columns" });
        }
        let mut old_values = self.old.map(|old| old.values());
        for (index, (shape, value)) in self.shapes.iter().zip(self.image.values()).enumerate() {
            let old = old_values.as_mut().and_then(Iterator::next).transpose().map_err(malformed)?;
            match value.map_err(malformed)? {
                Value::JsonDiff(changes) => self.show_json(index, changes, visit)?,
                Value::Absent => {
                    let missing = if self.old.is_some() { Cell::Unchanged } else { Cell::Absent };
                    shape.kind.show(&old.unwrap_or(Value::Absent), missing, self.space, visit)?;
                }
                value => shape.kind.show(&value, Cell::Absent, self.space, visit)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
