//! The statements that a change of a document takes, prepared once for all changes of a transaction.

use rusqlite::{CachedStatement, Connection};

pub(crate) struct Statements<'c> {
    pub(crate) find: CachedStatement<'c>,
    pub(crate) insert: CachedStatement<'c>,
    pub(crate) update: CachedStatement<'c>,
    pub(crate) delete: CachedStatement<'c>,
    pub(crate) log: CachedStatement<'c>,
}

impl<'c> Statements<'c> {
    pub(crate) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            find: connection.prepare_cached("SELECT id, document FROM documents WHERE tid = ?1 AND key = ?2")?,
            insert: connection.prepare_cached("INSERT INTO documents (tid, key, document) VALUES (?1, ?2, ?3)")?,
            update: connection.prepare_cached("UPDATE documents SET document = ?2 WHERE id = ?1")?,
            delete: connection.prepare_cached("DELETE FROM documents WHERE id = ?1")?,
            log: connection
                .prepare_cached("INSERT INTO log (tid, op, at, compensating, bytes, old, new) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?,
        })
    }
}
