//! Makes and opens the file of the store.

use super::super::error::Error;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The version of the tables below.
const VERSION: i64 = 1;
/// How long a connection waits for another one's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// `documents` is what the followed tables hold; `log` is what readers are to be told.
const TABLES: &str = "
    CREATE TABLE origin (
        version INTEGER NOT NULL, pipeline TEXT NOT NULL, uuid TEXT NOT NULL, epoch INTEGER NOT NULL, database_uuid TEXT NOT NULL,
        trimmed INTEGER NOT NULL
    );
    CREATE TABLE tables (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, uuid TEXT NOT NULL, primary_key TEXT NOT NULL,
        complete INTEGER NOT NULL
    );
    CREATE TABLE documents (
        id INTEGER PRIMARY KEY, tid INTEGER NOT NULL, key TEXT NOT NULL, document TEXT NOT NULL, UNIQUE (tid, key)
    );
    CREATE TABLE log (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, tid INTEGER NOT NULL, op INTEGER NOT NULL, at INTEGER NOT NULL, compensating INTEGER NOT NULL,
        bytes INTEGER NOT NULL, old TEXT, new TEXT
    );
";

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// A random string, made with the store.
    pub(crate) uuid: String,
    /// The second in which it was made. Positions begin with it.
    pub(crate) epoch: u32,
    /// The UUID of the database that it follows.
    pub(crate) database_uuid: String,
    /// The highest number that was removed from the log; 0 before the first.
    pub(crate) trimmed: i64,
}

/// Opens the store; `None` where there is none.
pub(crate) fn open(path: &Path, pipeline: &str) -> Result<Option<(Connection, Origin)>, Error> {
    let failed = |source| Error::store("open", path, source);
    if !path.exists() {
        return Ok(None);
    }
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    configure(&connection).map_err(failed)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if tables == 0 {
        return Ok(None);
    }
    let foreign = |what: String| Error::StoreForeign { path: path.to_owned(), what };
    let sql = "SELECT version, pipeline, uuid, epoch, database_uuid, trimmed FROM origin";
    let read = connection.query_row(sql, [], |row| {
        let origin = Origin { uuid: row.get(2)?, epoch: row.get(3)?, database_uuid: row.get(4)?, trimmed: row.get(5)? };
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, origin))
    });
    match read.optional() {
        Ok(Some((VERSION, owner, origin))) if owner == pipeline => Ok(Some((connection, origin))),
        Ok(Some((VERSION, owner, _))) => Err(foreign(format!("it belongs to pipeline {owner:?}"))),
        Ok(Some((version, ..))) => Err(foreign(format!("it has version {version}, and this feedline knows version {VERSION}"))),
        Ok(None) => Err(foreign("it names no pipeline".to_owned())),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown) => Err(foreign("it is another database".to_owned())),
        Err(error) => Err(failed(error)),
    }
}

/// Makes the store, in place of one that is there.
pub(crate) fn create(path: &Path, pipeline: &str, database_uuid: &str, epoch: u32) -> Result<(Connection, Origin), Error> {
    let failed = |source| Error::store("make", path, source);
    remove(path)?;
    let mut connection = Connection::open(path).map_err(failed)?;
    configure(&connection).map_err(failed)?;
    let uuid = format!("{:032x}", fastrand::u128(..));
    let origin = Origin { uuid, epoch, database_uuid: database_uuid.to_owned(), trimmed: 0 };
    let transaction = connection.transaction().map_err(failed)?;
    transaction.execute_batch(TABLES).map_err(failed)?;
    let values = params![VERSION, pipeline, origin.uuid, origin.epoch, origin.database_uuid];
    transaction.execute("INSERT INTO origin VALUES (?1, ?2, ?3, ?4, ?5, 0)", values).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok((connection, origin))
}

/// Removes the store. Returns whether there was one.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    let mut existed = false;
    for suffix in ["-wal", "-shm", ""] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(PathBuf::from(name)) {
            Ok(()) => existed = true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::store("remove", path, rusqlite::Error::ToSqlConversionFailure(error.into()))),
        }
    }
    Ok(existed)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // What was handed on must be there after a power cut: the checkpoint does not go back.
    connection.pragma_update(None, "synchronous", "FULL")
}

/// The number that the next row of the log will have. In a read transaction it is the cut that the documents show.
pub(crate) fn next_seq(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'log'), 0)";
    let last: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(last.saturating_add(1))
}
