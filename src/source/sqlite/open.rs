//! Opens the database file, and notices when the path leads to another file.

use super::lock_holder::shared_memory;
use crate::source::sqlite::error::Error;
use rusqlite::{Connection, OpenFlags};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a statement of ours waits for the application's write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Device and inode.
type Node = (u64, u64);

/// The file that is open, by device and inode.
#[derive(Clone, Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    /// The path without links: the `-wal` file is beside the file itself. Absolute, so that SQLite never takes it for a URI.
    real_path: PathBuf,
    node: Node,
    /// The `-shm` file beside it. Without it we no longer see the commits of others. SQLite removes it only when nobody has the
    /// database open.
    shared_memory: Option<Node>,
}

fn node(path: &Path) -> std::io::Result<Node> {
    std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl OpenFile {
    fn at(path: &Path) -> Result<Self, Error> {
        let found = node(path).and_then(|node| Ok((node, path.canonicalize()?)));
        let (node, real_path) = found.map_err(|source| Error::Unreachable { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), real_path, node, shared_memory: None })
    }

    fn find_shared_memory(&self) -> Option<Node> {
        node(&shared_memory(&self.real_path)).ok()
    }

    /// Checks that the path still leads to the file that was opened.
    pub(super) fn check(&self) -> Result<(), Error> {
        let is_same =
            Self::at(&self.path)?.node == self.node && (self.shared_memory.is_none() || self.find_shared_memory() == self.shared_memory);
        if is_same { Ok(()) } else { Err(Error::Replaced { path: self.path.clone() }) }
    }
}

/// Opens the file, which must exist and be a database in WAL mode.
pub(super) fn open(path: &Path) -> Result<(Connection, OpenFile), Error> {
    let failed = |source| Error::sqlite("open the database", path, source);
    let mut file = OpenFile::at(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&file.real_path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.collation_needed(make_collation).map_err(failed)?;
    if connection.is_readonly("main").map_err(failed)? {
        let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY), None);
        return Err(failed(source));
    }
    let mode: String = connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(Error::JournalMode { path: path.to_owned(), mode });
    }
    file.shared_memory = file.find_shared_memory();
    file.check()?;
    Ok((connection, file))
}

/// Makes a substitute for a collation that only the application has. SQLite needs one to open an index; no row is compared or found by
/// it.
pub(super) fn make_collation(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    connection.create_collation(name, |one: &str, other: &str| one.cmp(other))
}
