//! A table's layout as a checkpoint stores it, and its comparison with the table's current definition.

use super::contents::{Content, UserTypes};
use crate::source::Reread;
use crate::source::postgres::options::OnAddedDefault;
use crate::source::postgres::publication::Membership;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Everything that decides how a table's stored rows are shown, by oids and transaction ids, which the server does not use twice.
///
/// The JSON keys are short, since a checkpoint contains a layout for each table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableLayout {
    /// The table's oid.
    pub(super) table: u32,
    /// The number of the file that holds the rows. It changes when the table is rewritten.
    pub(super) file: u32,
    /// Columns by attribute number, including dropped ones.
    pub(super) columns: BTreeMap<u16, Column>,
    /// Partitions of all levels, by oid.
    #[serde(rename = "parts", default, skip_serializing_if = "is_default")]
    pub(super) partitions: BTreeMap<u32, Partition>,
    /// The user-defined types of its columns and the types that these refer to, by oid.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) types: BTreeMap<u32, Content>,
    /// How the table is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) publication: Option<Membership>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Column {
    #[serde(rename = "n")]
    pub(super) name: String,
    #[serde(rename = "t")]
    pub(super) type_oid: u32,
    #[serde(rename = "m", default = "unmodified", skip_serializing_if = "is_unmodified")]
    pub(super) modifier: i32,
    /// The transaction that last wrote its definition.
    #[serde(rename = "x")]
    pub(super) writer: u32,
    /// The oid of its default; 0 without one.
    #[serde(rename = "d", default, skip_serializing_if = "is_default")]
    pub(super) default: u32,
    /// Whether rows older than the column show a value from the catalogue (`atthasmissing`).
    #[serde(rename = "v", default, skip_serializing_if = "is_default")]
    pub(super) has_missing_value: bool,
    #[serde(rename = "g", default, skip_serializing_if = "is_default")]
    pub(super) is_generated: bool,
    #[serde(rename = "gone", default, skip_serializing_if = "is_default")]
    pub(super) is_dropped: bool,
}

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Partition {
    /// The number of the file that holds its rows; 0 if it is partitioned itself.
    pub(super) file: u32,
    /// The transaction that attached it.
    #[serde(rename = "link")]
    pub(super) attached_by: u32,
}

const fn unmodified() -> i32 {
    -1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_unmodified(modifier: &i32) -> bool {
    *modifier == unmodified()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl TableLayout {
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The columns that are not dropped.
    pub(super) fn existing_columns(&self) -> impl Iterator<Item = (u16, &Column)> {
        self.columns.iter().filter(|(_, column)| !column.is_dropped).map(|(number, column)| (*number, column))
    }

    /// Adds the earlier layout's columns that no longer exist, as dropped columns. A later column of the same name is a different column.
    pub(super) fn keep_dropped(&mut self, before: &Self) {
        for (number, column) in &before.columns {
            self.columns.entry(*number).or_insert_with(|| Column { is_dropped: true, ..column.clone() });
        }
    }

    /// Whether the table ever had columns with these names, in this order.
    pub(super) fn has_had(&self, names: &[String]) -> bool {
        let mut known = self.columns.values();
        names.iter().all(|name| known.any(|column| column.name == *name))
    }
}

/// A table as the catalogue describes it now.
pub(super) struct CurrentTable {
    pub(super) layout: TableLayout,
    /// By the partition's oid.
    pub(super) facts: BTreeMap<u32, PartitionFacts>,
}

/// Facts about a partition that are not stored.
pub(super) struct PartitionFacts {
    pub(super) name: String,
    pub(super) parent: u32,
    /// Whether it was created as a partition of its parent. It was empty then.
    pub(super) was_created_as_partition: bool,
    /// Whether it is partitioned itself, and so holds no rows.
    pub(super) is_partitioned: bool,
}

/// What a comparison needs besides the two layouts.
#[derive(Clone, Copy)]
pub(super) struct Comparison<'a> {
    pub(super) key: &'a [Arc<str>],
    pub(super) on_added_default: OnAddedDefault,
    /// Whether the server can publish generated columns (from version 18).
    pub(super) publishes_generated: bool,
    pub(super) user_types: &'a UserTypes,
    /// Partitions without rows.
    pub(super) empty: &'a HashSet<u32>,
}

/// The reasons to read a table again, while they are collected.
#[derive(Default)]
struct Reasons {
    texts: Vec<String>,
    reset: bool,
}

impl Reasons {
    fn add(&mut self, reset: bool, text: String) {
        self.reset |= reset;
        if !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }
}

impl CurrentTable {
    /// New partitions that may contain rows which are not in the log: the partition, or a parent that is also new, was attached.
    pub(super) fn attached<'n>(&'n self, before: &'n TableLayout) -> impl Iterator<Item = u32> + 'n {
        let leaves = self.facts.iter().filter(|(_, facts)| !facts.is_partitioned).map(|(partition, _)| *partition);
        leaves.filter(|partition| !before.partitions.contains_key(partition) && self.is_attached(*partition, before))
    }

    fn is_attached(&self, mut partition: u32, before: &TableLayout) -> bool {
        while let Some(facts) = self.facts.get(&partition).filter(|_| !before.partitions.contains_key(&partition)) {
            if !facts.was_created_as_partition {
                return true;
            }
            partition = facts.parent;
        }
        false
    }

    /// Why the table must be read again: rows changed and the log does not show it. Every difference counts, unless it is known to be harmless.
    pub(super) fn reread(&self, before: &TableLayout, comparison: Comparison<'_>) -> Option<Reread> {
        if before.table != self.layout.table {
            return Some(Reread { reset: true, reason: "it was dropped and created again".to_owned() });
        }
        let mut reasons = Reasons::default();
        self.compare_partitions(before, comparison, &mut reasons);
        let columns = self.layout.existing_columns();
        let mut writers = HashSet::new();
        for (number, column) in columns.filter(|(_, column)| comparison.publishes_generated || !column.is_generated) {
            let is_key = comparison.key.iter().any(|key| **key == *column.name);
            let reason = match before.columns.get(&number) {
                Some(earlier) => self.changed_column(column, earlier, before, comparison).or_else(|| {
                    // From PostgreSQL 15.20 on, ALTER COLUMN TYPE writes the definitions of all columns behind the altered one, too. The table is
                    // read again in any case. Whether a key column was altered itself does not show: it counts.
                    let is_beside = !is_key && writers.contains(&column.writer);
                    self.altered_column(column, earlier, before).filter(|_| !is_beside)
                }),
                None => self.added_column(column, before, comparison.on_added_default),
            };
            if let Some(reason) = reason {
                reasons.add(is_key, reason);
                writers.insert(column.writer);
            }
        }
        if let (Some(earlier), Some(now)) = (&before.publication, &self.layout.publication)
            && let Some(Reread { reset, reason }) = earlier.reread(now)
        {
            reasons.add(reset, reason);
        }
        let Reasons { texts, reset } = reasons;
        (!texts.is_empty()).then(|| Reread { reset, reason: texts.join(", ") })
    }

    /// Whether the table, or a partition of it, may have been rewritten. A partitioned table has no file of its own.
    fn is_rewritten(&self, before: &TableLayout) -> bool {
        let now = &self.layout;
        let has_new_file =
            |(partition, earlier): (&u32, &Partition)| now.partitions.get(partition).is_some_and(|now| now.file != earlier.file);
        before.file != now.file || before.partitions.iter().any(has_new_file)
    }

    /// How this column changed, if its stored values may be shown differently now.
    fn changed_column(&self, now: &Column, earlier: &Column, before: &TableLayout, comparison: Comparison<'_>) -> Option<String> {
        let name = &now.name;
        if earlier.name != *name {
            return Some(format!("column {:?} was renamed to {name:?}", earlier.name));
        }
        if earlier.type_oid != now.type_oid || (earlier.modifier != now.modifier && self.is_rewritten(before)) {
            return Some(format!("the type of column {name:?} changed"));
        }
        if earlier.is_generated && !now.is_generated {
            return Some(format!("column {name:?} is no longer generated"));
        }
        let types = comparison.user_types;
        let changes = types.under(now.type_oid).into_iter().filter_map(|oid| types.change(oid, &before.types));
        changes.reduce(|all, next| format!("{all}, {next}"))
    }

    /// Whether this column's values may have been changed by `ALTER COLUMN TYPE`, although its type is the same.
    fn altered_column(&self, now: &Column, earlier: &Column, before: &TableLayout) -> Option<String> {
        // VACUUM FULL and CLUSTER rewrite the table and leave its definitions, except that they store the column's missing value in the rows.
        // That writes the column's definition too, but keeps its default. ALTER COLUMN TYPE creates a new default.
        let is_stored_now = earlier.has_missing_value && !now.has_missing_value && earlier.default != 0 && earlier.default == now.default;
        (self.is_rewritten(before) && earlier.writer != now.writer && !is_stored_now)
            .then(|| format!("column {:?} was altered and the table rewritten", now.name))
    }

    /// How this column was added, if old rows show values in it that readers do not have.
    fn added_column(&self, column: &Column, before: &TableLayout, on_added_default: OnAddedDefault) -> Option<String> {
        let name = &column.name;
        if before.columns.values().any(|earlier| earlier.name == *name) {
            return Some(format!("column {name:?} was dropped and added again"));
        }
        // A value that is the same for all old rows is in the catalogue. Values that differ were written into the rows; the default may have been
        // dropped since.
        let is_rewritten = self.is_rewritten(before);
        let has_default = column.has_missing_value || column.default != 0;
        let is_ignored = has_default && on_added_default == OnAddedDefault::Ignore;
        ((column.has_missing_value || is_rewritten) && !is_ignored).then(|| {
            if has_default { format!("column {name:?} was added with a default") } else { format!("column {name:?} was added with values") }
        })
    }

    fn compare_partitions(&self, before: &TableLayout, comparison: Comparison<'_>, reasons: &mut Reasons) {
        let now = &self.layout.partitions;
        let name = |oid: u32| self.facts.get(&oid).map_or_else(|| oid.to_string(), |facts| format!("{:?}", facts.name));
        let mut add = |oid: u32, change: &str| reasons.add(true, format!("partition {} was {change}", name(oid)));
        for (oid, earlier) in &before.partitions {
            match now.get(oid) {
                None => add(*oid, "detached or dropped"),
                Some(now) if now.attached_by != earlier.attached_by => add(*oid, "detached and attached again"),
                Some(now) if now.file != earlier.file => add(*oid, "truncated or rewritten"),
                Some(_) => {}
            }
        }
        for oid in self.attached(before).filter(|oid| !comparison.empty.contains(oid)) {
            add(oid, "attached");
        }
    }
}
