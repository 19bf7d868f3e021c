//! The columns of a table without a schema: the fields of all its documents so far.
//!
//! Columns are sorted by name, so that the bytes of an event depend on its document alone, and not on the documents before it.

use crate::event::{Column, ColumnKind, Relation};
use crate::feed::Feed;
use std::sync::Arc;

/// The most columns of a definition. A table with more field names than this begins a new definition with the document at hand.
const COLUMNS_MAX: usize = 1000;

/// The columns that a table's documents have needed so far, and what was prepared for them.
#[derive(Debug)]
pub struct Shape<P> {
    /// Those that are there from the beginning, sorted as bytes.
    fixed: &'static [&'static str],
    primary_key: Arc<str>,
    /// Sorted as bytes.
    columns: Vec<Arc<str>>,
    prepared: Option<P>,
}

impl<P> Shape<P> {
    /// Of a table of which no document was seen. `fixed`: columns that it has whatever its documents are.
    #[must_use]
    pub fn new(primary_key: &str, fixed: &'static [&'static str]) -> Self {
        let primary_key: Arc<str> = primary_key.into();
        let mut columns: Vec<Arc<str>> = fixed.iter().map(|name| Arc::from(*name)).collect();
        columns.push(Arc::clone(&primary_key));
        columns.sort();
        Self { fixed, primary_key, columns, prepared: None }
    }

    /// Takes the fields of a document among the columns. `names` are sorted as bytes, each once.
    pub fn admit<'n>(&mut self, names: impl Iterator<Item = &'n str> + Clone) {
        let mut at = 0;
        for name in names.clone() {
            while self.columns.get(at).is_some_and(|column| **column < *name) {
                at += 1;
            }
            if self.columns.get(at).is_none_or(|column| **column != *name) {
                if COLUMNS_MAX <= self.columns.len() && names.clone().count() < COLUMNS_MAX {
                    *self = Self::new(&self.primary_key, self.fixed);
                    return self.admit(names);
                }
                self.columns.insert(at, name.into());
                self.prepared = None;
            }
            at += 1;
        }
    }

    /// The definition of the table as these columns make it.
    #[must_use]
    pub fn relation(&self, feed: &Feed) -> Relation {
        let column = |name: &Arc<str>| Column::new(Arc::clone(name), ColumnKind::Any, *name == self.primary_key);
        Relation {
            feed: feed.id,
            schema: Arc::clone(&feed.schema),
            table: Arc::clone(&feed.table),
            columns: self.columns.iter().map(column).collect(),
        }
    }

    /// What was prepared for exactly these columns.
    #[must_use]
    pub const fn prepared(&self) -> Option<&P> {
        self.prepared.as_ref()
    }

    /// Notes what was prepared for exactly these columns.
    pub fn set_prepared(&mut self, prepared: P) {
        self.prepared = Some(prepared);
    }

    /// The name of the key's column.
    #[must_use]
    pub fn primary_key(&self) -> &str {
        &self.primary_key
    }

    /// The names of the columns, sorted as bytes.
    #[must_use]
    pub fn columns(&self) -> &[Arc<str>] {
        &self.columns
    }
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS_MAX, Shape};

    fn columns(shape: &Shape<()>) -> Vec<&str> {
        shape.columns().iter().map(|name| &**name).collect()
    }

    #[test]
    fn columns_grow_and_stay_sorted() {
        let mut shape = Shape::new("id", &["*"]);
        for (document, expected) in [
            (vec!["id"], vec!["*", "id"]),
            (vec!["a", "id", "z"], vec!["*", "a", "id", "z"]),
            (vec!["b", "id"], vec!["*", "a", "b", "id", "z"]),
            (vec!["a", "id"], vec!["*", "a", "b", "id", "z"]),
        ] {
            shape.admit(document.into_iter());
            assert_eq!(columns(&shape), expected);
        }
        shape.set_prepared(());
        shape.admit(["z"].into_iter());
        assert!(shape.prepared().is_some(), "nothing new");
        shape.admit(["y"].into_iter());
        assert!(shape.prepared().is_none());
    }

    #[test]
    fn names_that_are_data_do_not_pile_up() {
        let mut shape = Shape::<()>::new("id", &[]);
        for number in 0..3 * COLUMNS_MAX {
            let name = format!("n{number}");
            shape.admit(["id", &name].into_iter());
            assert!(shape.columns().len() <= COLUMNS_MAX);
        }
        let wide: Vec<_> = (0..2 * COLUMNS_MAX).map(|number| format!("w{number:06}")).collect();
        shape.admit(wide.iter().map(String::as_str));
        assert!(2 * COLUMNS_MAX < shape.columns().len(), "one document may have more");
    }
}
