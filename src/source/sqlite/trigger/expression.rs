//! SQL expressions of the triggers: values as they will be stored, names of notes, conditions on keys.

use crate::source::sqlite::names::Names;
use crate::source::sqlite::sql::{numbered, quoted};
use crate::source::sqlite::table::{Affinity, TableColumn, TableSchema, TermValue, UniqueSet};

/// The statement that a note is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Insert,
    Update,
}

/// Writes SQL for the triggers on one version of a table.
pub(super) struct TriggerSql<'a> {
    pub(super) names: &'a Names,
    pub(super) tid: i64,
    pub(super) table: &'a TableSchema,
}

impl TriggerSql<'_> {
    /// Every unique set with its number; the key's is 0.
    pub(super) fn uniques(&self) -> impl Iterator<Item = (usize, &UniqueSet)> {
        std::iter::once(&self.table.key).chain(&self.table.others).enumerate()
    }

    /// The key's columns, quoted.
    pub(super) fn key_columns(&self) -> Vec<String> {
        self.table.layout.key_names().map(quoted).collect()
    }

    /// `, k0, k1, ...` for the key, with a prefix in place of `k`.
    pub(super) fn key_list(&self, prefix: &str) -> String {
        numbered(prefix, self.table.layout.key_len())
    }

    /// A term's value in `row`, which is NEW or OLD. An expression is computed over a subquery with the same column names.
    pub(super) fn value(&self, value: &TermValue, row: &str) -> String {
        match value {
            TermValue::Column(name) => match self.table.columns.iter().find(|column| column.name == *name) {
                Some(column) => stored(column, row),
                None => format!("{row}.{}", quoted(name)),
            },
            TermValue::Expression(sql) => self.computed(sql, row),
        }
    }

    /// An index's expression, computed over a row. In it a comparison with a column uses the column's affinity. A column of a subquery
    /// has an affinity only where it is a CAST. A CAST changes no value that has a type of that affinity; a value of another type (a blob
    /// in a TEXT column) is taken without a CAST.
    pub(super) fn computed(&self, sql: &str, row: &str) -> String {
        let lower = sql.to_lowercase();
        let is_named = |column: &&TableColumn| column.name.contains(['"', '`', ']', '\'']) || lower.contains(&column.name.to_lowercase());
        let columns: Vec<_> = self.table.columns.iter().filter(is_named).collect();
        let over_row = |cast: bool| {
            let list = columns.iter().map(|column| {
                let value = stored(column, row);
                let value = match column.affinity {
                    Affinity::Text if cast => format!("CAST({value} AS TEXT)"),
                    Affinity::Numeric if cast => format!("CAST({value} AS NUMERIC)"),
                    _ => value,
                };
                format!("{value} AS {}", quoted(&column.name))
            });
            let list: Vec<_> = list.collect();
            format!("(SELECT ({sql}) FROM (SELECT {}))", if list.is_empty() { "1".to_owned() } else { list.join(", ") })
        };
        let other_types = columns.iter().filter_map(|column| {
            let kind = format!("typeof({row}.{})", quoted(&column.name));
            match column.affinity {
                Affinity::Blob => None,
                Affinity::Text => Some(format!("{kind} = 'blob'")),
                Affinity::Numeric => Some(format!("{kind} IN ('text', 'blob')")),
            }
        });
        let other_types: Vec<_> = other_types.collect();
        if other_types.is_empty() {
            return over_row(false);
        }
        format!("(CASE WHEN {} THEN {} ELSE {} END)", other_types.join(" OR "), over_row(false), over_row(true))
    }

    /// The name of a note: table, unique set, statement, and the new row's values in the set. An update's names hold the row's old key
    /// too: an update may run within an insert of the same values (a foreign key's action on a row that is about to be replaced). NULL
    /// where the set does not cover the row.
    pub(super) fn note_name(&self, index: usize, unique: &UniqueSet, cause: Cause) -> String {
        let row = match cause {
            Cause::Insert => "'i/'".to_owned(),
            Cause::Update => format!("'u/' || {} || '/'", self.row_name("OLD")),
        };
        let values: Vec<_> = unique.terms.iter().map(|term| format!("quote({})", self.value(&term.value, "NEW"))).collect();
        let name = format!("'{}/{index}/' || {row} || {}", self.tid, values.join(" || ',' || "));
        match &unique.predicate {
            Some(predicate) => format!("CASE WHEN {} THEN {name} END", self.computed(predicate, "NEW")),
            None => name,
        }
    }

    pub(super) fn note_names(&self, cause: Cause) -> String {
        self.uniques().map(|(index, unique)| self.note_name(index, unique, cause)).collect::<Vec<_>>().join(", ")
    }

    /// The name of a row in the notes, made of its key.
    pub(super) fn row_name(&self, row: &str) -> String {
        let values: Vec<_> = self.key_columns().iter().map(|column| format!("quote({row}.{column})")).collect();
        format!("'{}/' || {}", self.tid, values.join(" || ',' || "))
    }

    /// Whether a note is of the row: their keys are the same bytes.
    pub(super) fn is_of(&self, row: &str) -> String {
        let pairs = self.key_columns().into_iter().enumerate();
        pairs.map(|(index, column)| format!("k{index} IS {row}.{column} COLLATE BINARY")).collect::<Vec<_>>().join(" AND ")
    }

    /// Whether two rows have the same key, byte for byte.
    pub(super) fn same_row(&self, one: &str, other: &str) -> String {
        let pairs = self.key_columns().into_iter();
        let pairs: Vec<_> = pairs.map(|column| format!("{one}.{column} IS {other}.{column} COLLATE BINARY")).collect();
        format!("({})", pairs.join(" AND "))
    }

    /// Whether an update may replace a row: it changes a value in a unique set.
    pub(super) fn may_conflict(&self) -> String {
        if self.uniques().any(|(_, unique)| unique.is_computed()) {
            return "1".into();
        }
        let mut conditions = Vec::new();
        for (_, unique) in self.uniques() {
            for term in &unique.terms {
                if let TermValue::Column(name) = &term.value {
                    let condition = format!("OLD.{0} IS NOT NEW.{0} COLLATE BINARY", quoted(name));
                    if !conditions.contains(&condition) {
                        conditions.push(condition);
                    }
                }
            }
        }
        conditions.join(" OR ")
    }

    /// The collation of a key column.
    pub(super) fn key_collation(&self, column: &str) -> &str {
        let mut terms = self.table.key.terms.iter();
        let term = terms.find(|term| matches!(&term.value, TermValue::Column(name) if quoted(name) == column));
        term.map_or("BINARY", |term| &term.collation)
    }

    /// `FROM` and `WHERE` for the row that now has the key of `with`. A foreign key's action or another trigger may have changed the row
    /// since, and has then logged that first (`updated_at = ...` in an AFTER trigger of the application).
    pub(super) fn of_key(&self, with: &str) -> String {
        let equals = self.key_columns().into_iter().map(|column| {
            let collation = quoted(self.key_collation(&column));
            format!("r.{column} IS {with}.{column} COLLATE {collation}")
        });
        format!("FROM {} AS r WHERE {}", quoted(&self.table.layout.table), equals.collect::<Vec<_>>().join(" AND "))
    }
}

/// A column's value in a row, as it will be stored: `OR REPLACE` stores the default in place of a NULL that is not allowed.
fn stored(column: &TableColumn, row: &str) -> String {
    let value = format!("{row}.{}", quoted(&column.name));
    match &column.null_default {
        Some((default, collation)) if row == "NEW" => {
            format!("(CASE WHEN {value} IS NULL THEN {default} ELSE {value} END) COLLATE {}", quoted(collation))
        }
        _ => value,
    }
}
