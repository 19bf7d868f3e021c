//! A table's definition as the triggers need it: columns, key, and the unique sets in which REPLACE may find a conflict.

use crate::source::sqlite::layout::Layout;
use crate::source::sqlite::sql::quoted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A table as it is now.
#[derive(Clone, Debug)]
pub(super) struct TableSchema {
    pub(super) layout: Layout,
    /// Every column, computed ones included: an index's expression may name any.
    pub(super) columns: Vec<TableColumn>,
    /// What decides how stored rows read.
    pub(super) definition: Vec<ColumnDefinition>,
    /// Whether the key is the row number, which SQLite assigns where an insert names none.
    pub(super) is_numbered: bool,
    /// Whether deleting a referenced row deletes rows of this table (`ON DELETE CASCADE`).
    pub(super) cascades: bool,
    /// The key, in the order of its index.
    pub(super) key: UniqueSet,
    /// Every other unique set.
    pub(super) others: Vec<UniqueSet>,
}

impl TableSchema {
    /// The unique sets, each as a string.
    pub(super) fn unique_sets(&self) -> BTreeSet<String> {
        let term = |term: &Term| match &term.value {
            TermValue::Column(name) => format!("{} {}", quoted(name), term.collation),
            TermValue::Expression(sql) => format!("({sql}) {}", term.collation),
        };
        let set = |unique: &UniqueSet| {
            let terms: Vec<_> = unique.terms.iter().map(term).collect();
            format!("{} {}", terms.join(", "), unique.predicate.as_deref().unwrap_or_default())
        };
        std::iter::once(&self.key).chain(&self.others).map(set).collect()
    }

    /// Whether the key is compared by a collation that only the application has.
    pub(super) fn has_foreign_key_collation(&self) -> bool {
        self.key.terms.iter().any(|term| is_foreign(&term.collation))
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableColumn {
    pub(super) name: Arc<str>,
    pub(super) affinity: Affinity,
    /// Whether it is computed from other columns.
    pub(super) computed: bool,
    /// What `OR REPLACE` stores in place of NULL, as SQL, and the column's collation.
    pub(super) null_default: Option<(String, String)>,
}

/// How a column converts values that are compared with it (`datatype3.html`, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Affinity {
    Blob,
    Text,
    Numeric,
}

/// What decides how a stored row reads, of one column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ColumnDefinition {
    pub(super) name: Arc<str>,
    pub(super) declared: String,
    pub(super) default: Option<String>,
    pub(super) hidden: i64,
}

/// A set of terms in which no two rows of a table are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UniqueSet {
    pub(super) terms: Vec<Term>,
    /// The set covers only rows for which this holds.
    pub(super) predicate: Option<String>,
}

/// One term of a unique set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) value: TermValue,
    /// How two values are compared.
    pub(super) collation: String,
    /// Whether that is the column's own collation.
    pub(super) by_default: bool,
}

/// What a term compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TermValue {
    Column(Arc<str>),
    /// An expression over the table's columns, as its index writes it.
    Expression(String),
}

impl UniqueSet {
    pub(super) fn of_columns(names: impl IntoIterator<Item = Arc<str>>) -> Self {
        let term = |name| Term { value: TermValue::Column(name), collation: "BINARY".into(), by_default: true };
        Self { terms: names.into_iter().map(term).collect(), predicate: None }
    }

    /// Whether it consists of exactly these columns, in any order, and covers every row.
    pub(super) fn is_of_columns(&self, key: &[Arc<str>]) -> bool {
        self.predicate.is_none()
            && self.terms.len() == key.len()
            && key.iter().all(|name| self.terms.iter().any(|term| matches!(&term.value, TermValue::Column(column) if column == name)))
    }

    /// Whether an expression decides, so that an update of any column may conflict.
    pub(super) fn is_computed(&self) -> bool {
        self.predicate.is_some() || self.terms.iter().any(|term| matches!(term.value, TermValue::Expression(_)))
    }
}

/// Whether a collation is one of the application's own.
pub(super) fn is_foreign(collation: &str) -> bool {
    !["BINARY", "NOCASE", "RTRIM"].iter().any(|known| collation.eq_ignore_ascii_case(known))
}
