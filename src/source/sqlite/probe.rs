//! The probe: looks at the end of the change log on a connection of its own.

use crate::checkpoint::ResumeToken;
use crate::feed::TableName;
use crate::source::probe::Probe;
use crate::source::sqlite::catalogue;
use crate::source::sqlite::database::Database;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::layout::SCHEMA;
use crate::source::sqlite::open::OpenFile;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::LogPosition;
use crate::source::token::LogToken as _;
use crate::status::LogHead;
use rusqlite::Connection;
use std::sync::{Arc, Mutex, PoisonError};

/// Looks at the end of one change log.
pub struct LogProbe {
    pub(super) database: Database,
    pub(super) file: OpenFile,
    /// Locked by one call at a time. The thread of a cancelled call goes on to its end.
    pub(super) connection: Arc<Mutex<Connection>>,
}

impl Probe for LogProbe {
    type Error = Error;

    async fn head(&mut self, confirmed: &ResumeToken) -> Result<LogHead, Error> {
        let position = LogPosition::parse(confirmed)?;
        let (connection, file, database) = (Arc::clone(&self.connection), self.file.clone(), self.database.clone());
        let found = tokio::task::spawn_blocking(move || {
            // A replaced file would look caught up for ever.
            file.check()?;
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            look(&database, &connection, position)
        });
        found.await.map_err(|_| Error::Ended)?
    }

    async fn tables(&mut self) -> Result<Vec<TableName>, Error> {
        let (connection, file, database) = (Arc::clone(&self.connection), self.file.clone(), self.database.clone());
        let found = tokio::task::spawn_blocking(move || {
            file.check()?;
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            catalogue::table_names(&connection).map_err(|source| Error::sqlite("list the tables of", &database.path, source))
        });
        let names = found.await.map_err(|_| Error::Ended)??;
        Ok(names.into_iter().map(|name| (SCHEMA.into(), name)).collect())
    }
}

fn look(database: &Database, connection: &Connection, position: LogPosition) -> Result<LogHead, Error> {
    let failed = |source| Error::sqlite("read the change log's head", &database.path, source);
    let head = database.checked.check_newest(&database.history(connection))?;
    let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{} WHERE seq >= ?1)", quoted(&database.names.log));
    let has_more: bool =
        connection.prepare_cached(&sql).and_then(|mut statement| statement.query_row([position.next], |row| row.get(0))).map_err(failed)?;
    Ok(LogHead {
        caught_up: head <= position.next || !has_more,
        // Its log has followed tables alone.
        reached_at: None,
        // The log counts rows, not bytes, and keeps them until they are durable elsewhere.
        lag_bytes: None,
        retained_bytes: None,
        xmin_age: None,
        headroom_ratio: Some(1.0),
        // The writers run on this machine.
        clock_offset_seconds: Some(0.0),
    })
}
