//! Existing rows: the documents of the store, read under one read transaction. Its place in the log is exact, because each transaction of the
//! store holds a change in the log and the document that it leaves.

use super::document::Document;
use super::error::Error;
use super::options::Options;
use super::progress::Progress;
use super::store::{self, StoredTable};
use super::token::LogPosition;
use crate::checkpoint::ScanPosition;
use crate::event::{FeedId, Timestamp};
use crate::feed::Feeds;
use crate::format::Encoder;
use crate::source::{Cut, Opened, Prefeed, RowEmitter, Scanned, Shape, ToRead};
use rusqlite::{Connection, params};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How many documents are read at once, and about how many bytes.
const ROWS: usize = 1000;
const BYTES: usize = 512 * 1024;
/// How long an estimate of a table's documents is waited for.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// Reads existing rows.
pub struct Rows {
    options: Options,
    feeds: Arc<Feeds>,
    progress: Progress,
    /// The connection with the read transaction, lent to the thread that reads.
    connection: Option<Connection>,
    tables: HashMap<FeedId, SnapshotTable>,
    ahead: ReadAhead,
}

/// A table as the snapshot shows it.
struct SnapshotTable {
    id: i64,
    shape: Shape<Encoder>,
}

/// Rows that were read and are not written yet.
#[derive(Default)]
struct ReadAhead {
    /// Key and document, the next one last.
    rows: Vec<(String, String)>,
    /// Their feed, and the key before them.
    begins: Option<(FeedId, Option<ScanPosition>)>,
    /// Whether the table ends with them.
    is_last: bool,
}

impl Rows {
    pub(super) fn new(options: Options, feeds: Arc<Feeds>, progress: Progress) -> Self {
        Self { options, feeds, progress, connection: None, tables: HashMap::new(), ahead: ReadAhead::default() }
    }

    /// Lends the connection to a thread. If the call is cancelled, the thread closes it: the snapshot is lost, and the next call fails.
    async fn on_snapshot<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let connection = self.connection.take().ok_or(Error::NoSnapshot)?;
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&connection);
            (connection, done)
        });
        let (connection, done) = worked.await.map_err(|_| Error::Ended)?;
        self.connection = Some(connection);
        done.map_err(|source| Error::store("read documents of", &self.options.store, source))
    }

    /// Opens a snapshot. The tables that were never read to their end have no documents to show: then it returns these.
    async fn open_snapshot(&mut self, feeds: &[ToRead]) -> Result<Result<LogPosition, Vec<(FeedId, Arc<str>)>>, Error> {
        let (path, pipeline) = (self.options.store.clone(), Arc::clone(&self.options.pipeline));
        let opening = tokio::task::spawn_blocking(move || {
            let (connection, origin) = store::open(&path, &pipeline)?.ok_or_else(|| Error::StoreLost { path: path.clone() })?;
            let failed = |source| Error::store("open a snapshot of", &path, source);
            connection.execute_batch("BEGIN").map_err(failed)?;
            let next = store::next_seq(&connection).map_err(failed)?;
            let tables = StoredTable::all(&connection).map_err(failed)?;
            Ok::<_, Error>((connection, LogPosition { epoch: origin.epoch, next }, tables))
        });
        let (connection, cut, stored) = opening.await.map_err(|_| Error::Ended)??;
        let mut missing = Vec::new();
        for ToRead { feed, .. } in feeds {
            let name = &self.feeds.get(*feed).table;
            match stored.iter().find(|table| *table.name == **name) {
                Some(table) if table.is_complete => {
                    self.tables.insert(*feed, SnapshotTable { id: table.id, shape: Shape::new(&table.primary_key, &[]) });
                }
                _ => missing.push((*feed, Arc::clone(name))),
            }
        }
        if !missing.is_empty() {
            return Ok(Err(missing));
        }
        self.connection = Some(connection);
        Ok(Ok(cut))
    }

    /// Reads the documents behind a key.
    async fn read(&mut self, table: i64, after: Option<String>) -> Result<(), Error> {
        let (rows, is_last) = self
            .on_snapshot(move |connection| {
                let sql = "SELECT key, document FROM documents WHERE tid = ?1 AND key > ?2 ORDER BY key";
                let mut statement = connection.prepare_cached(sql)?;
                // No key is empty.
                let mut found = statement.query(params![table, after.unwrap_or_default()])?;
                let (mut rows, mut bytes) = (Vec::new(), 0);
                while rows.len() < ROWS && bytes < BYTES {
                    let Some(row) = found.next()? else { return Ok((rows, true)) };
                    let (key, document): (String, String) = (row.get(0)?, row.get(1)?);
                    bytes += document.len();
                    rows.push((key, document));
                }
                Ok((rows, false))
            })
            .await?;
        self.ahead = ReadAhead { rows, begins: None, is_last };
        self.ahead.rows.reverse();
        Ok(())
    }

    /// Writes the rows that were read, until the batch is full. Returns the key of the last one.
    async fn write(&mut self, feed: FeedId, out: &mut RowEmitter<'_>) -> Result<Option<String>, Error> {
        let described = self.feeds.get(feed);
        let shape = &mut self.tables.get_mut(&feed).ok_or(Error::NoSnapshot)?.shape;
        let mut last = None;
        while !out.is_full() {
            let Some((key, text)) = self.ahead.rows.last() else { break };
            let failed = |source| Error::Row { table: described.name.to_string(), key: key.chars().take(60).collect(), source };
            let document = Document::parse(text).map_err(failed)?;
            shape.admit(document.names());
            if shape.prepared().is_none() {
                let encoder = out.prepare(&shape.relation(described)).await?;
                shape.set_prepared(encoder);
            }
            let encoder = shape.prepared().ok_or(Error::NoSnapshot)?;
            out.write(encoder, document.row(shape.columns(), shape.primary_key())).map_err(failed)?;
            last = self.ahead.rows.pop().map(|(key, _)| key);
        }
        Ok(last)
    }
}

impl Prefeed for Rows {
    type Error = Error;

    /// An open read transaction blocks nobody, but it pins the store's `-wal` file, which grows with each change.
    const SLICE_MAX: Duration = Duration::from_secs(10);

    async fn open(&mut self, feeds: &[ToRead], within: Duration) -> Result<Opened, Error> {
        self.close().await?;
        let deadline = Instant::now() + within;
        loop {
            let missing = match self.open_snapshot(feeds).await? {
                Ok(cut) => return Ok(Opened::Cut(Cut { token: cut.token(), opened_at: Timestamp::now() })),
                Err(missing) => missing,
            };
            self.tables.clear();
            let feeds: Vec<_> = missing.iter().map(|(feed, _)| *feed).collect();
            if timeout_at(deadline, self.progress.are_complete(&feeds)).await.is_err() {
                let names = missing.iter().take(3).map(|(_, name)| &**name).collect::<Vec<_>>().join(", ");
                return Ok(Opened::Blocked { by: format!("the first scan of {} tables ({names})", missing.len()) });
            }
        }
    }

    async fn scan(&mut self, feed: FeedId, after: Option<&ScanPosition>, out: &mut RowEmitter<'_>) -> Result<Scanned, Error> {
        let table = self.tables.get(&feed).ok_or(Error::NoSnapshot)?.id;
        if self.ahead.begins.as_ref().is_none_or(|(ahead, begins)| *ahead != feed || begins.as_ref() != after) {
            self.read(table, after.map(|after| after.0.to_string())).await?;
        }
        self.ahead.begins = None;
        let mut last = None;
        let done = loop {
            last = self.write(feed, out).await?.or(last);
            if !self.ahead.rows.is_empty() {
                break false;
            }
            if self.ahead.is_last {
                break true;
            }
            let Some(from) = last.clone().or_else(|| after.map(|after| after.0.to_string())) else { break true };
            self.read(table, Some(from)).await?;
            if out.is_full() && !self.ahead.rows.is_empty() {
                break false;
            }
        };
        let position = last.map(|key| ScanPosition(key.into()));
        if !done {
            self.ahead.begins = Some((feed, position.clone().or_else(|| after.cloned())));
        }
        Ok(Scanned { after: position, done })
    }

    async fn expected_rows(&mut self, feed: FeedId) -> Result<Option<u64>, Error> {
        Ok(self.progress.documents(feed, TOLD_WITHIN).await)
    }

    async fn close(&mut self) -> Result<(), Error> {
        self.tables.clear();
        self.ahead = ReadAhead::default();
        if let Some(connection) = self.connection.take() {
            tokio::task::spawn_blocking(move || drop(connection)).await.map_err(|_| Error::Ended)?;
        }
        Ok(())
    }
}
