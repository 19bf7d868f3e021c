//! Tries the triggers on a copy of the schema in memory. The application's file is not touched, and nobody waits.

use crate::feed::Feed;
use crate::source::sqlite::capture::Capture;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::open::make_collation;
use crate::source::sqlite::version::MissedRows;
use rusqlite::Connection;

/// A database in memory with the tables, indexes, views and triggers of another one, and no rows.
pub(super) struct Trial<'c> {
    capture: Capture<'c>,
    copy: Connection,
}

impl<'c> Trial<'c> {
    /// Copies the schema without our tables and triggers, and makes the change log. Whatever cannot be made in memory is left out, such
    /// as a table that needs a module of the application.
    pub(super) fn new(capture: Capture<'c>, connection: &Connection) -> Result<Self, Error> {
        let copied = copy(connection, |name| !capture.names.has_prefix(name));
        let mut copy = copied.map_err(|source| capture.failed("copy the schema", source))?;
        capture.in_transaction(&mut copy, |transaction| capture.make_log(transaction))?;
        Ok(Self { capture, copy })
    }

    /// Makes the triggers on the feed's table, where it could be copied.
    pub(super) fn install(&mut self, feed: &Feed) -> Result<(), Error> {
        let Ok(table) = self.capture.describe(&self.copy, feed) else { return Ok(()) };
        self.capture
            .in_transaction(&mut self.copy, |transaction| self.capture.install(transaction, &table, MissedRows::default()).map(drop))
    }
}

fn copy(connection: &Connection, is_copied: impl Fn(&str) -> bool) -> rusqlite::Result<Connection> {
    let copy = Connection::open_in_memory()?;
    copy.collation_needed(make_collation)?;
    let encoding: String = connection.query_row("PRAGMA main.encoding", [], |row| row.get(0))?;
    copy.pragma_update(None, "encoding", encoding)?;
    // Tables first: indexes, views and triggers name them.
    let mut statement = connection.prepare(
        "SELECT name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL AND sql NOT LIKE 'CREATE VIRTUAL %' ORDER BY type <> 'table', rowid",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let (Ok(name), Ok(sql)) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str())
            && is_copied(name)
            && let Err(error) = copy.execute_batch(sql)
        {
            tracing::debug!(name, %error, "not copied to try the triggers");
        }
    }
    Ok(copy)
}
