//! The tables of the store: which ones are followed, and whether each has been read to its end once.

use super::super::error::Error;
use super::super::session::TableInfo;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::path::Path;

/// A followed table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredTable {
    /// Its number in the store.
    pub(crate) id: i64,
    pub(crate) name: String,
    /// The field that is its primary key; empty until it is known.
    pub(crate) primary_key: String,
    /// Whether a scan of it was complete once: the store has each of its documents, as it is or as it was.
    pub(crate) is_complete: bool,
}

impl StoredTable {
    /// Every table of the store.
    pub(crate) fn all(connection: &Connection) -> rusqlite::Result<Vec<Self>> {
        let mut statement = connection.prepare_cached("SELECT id, name, primary_key, complete FROM tables ORDER BY id")?;
        let tables = statement
            .query_map([], |row| Ok(Self { id: row.get(0)?, name: row.get(1)?, primary_key: row.get(2)?, is_complete: row.get(3)? }))?;
        tables.collect()
    }

    /// The table of this name.
    pub(crate) fn named(connection: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        let mut statement = connection.prepare_cached("SELECT id, primary_key, complete FROM tables WHERE name = ?1")?;
        let read = statement.query_row([name], |row| {
            Ok(Self { id: row.get(0)?, name: name.to_owned(), primary_key: row.get(1)?, is_complete: row.get(2)? })
        });
        read.optional()
    }

    /// Notes which tables are followed, and forgets the others with their documents.
    pub(crate) fn follow(connection: &mut Connection, path: &Path, names: &[&str]) -> Result<(), Error> {
        let failed = |source| Error::store("name the tables in", path, source);
        let transaction = connection.transaction().map_err(failed)?;
        for table in Self::all(&transaction).map_err(failed)? {
            if !names.contains(&table.name.as_str()) {
                for sql in ["DELETE FROM documents WHERE tid = ?1", "DELETE FROM tables WHERE id = ?1"] {
                    transaction.execute(sql, [table.id]).map_err(failed)?;
                }
            }
        }
        for name in names {
            let sql = "INSERT INTO tables (name, uuid, primary_key, complete) VALUES (?1, '', '', 0) ON CONFLICT DO NOTHING";
            transaction.execute(sql, [name]).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }

    /// Begins a scan of a table.
    ///
    /// A table that was made anew under the old name is compared like any other: what its forerunner held and it does not is deleted.
    pub(crate) fn begin_scan(connection: &Connection, path: &Path, name: &str, info: &TableInfo) -> Result<Self, Error> {
        let failed = |source| Error::store("begin a scan in", path, source);
        let gone = || Error::TableGone { table: name.to_owned() };
        let mut table = Self::named(connection, name).map_err(failed)?.ok_or_else(gone)?;
        if !table.primary_key.is_empty() && table.primary_key != info.primary_key {
            return Err(Error::KeyChanged { table: name.to_owned() });
        }
        table.primary_key.clone_from(&info.primary_key);
        let values = params![table.id, info.uuid, info.primary_key];
        connection.execute("UPDATE tables SET uuid = ?2, primary_key = ?3 WHERE id = ?1", values).map_err(failed)?;
        Ok(table)
    }
}
