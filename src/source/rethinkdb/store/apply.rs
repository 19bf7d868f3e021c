//! Applies what a feed says to the store: the document as it is, and what readers are to be told.
//!
//! While a table is scanned, a document may be known from an earlier scan, and what happened since is not: so what is there counts. Once the
//! scan is complete, each change must fit the document that it changes. If it does not, the feed has left something out.

use super::super::error::Error;
use super::super::feed_end::FeedEnd;
use super::super::key;
use super::super::response::Element;
use super::super::scan::Cursor;
use super::super::server_error::shown;
use super::super::value::unescaped;
use super::tables::StoredTable;
use crate::event::{Operation, RowError, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::path::Path;

/// About what a row of the log takes in the file, beside its documents.
const ROW_BYTES: usize = 32;

/// A table while it is followed.
pub(crate) struct Applier<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) path: &'a Path,
    /// Host and port, for messages.
    pub(crate) address: &'a str,
    pub(crate) table: &'a mut StoredTable,
    /// Whether the current scan is complete.
    pub(crate) is_ready: &'a mut bool,
    /// When what is applied was received.
    pub(crate) received_at: Timestamp,
}

/// What the log got, and what scans did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Logged {
    /// Bytes of its new rows.
    pub(crate) bytes: u64,
    /// Documents that scans have compared.
    pub(crate) compared: u64,
    /// Rows that scans have added: nobody had told of these changes.
    pub(crate) differences: u64,
}

/// A document of the store.
struct Known {
    id: i64,
    document: String,
    is_seen: bool,
}

impl Applier<'_> {
    /// Applies one element.
    pub(crate) fn apply(&mut self, element: Element<&str>, logged: &mut Logged) -> Result<(), Error> {
        match element {
            Element::Initial(new) => {
                logged.compared += 1;
                // Nobody has been told of a table that was never complete: its documents are read from the store.
                let is_told = self.table.is_complete;
                self.put(new, is_told, true, logged)
            }
            Element::Add(new) => {
                if *self.is_ready && self.find(new)?.1.is_some() {
                    return Err(self.left_out(new));
                }
                self.put(new, true, false, logged)
            }
            Element::Change { old, new } => {
                self.check(old)?;
                self.put(new, true, false, logged)
            }
            Element::Remove(old) => {
                self.check(old)?;
                match self.find(old)?.1 {
                    Some(known) => self.delete(&known, false, logged),
                    None => Ok(()),
                }
            }
            Element::Initializing => Ok(()),
            Element::Ready => self.complete(logged),
            Element::Overflow { text } => Err(self.ended(FeedEnd::Overflowed { text })),
        }
    }

    /// After the scan, the document must be as the change says that it was.
    fn check(&self, old: &str) -> Result<(), Error> {
        if !*self.is_ready || self.find(old)?.1.is_some_and(|known| known.document == old) {
            return Ok(());
        }
        Err(self.left_out(old))
    }

    fn left_out(&self, document: &str) -> Error {
        let key = shown(self.key(document).unwrap_or_default()).chars().take(60).collect();
        self.ended(FeedEnd::LeftOut { table: self.table.name.clone(), key })
    }

    fn ended(&self, reason: FeedEnd) -> Error {
        Error::FeedEnded { address: self.address.to_owned(), reason }
    }

    /// The document is there with this content.
    fn put(&self, new: &str, is_told: bool, is_compensating: bool, logged: &mut Logged) -> Result<(), Error> {
        let failed = |source| Error::store("write a document to", self.path, source);
        let (key, known) = self.find(new)?;
        let id = match known {
            Some(known) if known.document == new => {
                if known.is_seen {
                    return Ok(());
                }
                known.id
            }
            Some(known) => {
                let sql = "UPDATE documents SET document = ?2 WHERE id = ?1";
                self.connection.prepare_cached(sql).and_then(|mut put| put.execute(params![known.id, new])).map_err(failed)?;
                self.log(Operation::Update, is_compensating, Some(&known.document), Some(new), logged)?;
                known.id
            }
            None => {
                let sql = "INSERT INTO documents (tid, key, document) VALUES (?1, ?2, ?3)";
                let values = params![self.table.id, key, new];
                self.connection.prepare_cached(sql).and_then(|mut put| put.execute(values)).map_err(failed)?;
                let id = self.connection.last_insert_rowid();
                if is_told {
                    self.log(Operation::Insert, is_compensating, None, Some(new), logged)?;
                }
                id
            }
        };
        if !*self.is_ready {
            let sql = "INSERT INTO seen VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            self.connection.prepare_cached(sql).and_then(|mut see| see.execute(params![self.table.id, id])).map_err(failed)?;
        }
        Ok(())
    }

    fn delete(&self, known: &Known, is_compensating: bool, logged: &mut Logged) -> Result<(), Error> {
        let failed = |source| Error::store("delete a document from", self.path, source);
        let sql = "DELETE FROM documents WHERE id = ?1";
        self.connection.prepare_cached(sql).and_then(|mut delete| delete.execute([known.id])).map_err(failed)?;
        let sql = "DELETE FROM seen WHERE tid = ?1 AND id = ?2";
        self.connection.prepare_cached(sql).and_then(|mut forget| forget.execute([self.table.id, known.id])).map_err(failed)?;
        self.log(Operation::Delete, is_compensating, Some(&known.document), None, logged)
    }

    /// The scan is complete: documents that it has not shown are gone.
    fn complete(&mut self, logged: &mut Logged) -> Result<(), Error> {
        let failed = |source| Error::store("complete a scan in", self.path, source);
        let sql = "SELECT id, document FROM documents AS d WHERE tid = ?1 AND id > ?2 \
                   AND NOT EXISTS (SELECT 1 FROM seen WHERE tid = ?1 AND id = d.id) ORDER BY id LIMIT 1";
        let mut last = 0_i64;
        loop {
            let mut gone = self.connection.prepare_cached(sql).map_err(failed)?;
            let next =
                gone.query_row(params![self.table.id, last], |row| Ok(Known { id: row.get(0)?, document: row.get(1)?, is_seen: false }));
            let Some(known) = next.optional().map_err(failed)? else { break };
            last = known.id;
            self.delete(&known, true, logged)?;
        }
        self.connection.execute("DELETE FROM seen WHERE tid = ?1", [self.table.id]).map_err(failed)?;
        self.connection.execute("UPDATE tables SET complete = 1 WHERE id = ?1", [self.table.id]).map_err(failed)?;
        self.table.is_complete = true;
        *self.is_ready = true;
        Ok(())
    }

    fn log(
        &self,
        operation: Operation,
        is_compensating: bool,
        old: Option<&str>,
        new: Option<&str>,
        logged: &mut Logged,
    ) -> Result<(), Error> {
        let failed = |source| Error::store("write the log of", self.path, source);
        let sql = "INSERT INTO log (tid, op, at, compensating, bytes, old, new) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let bytes = ROW_BYTES + old.map_or(0, str::len) + new.map_or(0, str::len);
        let kept_bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let values = params![self.table.id, operation as u8, self.received_at.0, is_compensating, kept_bytes, old, new];
        self.connection.prepare_cached(sql).and_then(|mut log| log.execute(values)).map_err(failed)?;
        logged.bytes += bytes as u64;
        logged.differences += u64::from(is_compensating);
        Ok(())
    }

    /// The canonical key of a document, and what the store knows of it.
    fn find(&self, document: &str) -> Result<(String, Option<Known>), Error> {
        let failed = |source| Error::store("look for a document in", self.path, source);
        let key = key::canonical(self.key(document)?).into_owned();
        let sql = "SELECT id, document, EXISTS (SELECT 1 FROM seen WHERE tid = ?1 AND id = documents.id) FROM documents \
                   WHERE tid = ?1 AND key = ?2";
        let known = self.connection.prepare_cached(sql).and_then(|mut find| {
            let found = find
                .query_row(params![self.table.id, key], |row| Ok(Known { id: row.get(0)?, document: row.get(1)?, is_seen: row.get(2)? }));
            found.optional()
        });
        Ok((key, known.map_err(failed)?))
    }

    /// The primary key of a document, as the server wrote it.
    fn key<'d>(&self, document: &'d str) -> Result<&'d str, Error> {
        let mut key = None;
        let found = Cursor::new(document).fields(|name, mut at| {
            let value = at.value()?;
            if *unescaped(name)? == *self.table.primary_key {
                key = Some(value);
            }
            Ok::<_, RowError>(at)
        });
        match (found, key) {
            (Ok(_), Some(key)) => Ok(key),
            _ => Err(self.ended(FeedEnd::Keyless { table: self.table.name.clone() })),
        }
    }
}
