//! The change log and the triggers of one pipeline in one database. What is done to them stands in the files that extend [`Capture`]:
//! `establish`, `install`, `follow`, `table_changes`, `gap`, `sweep`.

use crate::event::FeedId;
use crate::feed::{Feed, Feeds};
use crate::source::sqlite::error::Error;
use crate::source::sqlite::history::History;
use crate::source::sqlite::names::Names;
use crate::source::sqlite::schema;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::table::TableSchema;
use crate::source::sqlite::version::InstalledVersion;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::Path;

/// What to do where the triggers of a captured table are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnLostTriggers {
    /// Refuse: changes since are unknown, which is a gap.
    Refuse,
    /// Make them again: the table's rows are read later anyway.
    Reinstall,
}

/// The log and the triggers of one pipeline in one database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capture<'a> {
    pub(super) names: &'a Names,
    pub(super) feeds: &'a Feeds,
    pub(super) path: &'a Path,
}

impl<'a> Capture<'a> {
    pub(super) fn failed(&self, action: &'static str, source: rusqlite::Error) -> Error {
        Error::sqlite(action, self.path, source)
    }

    /// Does the work in one transaction, which takes the write lock at once.
    pub(super) fn in_transaction<T>(
        &self,
        connection: &mut Connection,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(|source| self.failed("begin a transaction", source))?;
        let done = work(&transaction)?;
        transaction.commit().map_err(|source| self.failed("commit the change log's definition", source))?;
        Ok(done)
    }

    pub(super) const fn history<'c>(&self, connection: &'c Connection) -> History<'c>
    where
        'a: 'c,
    {
        History { connection, names: self.names, path: self.path }
    }

    /// Reads the feed's table as it is now.
    pub(super) fn describe(&self, connection: &Connection, feed: &Feed) -> Result<TableSchema, Error> {
        schema::describe(connection, self.path, feed)
    }

    /// Reads the versions whose triggers are in place; none where there is no log.
    pub(super) fn installed_versions(&self, connection: &Connection) -> Result<Vec<InstalledVersion>, Error> {
        if !has_table(connection, &self.names.tables).map_err(|source| self.failed("read the captured tables", source))? {
            return Ok(Vec::new());
        }
        let failed = |source| self.failed("read the captured tables", source);
        let sql = format!("SELECT tid, layout FROM main.{} WHERE active ORDER BY tid", quoted(&self.names.tables));
        let mut statement = connection.prepare(&sql).map_err(failed)?;
        let rows: Vec<(i64, String)> =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect).map_err(failed)?;
        let parsed = rows.into_iter().map(|(tid, text)| {
            let version = serde_json::from_str(&text);
            version
                .map(|version| InstalledVersion { tid, version })
                .map_err(|_| Error::Malformed { what: format!("the description of table version {tid}") })
        });
        parsed.collect()
    }

    /// Finds the installed version of the feed's table.
    pub(super) fn version_of<'v>(&self, feed: FeedId, installed: &'v [InstalledVersion]) -> Option<&'v InstalledVersion> {
        let table = &self.feeds.get(feed).table;
        installed.iter().find(|installed| installed.version.layout.table == *table)
    }
}

pub(super) fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1)", [name], |row| row.get(0))
}
