//! The columns of a table without a schema: the fields of all its documents so far.
//!
//! Columns are sorted by name, so that the bytes of an event depend on its document alone, and not on the documents before it.

use super::document::Document;
use crate::event::{Column, ColumnKind, Relation};
use crate::feed::Feed;
use std::sync::Arc;

/// The most columns of a definition. A table with more field names than this begins a new definition with the document at hand.
const COLUMNS_MAX: usize = 1000;

/// The columns that a table's documents have needed so far, and what was prepared for them.
#[derive(Debug)]
pub(super) struct Shape<P> {
    primary_key: Arc<str>,
    /// Sorted as bytes.
    columns: Vec<Arc<str>>,
    prepared: Option<P>,
}

impl<P> Shape<P> {
    /// Of a table of which no document was seen.
    pub(super) fn new(primary_key: &str) -> Self {
        let primary_key: Arc<str> = primary_key.into();
        Self { columns: vec![Arc::clone(&primary_key)], primary_key, prepared: None }
    }

    /// Takes the fields of a document among the columns.
    pub(super) fn admit(&mut self, document: &Document<'_>) {
        let mut at = 0;
        for name in document.names() {
            while self.columns.get(at).is_some_and(|column| **column < *name) {
                at += 1;
            }
            if self.columns.get(at).is_none_or(|column| **column != *name) {
                if COLUMNS_MAX <= self.columns.len() && document.names().count() < COLUMNS_MAX {
                    *self = Self::new(&self.primary_key);
                    return self.admit(document);
                }
                self.columns.insert(at, name.into());
                self.prepared = None;
            }
            at += 1;
        }
    }

    /// The definition of the table as these columns make it.
    pub(super) fn relation(&self, feed: &Feed) -> Relation {
        let column = |name: &Arc<str>| Column::new(Arc::clone(name), ColumnKind::Any, *name == self.primary_key);
        Relation {
            feed: feed.id,
            schema: Arc::clone(&feed.schema),
            table: Arc::clone(&feed.table),
            columns: self.columns.iter().map(column).collect(),
        }
    }

    /// What was prepared for exactly these columns.
    pub(super) const fn prepared(&self) -> Option<&P> {
        self.prepared.as_ref()
    }

    pub(super) fn set_prepared(&mut self, prepared: P) {
        self.prepared = Some(prepared);
    }

    pub(super) fn columns(&self) -> &[Arc<str>] {
        &self.columns
    }

    pub(super) fn primary_key(&self) -> &str {
        &self.primary_key
    }
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS_MAX, Document, Shape};
    use std::fmt::Write as _;

    fn columns(shape: &Shape<()>) -> Vec<&str> {
        shape.columns().iter().map(|name| &**name).collect()
    }

    #[test]
    fn columns_grow_and_stay_sorted() {
        let mut shape = Shape::new("id");
        for (document, expected) in [
            (r#"{"id":1}"#, vec!["id"]),
            (r#"{"a":1,"id":1,"z":1}"#, vec!["a", "id", "z"]),
            (r#"{"b":1,"id":1}"#, vec!["a", "b", "id", "z"]),
            (r#"{"a":1,"id":1}"#, vec!["a", "b", "id", "z"]),
        ] {
            shape.admit(&Document::parse(document).unwrap());
            assert_eq!(columns(&shape), expected);
        }
        shape.set_prepared(());
        shape.admit(&Document::parse(r#"{"z":1}"#).unwrap());
        assert!(shape.prepared().is_some(), "nothing new");
        shape.admit(&Document::parse(r#"{"y":1}"#).unwrap());
        assert!(shape.prepared().is_none());
    }

    #[test]
    fn names_that_are_data_do_not_pile_up() {
        let mut shape = Shape::<()>::new("id");
        for number in 0..3 * COLUMNS_MAX {
            shape.admit(&Document::parse(&format!(r#"{{"id":1,"n{number}":1}}"#)).unwrap());
            assert!(shape.columns().len() <= COLUMNS_MAX);
        }
        let mut wide = "{".to_owned();
        (0..2 * COLUMNS_MAX).for_each(|number| write!(wide, "\"w{number:06}\":1,").unwrap());
        wide += "\"x\":1}";
        shape.admit(&Document::parse(&wide).unwrap());
        assert!(2 * COLUMNS_MAX < shape.columns().len(), "one document may have more");
    }
}
