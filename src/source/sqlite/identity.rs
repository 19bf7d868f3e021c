//! Who a database is: the epoch and the random number that its change log was made with, and how far the log has come.

use crate::checkpoint::Identity;
use crate::source::sqlite::capture::Names;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::Place;
use crate::source::sqlite::{Error, error};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a statement of ours waits for the application's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Which file is open: device and inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl File {
    fn at(path: &Path) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(|source| Error::Unreachable { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// Whether the path still leads to the file that was opened.
    pub(super) fn check(&self) -> Result<(), Error> {
        if Self::at(&self.path)? == *self { Ok(()) } else { Err(Error::Replaced { path: self.path.clone() }) }
    }
}

/// Opens the file, which must be a database in WAL mode; never makes one.
pub(super) fn open(path: &Path) -> Result<(Connection, File), Error> {
    let failed = |source| Error::sqlite("open the database", path, source);
    let file = File::at(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    if connection.is_readonly("main").map_err(failed)? {
        let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY), None);
        return Err(failed(source));
    }
    let mode: String = connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(Error::JournalMode { path: path.to_owned(), mode });
    }
    file.check()?;
    Ok((connection, file))
}

/// The change log's own account of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) epoch: u32,
    pub(super) uuid: String,
    /// The last number that was removed from the log; 0 before the first.
    pub(super) trimmed: i64,
}

impl Origin {
    /// Reads it; `None` where the database has no log of this pipeline.
    pub(super) fn read(connection: &Connection, names: &Names, path: &Path) -> Result<Option<Self>, Error> {
        let failed = |source| error::Error::sqlite("read the change log's identity", path, source);
        let exists: bool = connection
            .query_row("SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1)", [&names.meta], |row| {
                row.get(0)
            })
            .map_err(failed)?;
        if !exists {
            return Ok(None);
        }
        let sql = format!("SELECT epoch, uuid, trimmed FROM main.{}", quoted(&names.meta));
        let found = connection
            .query_row(&sql, [], |row| Ok(Self { epoch: row.get(0)?, uuid: row.get(1)?, trimmed: row.get(2)? }))
            .optional()
            .map_err(failed)?;
        found.map(Some).ok_or_else(|| Error::Malformed { what: format!("table `{}`", names.meta) })
    }

    pub(super) fn identity(&self) -> Identity {
        Identity::from([("epoch".to_owned(), self.epoch.to_string()), ("uuid".to_owned(), self.uuid.clone())])
    }

    /// Refuses a database that is not the known one (G6).
    pub(super) fn recognize(&self, known: &Identity, path: &Path) -> Result<(), Error> {
        let ours = self.identity();
        // The identity of an intent was taken before there was a log: it knows neither value.
        match ours.iter().find(|(name, value)| known.get(*name).is_some_and(|known| known != *value)) {
            Some((name, value)) => Err(Error::Foreign { path: path.to_owned(), what: format!("its {name} is {value}") }),
            None => Ok(()),
        }
    }

    /// Refuses a database that is not the known one, or that no longer holds what comes next (G6).
    pub(super) fn check(&self, known: &Identity, place: Place, head: i64, path: &Path) -> Result<(), Error> {
        let foreign = |what| Err(Error::Foreign { path: path.to_owned(), what });
        if place.epoch != self.epoch {
            return foreign(format!("its change log was made at second {}, the known one at {}", self.epoch, place.epoch));
        }
        self.recognize(known, path)?;
        if head < place.next {
            return Err(Error::Rewound { path: path.to_owned(), head, token: place.next });
        }
        if place.next <= self.trimmed {
            return Err(Error::LogLost { trimmed: self.trimmed, token: place.next });
        }
        Ok(())
    }
}

/// The number that the next row of the log will have. Within a read transaction: the cut that the snapshot shows.
pub(super) fn head(connection: &Connection, names: &Names) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT seq FROM main.sqlite_sequence WHERE name = ?1")?;
    let last: Option<i64> = statement.query_row([&names.log], |row| row.get(0)).optional()?;
    // AUTOINCREMENT stops at the largest number; no log gets there.
    Ok(last.unwrap_or(0).saturating_add(1))
}
