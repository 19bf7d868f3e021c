//! What a start would make, tried on a copy of the schema in memory: the application's file is not touched, and nobody waits.

use crate::feed::Feed;
use crate::source::sqlite::Error;
use crate::source::sqlite::capture::Capture;
use crate::source::sqlite::follow::Lapses;
use crate::source::sqlite::identity::stand_in;
use rusqlite::Connection;

/// A database in memory with the tables, indexes, views and triggers of another one, and no rows.
pub(super) struct Trial<'c> {
    capture: Capture<'c>,
    copy: Connection,
}

impl<'c> Trial<'c> {
    /// Copies what is there but for ours, and makes the change log. What cannot be made in memory (a table that needs a module of
    /// the application's) is not there.
    pub(super) fn new(capture: Capture<'c>, connection: &Connection) -> Result<Self, Error> {
        let copied = copy(connection, |name| !capture.names.is_ours(name));
        let mut copy = copied.map_err(|source| capture.failed("copy the schema", source))?;
        capture.in_one(&mut copy, |transaction| capture.make_log(transaction))?;
        Ok(Self { capture, copy })
    }

    /// What is said against the triggers on this feed's table.
    pub(super) fn install(&mut self, feed: &Feed) -> Result<(), Error> {
        let Ok(shape) = self.capture.describe(&self.copy, feed) else { return Ok(()) };
        self.capture.in_one(&mut self.copy, |transaction| self.capture.install(transaction, &shape, Lapses::default()).map(drop))
    }
}

fn copy(connection: &Connection, is_copied: impl Fn(&str) -> bool) -> rusqlite::Result<Connection> {
    let copy = Connection::open_in_memory()?;
    copy.collation_needed(stand_in)?;
    let encoding: String = connection.query_row("PRAGMA main.encoding", [], |row| row.get(0))?;
    copy.pragma_update(None, "encoding", encoding)?;
    // Tables first: what else there is speaks of them.
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
