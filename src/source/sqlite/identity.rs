//! Who a database is: the epoch and the random number that its change log was made with, and how far the log has come.

use crate::checkpoint::Identity;
use crate::source::sqlite::capture::Names;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::LogPosition;
use crate::source::sqlite::{Error, error};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a statement of ours waits for the application's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Device and inode.
type Node = (u64, u64);

/// Which file is open.
#[derive(Clone, Debug)]
pub(super) struct File {
    path: PathBuf,
    /// Where the path leads: a link's file has its log beside itself. Absolute, so that SQLite never takes it for a URI.
    real: PathBuf,
    node: Node,
    /// The shared memory beside it: who removes that cuts us off from all others' commits. SQLite does so only when nobody has
    /// the file open.
    memory: Option<Node>,
}

fn node(path: &Path) -> std::io::Result<Node> {
    std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl File {
    fn at(path: &Path) -> Result<Self, Error> {
        let found = node(path).and_then(|node| Ok((node, path.canonicalize()?)));
        let (node, real) = found.map_err(|source| Error::Unreachable { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), real, node, memory: None })
    }

    fn memory(&self) -> Option<Node> {
        let mut beside = self.real.as_os_str().to_owned();
        beside.push("-shm");
        node(Path::new(&beside)).ok()
    }

    /// Whether the path still leads to the file that was opened.
    pub(super) fn check(&self) -> Result<(), Error> {
        let is_same = Self::at(&self.path)?.node == self.node && (self.memory.is_none() || self.memory() == self.memory);
        if is_same { Ok(()) } else { Err(Error::Replaced { path: self.path.clone() }) }
    }
}

/// Opens the file, which must be a database in WAL mode; never makes one.
pub(super) fn open(path: &Path) -> Result<(Connection, File), Error> {
    let failed = |source| Error::sqlite("open the database", path, source);
    let mut file = File::at(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&file.real, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.collation_needed(stand_in).map_err(failed)?;
    if connection.is_readonly("main").map_err(failed)? {
        let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY), None);
        return Err(failed(source));
    }
    let mode: String = connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(Error::JournalMode { path: path.to_owned(), mode });
    }
    file.memory = file.memory();
    file.check()?;
    Ok((connection, file))
}

/// A collation of the application's own, which is not here. SQLite asks for it where it opens an index, and rows are neither
/// compared by it nor found by it.
pub(super) fn stand_in(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    connection.create_collation(name, |one: &str, other: &str| one.cmp(other))
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

    /// Refuses a database that is not the known one, or whose log is another.
    pub(super) fn check(&self, known: &Identity, place: LogPosition, path: &Path) -> Result<(), Error> {
        if place.epoch != self.epoch {
            let what = format!("its change log was made at second {}, the known one at {}", self.epoch, place.epoch);
            return Err(Error::Foreign { path: path.to_owned(), what });
        }
        self.recognize(known, path)
    }
}

/// The number that the next row of the log will have. Within a read transaction: the cut that the snapshot shows.
pub(super) fn head(connection: &Connection, names: &Names) -> rusqlite::Result<i64> {
    // As SQLite counts: on from the larger of the two.
    let sql = format!(
        "SELECT max(coalesce((SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?1), 0), coalesce((SELECT max(seq) FROM main.{}), 0))",
        quoted(&names.log)
    );
    let last: i64 = connection.prepare_cached(&sql)?.query_row([&names.log], |row| row.get(0))?;
    // AUTOINCREMENT stops at the largest number; no log gets there.
    Ok(last.saturating_add(1))
}
