//! What the suite writes to a database.

use feedline::source::SourceConnector;

/// A database that the suite may write to.
pub(crate) trait Workload: Send {
    type Connector: SourceConnector;

    /// The schema of its tables.
    fn schema(&self) -> &str;

    /// A connector to it, as a new process would make one.
    fn connector(&self) -> Self::Connector;

    /// The name of the key column of its tables.
    fn key(&self) -> &'static str {
        "id"
    }

    /// Makes a table with the columns `id` (or as [`Self::key`] says), a whole number and its key, and `note`, a text.
    fn create(&mut self, table: &str);

    /// Changes rows of the table in one transaction, from another process or session.
    fn write(&mut self, table: &str, transaction: &[RowChange]);
}

/// The change of one row.
#[derive(Clone, Debug)]
pub(crate) struct RowChange {
    /// The key of the row that there is; `None` inserts one.
    pub(crate) old: Option<u32>,
    /// Key and note that it gets; `None` deletes it.
    pub(crate) new: Option<(u32, String)>,
}

/// The suite's requests in SQL.
pub(crate) mod sql {
    use super::RowChange;

    /// The statement that makes a table.
    pub(crate) fn create(table: &str) -> String {
        format!("CREATE TABLE {table} (id INTEGER PRIMARY KEY, note TEXT)")
    }

    /// The statements of a transaction.
    pub(crate) fn transaction(table: &str, changes: &[RowChange]) -> Vec<String> {
        let mut statements: Vec<_> = changes.iter().map(|change| statement(table, change)).collect();
        if 1 < statements.len() {
            statements.insert(0, "BEGIN".to_owned());
            statements.push("COMMIT".to_owned());
        }
        statements
    }

    fn statement(table: &str, change: &RowChange) -> String {
        match (change.old, &change.new) {
            (None, Some((id, note))) => format!("INSERT INTO {table} VALUES ({id}, '{note}')"),
            (Some(old), Some((id, note))) if old == *id => format!("UPDATE {table} SET note = '{note}' WHERE id = {id}"),
            (Some(old), Some((id, note))) => format!("UPDATE {table} SET id = {id}, note = '{note}' WHERE id = {old}"),
            (Some(old), None) => format!("DELETE FROM {table} WHERE id = {old}"),
            (None, None) => panic!("a row changes"),
        }
    }
}
