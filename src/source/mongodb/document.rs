//! A document as a row: its fields in the order of a collection's columns.

use super::bson::{Document, Value};
use super::options::Spelling;
use super::value;
use crate::event::{Cell, Row, RowError};
use std::sync::Arc;

/// The field that is the key of every collection.
pub(super) const KEY: &str = "_id";
/// The column that holds what an update changed, where the event does not carry the whole document (the manual's `updateDescription`).
pub(super) const UPDATE: &str = "$update";
/// The column that stands for all fields that an update did not change, where the event does not carry them.
pub(super) const REST: &str = "*";
/// The columns that a collection has whatever its documents are, sorted as bytes.
pub(super) const FIXED: &[&str] = &[UPDATE, REST];

/// What is known of a document, sorted by name as bytes.
#[derive(Debug)]
pub(super) struct Fields<'d> {
    fields: Vec<(&'d str, Value<'d>)>,
    is_partial: bool,
}

impl<'d> Fields<'d> {
    /// Those of a whole document.
    pub(super) fn of(document: Document<'d>) -> Result<Self, RowError> {
        let mut fields = Vec::new();
        for element in document.elements() {
            let element = element?;
            fields.push((element.text_name()?, element.value));
        }
        Self::sorted(fields, false)
    }

    /// The key alone. What identifies a document of a sharded collection has the shard key too, under names that may be paths.
    pub(super) fn key(document: Document<'d>) -> Result<Self, RowError> {
        Self::sorted(document.get(KEY)?.map(|key| (KEY, key)).into_iter().collect(), false)
    }

    /// Those that an update tells: the key, the top-level fields that it set, and the description of all it did. `updatedFields` has paths as
    /// names, so a name with a dot is none of a field.
    pub(super) fn updated(key: Document<'d>, update: Document<'d>) -> Result<Self, RowError> {
        let mut fields: Vec<_> = key.get(KEY)?.map(|key| (KEY, key)).into_iter().collect();
        for element in update.document("updatedFields")?.unwrap_or(Document::EMPTY).elements() {
            let element = element?;
            let name = element.text_name()?;
            if !name.contains('.') && !FIXED.contains(&name) && name != KEY {
                fields.push((name, element.value));
            }
        }
        fields.push((UPDATE, Value::Document(update)));
        Self::sorted(fields, true)
    }

    fn sorted(mut fields: Vec<(&'d str, Value<'d>)>, is_partial: bool) -> Result<Self, RowError> {
        fields.sort_by_key(|(name, _)| *name);
        if fields.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(RowError::Malformed { what: "the document has a field twice" });
        }
        if fields.binary_search_by_key(&KEY, |(name, _)| *name).is_err() {
            return Err(RowError::Malformed { what: "the document has no _id" });
        }
        Ok(Self { fields, is_partial })
    }

    /// The names, sorted as bytes.
    pub(super) fn names(&self) -> impl Iterator<Item = &'d str> + Clone {
        self.fields.iter().map(|(name, _)| *name)
    }

    /// As a row of these columns, which are sorted as bytes. There must be no other fields.
    pub(super) const fn row<'r>(&'r self, columns: &'r [Arc<str>], spelling: Spelling) -> DocumentRow<'r> {
        DocumentRow { fields: self.fields.as_slice(), is_partial: self.is_partial, columns, spelling }
    }
}

/// A document as a row: a cell for each column, absent where the document has no such field.
#[derive(Clone, Copy, Debug)]
pub(super) struct DocumentRow<'r> {
    fields: &'r [(&'r str, Value<'r>)],
    is_partial: bool,
    columns: &'r [Arc<str>],
    spelling: Spelling,
}

impl Row for DocumentRow<'_> {
    fn cells(&self, visit: &mut impl FnMut(Cell<'_>) -> Result<(), RowError>) -> Result<(), RowError> {
        let mut fields = self.fields.iter().peekable();
        for column in self.columns {
            match fields.next_if(|(name, _)| *name == &**column) {
                Some((name, value)) => value::visit(*value, spelling_of(name, self.spelling), 0, visit)?,
                None if self.is_partial && **column == *REST => visit(Cell::Unchanged)?,
                None => visit(Cell::Absent)?,
            }
        }
        if fields.next().is_some() {
            return Err(RowError::Malformed { what: "the document has a field that its collection's definition lacks" });
        }
        Ok(())
    }
}

/// No two keys may look alike.
fn spelling_of(name: &str, spelling: Spelling) -> Spelling {
    if name == KEY && spelling == Spelling::Plain { Spelling::Relaxed } else { spelling }
}

/// The key of a document as an error shows it, perhaps cut.
pub(super) fn shown_key(document: Option<Document<'_>>) -> String {
    const LENGTH_MAX: usize = 60;
    let key = document.and_then(|document| document.get(KEY).ok().flatten());
    let mut shown = String::new();
    if let Some(key) = key {
        let visited = value::visit(key, Spelling::Relaxed, 0, &mut |cell| value::show(cell, &mut shown));
        // The error that names the document counts.
        visited.unwrap_or_else(|_| shown.clear());
    }
    if shown.is_empty() {
        "without a readable _id".to_owned()
    } else {
        super::server_error::shown(&shown).chars().take(LENGTH_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::bson::{Document, Writer};
    use super::super::options::Spelling;
    use super::super::value::show;
    use super::{Fields, REST, UPDATE};
    use crate::event::{Cell, Row as _, RowError};
    use std::sync::Arc;

    fn cells(fields: &Fields<'_>, columns: &[&str]) -> Result<Vec<String>, RowError> {
        let columns: Vec<Arc<str>> = columns.iter().map(|name| (*name).into()).collect();
        let mut cells = Vec::new();
        fields.row(&columns, Spelling::Plain).cells(&mut |cell| {
            let mut text = String::new();
            match cell {
                Cell::Absent => text.push_str("absent"),
                Cell::Unchanged => text.push_str("unchanged"),
                cell => show(cell, &mut text)?,
            }
            cells.push(text);
            Ok(())
        })?;
        Ok(cells)
    }

    #[test]
    fn fields_find_their_columns_in_any_order() {
        let document = Writer::new().int("c", 3).int("_id", 1).finish();
        let fields = Fields::of(Document::new(&document).unwrap()).unwrap();
        assert_eq!(cells(&fields, &["*", "_id", "b", "c"]).unwrap(), ["absent", "1", "absent", "3"]);
        assert!(cells(&fields, &["_id"]).is_err(), "a field without a column");
        let twice = Writer::new().int("_id", 1).int("a", 1).int("a", 2).finish();
        assert!(Fields::of(Document::new(&twice).unwrap()).is_err());
        assert!(Fields::of(Document::EMPTY).is_err(), "no key");
    }

    #[test]
    fn an_update_tells_what_it_set_and_that_the_rest_did_not_change() {
        let key = Writer::new().int("_id", 1).int("shard", 7).finish();
        let updated = Writer::new().int("a.b", 2).int("x", 3).finish();
        let update = Writer::new().document("updatedFields", &updated).texts("removedFields", ["y"]).finish();
        let fields = Fields::updated(Document::new(&key).unwrap(), Document::new(&update).unwrap()).unwrap();
        assert_eq!(fields.names().collect::<Vec<_>>(), [UPDATE, "_id", "x"]);
        let found = cells(&fields, &[UPDATE, REST, "_id", "x", "y"]).unwrap();
        assert_eq!(found, [r#"{"updatedFields":{"a.b":2,"x":3},"removedFields":["y"]}"#, "unchanged", "1", "3", "absent"]);
    }
}
