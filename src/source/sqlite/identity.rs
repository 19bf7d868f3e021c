//! The identity of a change log: the epoch and the random number that it was made with. And how far the log has come.

use crate::checkpoint::Identity;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::names::Names;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::LogPosition;
use rusqlite::{Connection, OptionalExtension as _};
use std::path::Path;

/// What a change log says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The second in which it was made.
    pub(super) epoch: u32,
    pub(super) uuid: String,
    /// The highest number that was removed from the log; 0 before the first.
    pub(super) trimmed: i64,
}

impl Origin {
    /// Reads it; `None` where this pipeline has no log in the database.
    pub(super) fn read(connection: &Connection, names: &Names, path: &Path) -> Result<Option<Self>, Error> {
        let failed = |source| Error::sqlite("read the change log's identity", path, source);
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
        let own = self.identity();
        // An intent has an empty identity: it is saved before the log is made.
        match own.iter().find(|(name, value)| known.get(*name).is_some_and(|known| known != *value)) {
            Some((name, value)) => Err(Error::Foreign { path: path.to_owned(), what: format!("its {name} is {value}") }),
            None => Ok(()),
        }
    }

    /// Refuses a database that is not the known one, or that has another log than the position's.
    pub(super) fn check(&self, known: &Identity, position: LogPosition, path: &Path) -> Result<(), Error> {
        if position.epoch != self.epoch {
            let what = format!("its log was made at second {}, not {}", self.epoch, position.epoch);
            return Err(Error::Foreign { path: path.to_owned(), what });
        }
        self.recognize(known, path)
    }
}

/// The number that the next row of the log will have. In a read transaction it is the cut that the snapshot shows.
pub(super) fn head(connection: &Connection, names: &Names) -> rusqlite::Result<i64> {
    // SQLite counts on from the larger of the two.
    let sql = format!(
        "SELECT max(coalesce((SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?1), 0), coalesce((SELECT max(seq) FROM main.{}), 0))",
        quoted(&names.log)
    );
    let last: i64 = connection.prepare_cached(&sql)?.query_row([&names.log], |row| row.get(0))?;
    // AUTOINCREMENT fails at the largest number; no log gets there.
    Ok(last.saturating_add(1))
}
