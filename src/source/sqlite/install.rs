//! Makes the log's tables, and makes and removes the triggers of one version of a table.

use crate::source::sqlite::capture::Capture;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::identity::Origin;
use crate::source::sqlite::log_query::count_columns;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::table::{TableSchema, UniqueSet};
use crate::source::sqlite::trigger::{self, FIXED_COLUMNS};
use crate::source::sqlite::version::{MissedRows, Version};
use rusqlite::{Transaction, params};

/// The most columns that a table may have in a SQLite with default limits (`limits.html`, 2), which the writers' SQLite is taken to be.
const COLUMNS_MAX: usize = 2000;

impl Capture<'_> {
    /// Makes the log's tables, unless they are there.
    pub(super) fn make_log(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let failed = |source| self.failed("make the change log", source);
        if Origin::read(transaction, self.names, self.path)?.is_some() {
            return Ok(());
        }
        let [log, notes, tables, meta] = self.names.all_tables().map(quoted);
        let index = |suffix: &str| quoted(&format!("{}_{suffix}", self.names.notes));
        let sql = format!(
            "CREATE TABLE main.{meta}(epoch INTEGER, uuid TEXT, trimmed INTEGER);
             INSERT INTO {meta} VALUES (CAST(strftime('%s', 'now') AS INTEGER), lower(hex(randomblob(16))), 0);
             CREATE TABLE main.{tables}(tid INTEGER PRIMARY KEY AUTOINCREMENT, layout TEXT, active INTEGER);
             CREATE TABLE main.{notes}(u TEXT, w TEXT, gone INTEGER, k0);
             CREATE INDEX main.{} ON {notes}(u);
             CREATE INDEX main.{} ON {notes}(w);
             CREATE TABLE main.{log}(seq INTEGER PRIMARY KEY AUTOINCREMENT, tid INTEGER, op INTEGER, at INTEGER, k0, v0);",
            index("u"),
            index("w"),
        );
        transaction.execute_batch(&sql).map_err(failed)
    }

    /// Removes the triggers of a version.
    pub(super) fn retire(&self, transaction: &Transaction<'_>, tid: i64) -> Result<(), Error> {
        let failed = |source| self.failed("remove triggers", source);
        for name in trigger::names(self.names, tid) {
            transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS main.{}", quoted(&name))).map_err(failed)?;
        }
        let sql = format!("UPDATE main.{} SET active = 0 WHERE tid = ?1", quoted(&self.names.tables));
        transaction.execute(&sql, [tid]).map_err(failed)?;
        Ok(())
    }

    /// Makes a new version of a table: widens the log, stores the version, creates the triggers. Returns its number.
    pub(super) fn install(&self, transaction: &Transaction<'_>, table: &TableSchema, missed: MissedRows) -> Result<i64, Error> {
        let failed = |source| self.failed("make triggers", source);
        check_width(table)?;
        widen(transaction, &self.names.log, 'k', table.layout.key_len()).map_err(failed)?;
        widen(transaction, &self.names.log, 'v', table.layout.columns.len()).map_err(failed)?;
        widen(transaction, &self.names.notes, 'k', table.layout.key_len()).map_err(failed)?;
        let tables = quoted(&self.names.tables);
        transaction.execute(&format!("INSERT INTO main.{tables}(active) VALUES (1)"), []).map_err(failed)?;
        let tid = transaction.last_insert_rowid();
        let triggers = trigger::triggers(self.names, tid, table);
        let version = serde_json::to_string(&Version::new(table, &triggers, missed)).expect("names and flags are JSON");
        let sql = format!("UPDATE main.{tables} SET layout = ?1 WHERE tid = ?2");
        transaction.execute(&sql, params![version, tid]).map_err(failed)?;
        self.create_triggers(transaction, table, triggers)?;
        Ok(tid)
    }

    /// Creates triggers and checks that SQLite can compile them: an error in one would break the application's writes.
    fn create_triggers(&self, transaction: &Transaction<'_>, table: &TableSchema, triggers: Vec<(String, String)>) -> Result<(), Error> {
        let failed = |source| self.failed("make triggers", source);
        // Compiling each kind of statement compiles the triggers. A statement that cannot be compiled before they are made is left out: the
        // table needs a function or a module that only the application has.
        let name = quoted(&table.layout.table);
        let first = quoted(table.layout.key_names().next().unwrap_or_default());
        let mut statements = vec![
            format!("EXPLAIN INSERT INTO main.{name}({first}) VALUES (NULL)"),
            format!("EXPLAIN UPDATE main.{name} SET {first} = {first}"),
            format!("EXPLAIN DELETE FROM main.{name}"),
        ];
        statements.retain(|statement| transaction.prepare(statement).is_ok());
        for (_, sql) in triggers {
            transaction.execute_batch(&sql).map_err(failed)?;
        }
        let is_computed = table.others.iter().any(UniqueSet::is_computed);
        for statement in statements {
            match transaction.prepare(&statement) {
                // The triggers repeat the index's expression. Whoever writes to that index has its function.
                Err(error) if is_computed && error.to_string().contains(" function: ") => {}
                prepared => drop(prepared.map_err(failed)?),
            }
        }
        Ok(())
    }
}

/// Refuses a table with more columns than the log can hold.
pub(super) fn check_width(table: &TableSchema) -> Result<(), Error> {
    let max = COLUMNS_MAX - FIXED_COLUMNS;
    let columns = table.layout.columns.len() + table.layout.key_len();
    if max < columns {
        return Err(Error::TooWide { table: table.layout.table.clone(), columns, max });
    }
    Ok(())
}

/// Adds numbered columns to a table of ours until it has this many.
fn widen(transaction: &Transaction<'_>, table: &str, letter: char, count: usize) -> rusqlite::Result<()> {
    for index in count_columns(transaction, table, letter)?..count {
        transaction.execute_batch(&format!("ALTER TABLE main.{} ADD COLUMN {letter}{index}", quoted(table)))?;
    }
    Ok(())
}
