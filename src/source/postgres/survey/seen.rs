//! A table as it is remembered, and what it means where it looks otherwise now.

use super::contents::{Content, Contents};
use crate::source::Reread;
use crate::source::postgres::options::OnAddedDefault;
use crate::source::postgres::publication::Membership;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// All that decides how a table's stored rows read, by numbers that the server never uses twice.
///
/// The keys are short: a checkpoint holds one of these for each table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seen {
    /// The table's number.
    pub(super) table: u32,
    /// The file that holds the rows: another one after they were all written anew.
    pub(super) file: u32,
    /// By number, with those that were dropped.
    pub(super) columns: BTreeMap<u16, Column>,
    /// The partitions of all levels, by number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) parts: BTreeMap<u32, Part>,
    /// User-defined types by number, and those under them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) types: BTreeMap<u32, Content>,
    /// How it is published.
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
    /// The transaction that wrote its definition last.
    #[serde(rename = "x")]
    pub(super) writer: u32,
    /// The number of its default's definition; 0 without one.
    #[serde(rename = "d", default, skip_serializing_if = "is_default")]
    pub(super) default: u32,
    /// Whether rows that were there before it show a value that is kept in the catalogue.
    #[serde(rename = "v", default, skip_serializing_if = "is_default")]
    pub(super) is_filled_in: bool,
    #[serde(rename = "g", default, skip_serializing_if = "is_default")]
    pub(super) is_generated: bool,
    #[serde(rename = "gone", default, skip_serializing_if = "is_default")]
    pub(super) is_gone: bool,
}

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The file that holds its rows; 0 where it is partitioned itself.
    pub(super) file: u32,
    /// The transaction that attached it.
    pub(super) link: u32,
}

const fn unmodified() -> i32 {
    -1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_unmodified(modifier: &i32) -> bool {
    *modifier == unmodified()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Seen {
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The columns that there are.
    pub(super) fn live(&self) -> impl Iterator<Item = (u16, &Column)> {
        self.columns.iter().filter(|(_, column)| !column.is_gone).map(|(number, column)| (*number, column))
    }

    /// Columns that were dropped stay remembered: one of the same name is another column.
    pub(super) fn keep_gone(&mut self, before: &Self) {
        for (number, column) in &before.columns {
            self.columns.entry(*number).or_insert_with(|| Column { is_gone: true, ..column.clone() });
        }
    }

    /// Whether the table ever had columns of these names, in this order.
    pub(super) fn has_had(&self, names: &[String]) -> bool {
        let mut known = self.columns.values();
        names.iter().all(|name| known.any(|column| column.name == *name))
    }
}

/// A table as the catalogue describes it now.
pub(super) struct Now {
    pub(super) seen: Seen,
    pub(super) part_facts: BTreeMap<u32, PartFact>,
}

/// What else the catalogue says of a partition.
pub(super) struct PartFact {
    pub(super) name: String,
    pub(super) parent: u32,
    /// Whether it was made as a partition of its parent: all its rows came later than that.
    pub(super) is_born: bool,
    /// Whether it is partitioned itself, and so holds no row.
    pub(super) is_branch: bool,
}

/// What a comparison rests on, beside the two definitions.
#[derive(Clone, Copy)]
pub(super) struct Grounds<'a> {
    pub(super) key: &'a [Arc<str>],
    pub(super) on_added_default: OnAddedDefault,
    /// Whether the server can publish generated columns: it never does before version 18.
    pub(super) publishes_generated: bool,
    pub(super) contents: &'a Contents,
    /// Partitions without a row.
    pub(super) empty: &'a HashSet<u32>,
}

/// Why rows are read again, as it is gathered.
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

impl Now {
    /// Partitions that came since and may hold rows of which the log says nothing: they, or what they belong to, were attached.
    pub(super) fn attached<'n>(&'n self, before: &'n Seen) -> impl Iterator<Item = u32> + 'n {
        let facts = self.part_facts.iter().filter(|(_, fact)| !fact.is_branch);
        facts.map(|(part, _)| *part).filter(|part| !before.parts.contains_key(part) && self.is_attached(*part, before))
    }

    fn is_attached(&self, mut part: u32, before: &Seen) -> bool {
        while let Some(fact) = self.part_facts.get(&part).filter(|_| !before.parts.contains_key(&part)) {
            if !fact.is_born {
                return true;
            }
            part = fact.parent;
        }
        false
    }

    /// Whether rows changed since, of which the log says nothing. A difference that is not known to be harmless counts as one.
    pub(super) fn reread(&self, before: &Seen, grounds: Grounds<'_>) -> Option<Reread> {
        if before.table != self.seen.table {
            return Some(Reread { reset: true, reason: "it was dropped and made anew".to_owned() });
        }
        let mut reasons = Reasons::default();
        self.compare_parts(before, grounds, &mut reasons);
        for (number, column) in self.seen.live().filter(|(_, column)| grounds.publishes_generated || !column.is_generated) {
            let is_key = grounds.key.iter().any(|key| **key == *column.name);
            let reason = match before.columns.get(&number) {
                Some(earlier) => self.changed(column, earlier, before, grounds),
                None => self.added(column, before, grounds.on_added_default),
            };
            if let Some(reason) = reason {
                reasons.add(is_key, reason);
            }
        }
        if let (Some(earlier), Some(now)) = (&before.publication, &self.seen.publication)
            && let Some(Reread { reset, reason }) = earlier.reread(now)
        {
            reasons.add(reset, reason);
        }
        let Reasons { texts, reset } = reasons;
        (!texts.is_empty()).then(|| Reread { reset, reason: texts.join(", ") })
    }

    /// Whether values may have been written anew. A partitioned table has no file of its own, but its partitions have.
    fn is_rewritten(&self, before: &Seen) -> bool {
        let now = &self.seen;
        before.file != now.file
            || before.parts.iter().any(|(part, earlier)| now.parts.get(part).is_some_and(|part| part.file != earlier.file))
    }

    /// Whether stored values of this column read otherwise than before.
    fn changed(&self, now: &Column, earlier: &Column, before: &Seen, grounds: Grounds<'_>) -> Option<String> {
        let name = &now.name;
        let is_rewritten = self.is_rewritten(before);
        if earlier.name != *name {
            return Some(format!("column {:?} was renamed to {name:?}", earlier.name));
        }
        if earlier.type_oid != now.type_oid || (earlier.modifier != now.modifier && is_rewritten) {
            return Some(format!("the type of column {name:?} changed"));
        }
        if earlier.is_generated && !now.is_generated {
            return Some(format!("column {name:?} is no longer generated"));
        }
        let changes = grounds.contents.under(now.type_oid).into_iter().filter_map(|oid| grounds.contents.change(oid, &before.types));
        if let Some(reason) = changes.reduce(|all, next| format!("{all}, {next}")) {
            return Some(reason);
        }
        // Where a table is written anew as it is (VACUUM FULL, CLUSTER), definitions stay; but what the catalogue kept for rows of before
        // is then in the rows. ALTER COLUMN TYPE makes a default anew too.
        let is_stored_now = earlier.is_filled_in && !now.is_filled_in && earlier.default != 0 && earlier.default == now.default;
        (is_rewritten && earlier.writer != now.writer && !is_stored_now)
            .then(|| format!("column {name:?} was altered and the table written anew"))
    }

    /// Whether old rows show something in this column that readers do not know.
    fn added(&self, column: &Column, before: &Seen, on_added_default: OnAddedDefault) -> Option<String> {
        let name = &column.name;
        if before.columns.values().any(|earlier| earlier.name == *name) {
            return Some(format!("column {name:?} was dropped and added again"));
        }
        // One value for all is kept in the catalogue; what differs from row to row was written into each, and its default may be gone.
        let is_written = self.is_rewritten(before);
        let has_default = column.is_filled_in || column.default != 0;
        let is_ignored = has_default && on_added_default == OnAddedDefault::Ignore;
        ((column.is_filled_in || is_written) && !is_ignored).then(|| {
            if has_default { format!("column {name:?} was added with a default") } else { format!("column {name:?} was added with values") }
        })
    }

    fn compare_parts(&self, before: &Seen, grounds: Grounds<'_>, reasons: &mut Reasons) {
        let now = &self.seen.parts;
        let named = |part: u32| self.part_facts.get(&part).map_or_else(|| part.to_string(), |fact| format!("{:?}", fact.name));
        let mut add = |part: u32, what: &str| reasons.add(true, format!("partition {} was {what}", named(part)));
        for (part, earlier) in &before.parts {
            match now.get(part) {
                None => add(*part, "detached or dropped"),
                Some(now) if now.link != earlier.link => add(*part, "detached and attached again"),
                Some(now) if now.file != earlier.file => add(*part, "truncated, or written anew"),
                Some(_) => {}
            }
        }
        for part in self.attached(before).filter(|part| !grounds.empty.contains(part)) {
            add(part, "attached");
        }
    }
}
