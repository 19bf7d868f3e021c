//! A version of a captured table: what is stored of it beside the log, and what its triggers know.

use crate::source::sqlite::layout::Layout;
use crate::source::sqlite::parse;
use crate::source::sqlite::table::TableSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A version whose triggers are in place.
pub(super) struct InstalledVersion {
    pub(super) tid: i64,
    pub(super) version: Version,
}

/// What is stored of a version beside the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Version {
    #[serde(flatten)]
    pub(super) layout: Layout,
    /// The unique sets that its triggers watch; not known of an old version.
    #[serde(default)]
    pub(super) uniques: Option<BTreeSet<String>>,
    /// A checksum of its triggers without names, which SQLite changes in them.
    #[serde(default)]
    pub(super) triggers: Option<u32>,
    /// Whether its rows may be deleted without a trigger, so that its notes are swept.
    #[serde(default)]
    pub(super) sweep: bool,
    /// How often rows were missed so far.
    #[serde(default, rename = "lapses")]
    pub(super) missed: MissedRows,
}

/// How often a table was to be read again, because its triggers had missed rows. It is durable in the database before anybody is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MissedRows {
    /// Rows may be gone.
    pub(super) gone: u32,
    /// Rows may read otherwise.
    pub(super) changed: u32,
}

impl Version {
    pub(super) fn new(table: &TableSchema, triggers: &[(String, String)], missed: MissedRows) -> Self {
        let texts: Vec<_> = triggers.iter().map(|(_, sql)| sql.clone()).collect();
        // The sweep looks rows up by key, with the column's own collation, which must be one of SQLite's.
        let sweep = table.cascades && table.key.terms.iter().all(|term| term.by_default) && !table.has_foreign_key_collation();
        Self { layout: table.layout.clone(), uniques: Some(table.unique_sets()), triggers: Some(trigger_checksum(&texts)), sweep, missed }
    }
}

/// A checksum of triggers without names: RENAME changes names in them, and nothing else.
pub(super) fn trigger_checksum(triggers: &[String]) -> u32 {
    triggers.iter().fold(0, |checksum, sql| crc32c::crc32c_append(checksum, parse::without_names(sql).as_bytes()))
}
