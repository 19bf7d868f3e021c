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
use super::seen::Seen;
use super::statements::Statements;
use super::tables::StoredTable;
use crate::event::{Operation, RowError, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::borrow::Cow;
use std::path::Path;

/// About what a row of the log takes in the file, beside its documents.
const ROW_BYTES: usize = 32;
/// How many documents that are gone are deleted at once.
const GONE_ROWS: usize = 1000;

/// A table while it is followed.
pub(crate) struct Followed {
    pub(crate) table: StoredTable,
    /// What its current scan has shown; `None` once that is complete.
    pub(crate) scan: Option<Seen>,
}

/// Applies what the feed of one table says.
pub(crate) struct Applier<'a, 'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) statements: &'a mut Statements<'c>,
    pub(crate) path: &'a Path,
    /// Host and port, for messages.
    pub(crate) address: &'a str,
    pub(crate) followed: &'a mut Followed,
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

/// A document of the store, compared with another one.
struct Known {
    id: i64,
    /// Its text, if that is another one.
    other: Option<String>,
}

impl Applier<'_, '_> {
    /// Applies one element.
    pub(crate) fn apply(&mut self, element: Element<&str>, logged: &mut Logged) -> Result<(), Error> {
        let is_ready = self.followed.scan.is_none();
        match element {
            Element::Initial(new) => {
                logged.compared += 1;
                // Nobody has been told of a table that was never complete: its documents are read from the store.
                let is_told = self.followed.table.is_complete;
                self.put(new, is_told, true, logged)
            }
            Element::Add(new) if is_ready => match self.find(new, new)? {
                (key, None) => {
                    self.insert(&key, new)?;
                    self.log(Operation::Insert, false, None, Some(new), logged)
                }
                (_, Some(_)) => Err(self.left_out(new)),
            },
            // The key does not change.
            Element::Change { old, new } if is_ready => match self.find(new, old)? {
                (_, Some(Known { other: None, .. })) if old == new => Ok(()),
                (_, Some(Known { id, other: None })) => {
                    self.update(id, new)?;
                    self.log(Operation::Update, false, Some(old), Some(new), logged)
                }
                _ => Err(self.left_out(old)),
            },
            Element::Add(new) | Element::Change { new, .. } => self.put(new, true, false, logged),
            Element::Remove(old) => match self.find(old, old)?.1 {
                Some(Known { id, other: None }) => self.delete(id, old, false, logged),
                _ if is_ready => Err(self.left_out(old)),
                Some(Known { id, other: Some(known) }) => self.delete(id, &known, false, logged),
                None => Ok(()),
            },
            Element::Initializing => Ok(()),
            Element::Ready => self.complete(logged),
            Element::Overflow { text } => Err(self.ended(FeedEnd::Overflowed { text })),
        }
    }

    /// After the scan, a document was not as its change says that it was.
    fn left_out(&self, document: &str) -> Error {
        let key = shown(self.key(document).unwrap_or_default()).chars().take(60).collect();
        self.ended(FeedEnd::LeftOut { table: self.followed.table.name.clone(), key })
    }

    fn ended(&self, reason: FeedEnd) -> Error {
        Error::FeedEnded { address: self.address.to_owned(), reason }
    }

    /// During the scan: the document is there with this content.
    fn put(&mut self, new: &str, is_told: bool, is_compensating: bool, logged: &mut Logged) -> Result<(), Error> {
        let id = match self.find(new, new)? {
            (_, Some(Known { id, other: None })) => id,
            (_, Some(Known { id, other: Some(old) })) => {
                self.update(id, new)?;
                self.log(Operation::Update, is_compensating, Some(&old), Some(new), logged)?;
                id
            }
            (key, None) => {
                let id = self.insert(&key, new)?;
                if is_told {
                    self.log(Operation::Insert, is_compensating, None, Some(new), logged)?;
                }
                id
            }
        };
        if let Some(seen) = &mut self.followed.scan {
            seen.insert(id);
        }
        Ok(())
    }

    fn insert(&mut self, key: &str, document: &str) -> Result<i64, Error> {
        let inserted = self.statements.insert.insert(params![self.followed.table.id, key, document]);
        inserted.map_err(|source| Error::store("write a document to", self.path, source))
    }

    fn update(&mut self, id: i64, document: &str) -> Result<(), Error> {
        let updated = self.statements.update.execute(params![id, document]);
        updated.map(drop).map_err(|source| Error::store("write a document to", self.path, source))
    }

    fn delete(&mut self, id: i64, document: &str, is_compensating: bool, logged: &mut Logged) -> Result<(), Error> {
        let deleted = self.statements.delete.execute([id]);
        deleted.map_err(|source| Error::store("delete a document from", self.path, source))?;
        if let Some(seen) = &mut self.followed.scan {
            seen.remove(id);
        }
        self.log(Operation::Delete, is_compensating, Some(document), None, logged)
    }

    /// The scan is complete: documents that it has not shown are gone.
    fn complete(&mut self, logged: &mut Logged) -> Result<(), Error> {
        let mut last = String::new();
        while let Some(seen) = &self.followed.scan {
            let gone = gone(self.connection, self.followed.table.id, seen, &last);
            let gone = gone.map_err(|source| Error::store("complete a scan in", self.path, source))?;
            let Some((_, key, _)) = gone.last() else { break };
            last.clone_from(key);
            for (id, _, document) in &gone {
                self.delete(*id, document, true, logged)?;
            }
        }
        let completed = self.connection.execute("UPDATE tables SET complete = 1 WHERE id = ?1", [self.followed.table.id]);
        completed.map_err(|source| Error::store("complete a scan in", self.path, source))?;
        self.followed.table.is_complete = true;
        self.followed.scan = None;
        Ok(())
    }

    fn log(
        &mut self,
        operation: Operation,
        is_compensating: bool,
        old: Option<&str>,
        new: Option<&str>,
        logged: &mut Logged,
    ) -> Result<(), Error> {
        let bytes = ROW_BYTES + old.map_or(0, str::len) + new.map_or(0, str::len);
        let kept_bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let values = params![self.followed.table.id, operation as u8, self.received_at.0, is_compensating, kept_bytes, old, new];
        self.statements.log.execute(values).map_err(|source| Error::store("write the log of", self.path, source))?;
        logged.bytes += bytes as u64;
        logged.differences += u64::from(is_compensating);
        Ok(())
    }

    /// The canonical key of a document, and what the store holds under it, compared with `expected`.
    fn find<'d>(&mut self, document: &'d str, expected: &str) -> Result<(Cow<'d, str>, Option<Known>), Error> {
        let key = key::canonical(self.key(document)?);
        let found = self.statements.find.query_row(params![self.followed.table.id, key], |row| {
            let text = row.get_ref(1)?.as_str()?;
            Ok(Known { id: row.get(0)?, other: (text != expected).then(|| text.to_owned()) })
        });
        let known = found.optional().map_err(|source| Error::store("look for a document in", self.path, source))?;
        Ok((key, known))
    }

    /// The primary key of a document, as the server wrote it.
    fn key<'d>(&self, document: &'d str) -> Result<&'d str, Error> {
        /// Ends the visit of the fields.
        enum End<'d> {
            Found(&'d str),
            Malformed,
        }
        impl From<RowError> for End<'_> {
            fn from(_error: RowError) -> Self {
                Self::Malformed
            }
        }
        let visited = Cursor::new(document).fields(|name, mut at| {
            let value = at.value()?;
            if *unescaped(name)? == *self.followed.table.primary_key { Err(End::Found(value)) } else { Ok(at) }
        });
        match visited {
            Err(End::Found(key)) => Ok(key),
            Ok(_) | Err(End::Malformed) => Err(self.ended(FeedEnd::Keyless { table: self.followed.table.name.clone() })),
        }
    }
}

/// Documents behind this key that a scan has not shown: number, key, text. None: there are no more.
fn gone(connection: &Connection, tid: i64, seen: &Seen, after: &str) -> rusqlite::Result<Vec<(i64, String, String)>> {
    // The index has all of it: documents are read only where they are gone.
    let mut statement = connection.prepare_cached("SELECT id, key FROM documents WHERE tid = ?1 AND key > ?2 ORDER BY key")?;
    let mut read = connection.prepare_cached("SELECT document FROM documents WHERE id = ?1")?;
    let (mut rows, mut gone) = (statement.query(params![tid, after])?, Vec::new());
    while gone.len() < GONE_ROWS
        && let Some(row) = rows.next()?
    {
        let id = row.get(0)?;
        if !seen.contains(id) {
            gone.push((id, row.get(1)?, read.query_row([id], |row| row.get(0))?));
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::super::file::{create, remove};
    use super::{Applier, Element, Followed, Logged, Seen, Statements, StoredTable, Timestamp};
    use std::path::PathBuf;

    /// Applies these elements in a scan of a table of whose documents the store has so many; returns the numbers of documents and of rows of
    /// the log.
    fn scanned(name: &str, known: u32, elements: &[Element<&str>]) -> (i64, i64) {
        let path: PathBuf = std::env::temp_dir().join(format!("feedline-{name}-{}.store", std::process::id()));
        let (mut connection, _) = create(&path, "shop", "database", 1).unwrap();
        StoredTable::follow(&mut connection, &path, &["t"]).unwrap();
        let table = StoredTable { id: 1, name: "t".into(), primary_key: "id".into(), is_complete: true };
        let mut followed = Followed { table, scan: Some(Seen::default()) };
        for id in 0..known {
            let document = format!("{{\"id\":{id}}}");
            connection.execute("INSERT INTO documents (tid, key, document) VALUES (1, ?1, ?2)", (id.to_string(), document)).unwrap();
        }
        let mut statements = Statements::prepare(&connection).unwrap();
        let mut applier = Applier {
            connection: &connection,
            statements: &mut statements,
            path: &path,
            address: "here",
            followed: &mut followed,
            received_at: Timestamp(0),
        };
        for element in elements {
            applier.apply(element.clone(), &mut Logged::default()).unwrap();
        }
        let count = |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        let counts = (count("documents"), count("log"));
        remove(&path).unwrap();
        counts
    }

    #[test]
    fn all_that_a_scan_has_not_shown_is_gone() {
        let shown = [Element::Initial(r#"{"id":7}"#), Element::Initial(r#"{"id":2499}"#), Element::Ready];
        assert_eq!(scanned("gone", 2500, &shown), (2, 2498));
        assert_eq!(scanned("emptied", 2500, &[Element::Ready]), (0, 2500));
    }

    /// The number of a document that is removed may be given to the next one.
    #[test]
    fn a_document_that_was_removed_in_a_scan_was_not_shown() {
        let (first, gone) = (r#"{"id":0}"#, r#"{"id":1}"#);
        assert_eq!(scanned("again", 2, &[Element::Initial(first), Element::Initial(gone), Element::Remove(gone), Element::Ready]), (1, 1));
        let added = [Element::Initial(first), Element::Remove(gone), Element::Add(r#"{"id":2}"#), Element::Ready];
        assert_eq!(scanned("added", 2, &added), (2, 2));
    }
}
