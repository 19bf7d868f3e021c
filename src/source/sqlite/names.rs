//! Names of the tables and triggers that a pipeline makes in a database.

/// What the name of every table and trigger of feedline begins with.
const PREFIX: &str = "_feedline_";

/// Names of the tables and triggers that a pipeline makes in a database.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    /// The change log.
    pub(super) log: String,
    /// The notes of the triggers: rows that a statement may replace.
    pub(super) notes: String,
    /// The versions of the captured tables.
    pub(super) tables: String,
    /// The log's identity, and how far it is trimmed.
    pub(super) meta: String,
}

impl Names {
    pub(super) fn new(pipeline: &str) -> Self {
        let prefix = format!("{PREFIX}{pipeline}_");
        let name = |suffix: &str| format!("{prefix}{suffix}");
        Self { log: name("log"), notes: name("notes"), tables: name("tables"), meta: name("meta"), prefix }
    }

    /// The name of a trigger on the version `tid` of a table.
    pub(super) fn trigger(&self, tid: i64, kind: char) -> String {
        format!("{}{tid}_{kind}", self.prefix)
    }

    pub(super) fn all_tables(&self) -> [&str; 4] {
        [&self.log, &self.notes, &self.tables, &self.meta]
    }

    /// Whether a name begins with this pipeline's prefix.
    pub(super) fn has_prefix(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }

    /// Whether a trigger is this pipeline's, and not one of a pipeline whose name begins with this one's.
    pub(super) fn is_own_trigger(&self, trigger: &str) -> bool {
        let parts = trigger.strip_prefix(&self.prefix).and_then(|rest| rest.split_once('_'));
        parts.is_some_and(|(tid, kind)| !tid.is_empty() && tid.bytes().all(|byte| byte.is_ascii_digit()) && kind.len() == 1)
    }
}
