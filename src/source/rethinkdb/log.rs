//! The open log: reads the store's log page by page, and gives its changes to the emitter.

use super::collection::Failure;
use super::document::Document;
use super::error::Error;
use super::server_error::shown;
use super::store::{LogPage, LogRow, StoredTable, Watched, WriterClient};
use super::token::LogPosition;
use crate::event::{FeedId, Operation, RowError};
use crate::feed::Feeds;
use crate::source::{Definition, Emission, Emitter, Filled, Shape, Source, SourceProgress};
use rusqlite::Connection;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The reading connection, the page that was read, and the tables that it may name.
type PageRead = Result<(Connection, LogPage, Vec<StoredTable>), Error>;

/// The open log of one store.
pub struct Log {
    pub(super) feeds: Arc<Feeds>,
    /// The database, which is the schema of its tables.
    pub(super) schema: String,
    pub(super) path: PathBuf,
    /// Every row before it is in a batch, or is not published.
    pub(super) position: LogPosition,
    pub(super) page: LogPage,
    /// Where the page ends: every row before it was read.
    pub(super) read: i64,
    /// Lent to the thread that reads.
    pub(super) connection: Option<Connection>,
    /// A page that is being read. If a call is cancelled, the next one waits for it.
    pub(super) reading: Option<JoinHandle<PageRead>>,
    /// By the table's number in the store.
    pub(super) tables: HashMap<i64, PublishedTable>,
    pub(super) watched: watch::Receiver<Watched>,
    pub(super) writer: WriterClient,
    pub(super) failure: Failure,
    /// The error that the next call returns: what was written before it is handed over first.
    pub(super) pending: Option<Error>,
}

/// A table of the store.
pub(super) struct PublishedTable {
    /// The feed that publishes it.
    feed: Option<FeedId>,
    shape: Shape<Definition>,
}

impl Log {
    /// Writes rows of the page until it ends, the batch is full, or a row lies at or beyond the limit.
    async fn write(&mut self, out: &mut Emitter<'_, LogPosition>, limit: i64) -> Result<Option<Filled>, Error> {
        loop {
            let Some(row) = self.page.peek() else {
                // Numbers without a row are passed too, but never beyond the limit.
                self.position.next = self.position.next.max(self.read.min(limit));
                return Ok((limit <= self.read).then_some(Filled::Reached));
            };
            if limit <= row.seq {
                self.position.next = self.position.next.max(limit);
                return Ok(Some(Filled::Reached));
            }
            if out.is_full() {
                return Ok(Some(Filled::Full));
            }
            let change = LogPosition { next: row.seq, ..self.position };
            match self.tables.get_mut(&row.tid) {
                Some(PublishedTable { feed: Some(feed), shape }) => {
                    let name = &self.feeds.get(*feed).name;
                    let written = publish(row, change, shape, &self.feeds, *feed, out).await;
                    written.map_err(|failed| failed.of(row, shape.primary_key(), name))?;
                }
                _ => out.skip(row.operation),
            }
            self.position.next = row.seq + 1;
            self.page.advance();
        }
    }

    /// Reads the next page on a thread that may block. Cancel safe.
    async fn read_page(&mut self) -> Result<(), Error> {
        if self.reading.is_none() {
            let from = self.read;
            let (connection, path) = (self.connection.take().ok_or(Error::Ended)?, self.path.clone());
            let mut page = std::mem::take(&mut self.page);
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let failed = |source| Error::store("read the tables of", &path, source);
                let tables = StoredTable::all(&connection).map_err(failed)?;
                page.read(&connection, &path, from)?;
                Ok((connection, page, tables))
            }));
        }
        let Some(reading) = &mut self.reading else { return Ok(()) };
        let read = reading.await;
        self.reading = None;
        let (connection, page, tables) = read.map_err(|_| Error::Ended)??;
        self.connection = Some(connection);
        self.read = self.read.max(page.end());
        self.page = page;
        for StoredTable { id, name, primary_key, .. } in tables {
            let is_known = self.tables.get(&id).is_some_and(|known| known.shape.primary_key() == primary_key);
            if !is_known {
                let feed = self.feeds.of_table(&self.schema, &name).map(|feed| feed.id);
                self.tables.insert(id, PublishedTable { feed, shape: Shape::new(&primary_key, &[]) });
            }
        }
        Ok(())
    }

    async fn fill_until(&mut self, out: &mut Emitter<'_, LogPosition>, limit: i64, from: i64) -> Result<Filled, Error> {
        loop {
            if self.reading.is_some() {
                self.read_page().await?;
            }
            if let Some(filled) = self.write(out, limit).await? {
                return Ok(filled);
            }
            if self.read < self.watched.borrow_and_update().next {
                self.read_page().await?;
                continue;
            }
            if from < self.position.next {
                return Ok(Filled::Drained);
            }
            tokio::select! {
                error = self.failure.wait() => return Err(error),
                changed = self.watched.changed() => changed.map_err(|_| Error::Ended)?,
            }
        }
    }
}

/// Why a row could not be published.
enum PublishFailure {
    Row(RowError),
    Failed(Error),
}

impl From<RowError> for PublishFailure {
    fn from(error: RowError) -> Self {
        Self::Row(error)
    }
}

impl PublishFailure {
    fn of(self, row: LogRow<'_>, primary_key: &str, table: &str) -> Error {
        match self {
            Self::Failed(error) => error,
            Self::Row(source) => {
                let document = row.new.or(row.old).unwrap_or_default();
                let key = Document::parse(document).ok().and_then(|document| document.field(primary_key)).unwrap_or_default();
                Error::Row { table: table.to_owned(), key: shown(key).chars().take(60).collect(), source }
            }
        }
    }
}

/// Gives one change to the emitter. Cancel safe: before anything is written.
async fn publish(
    row: LogRow<'_>,
    change: LogPosition,
    shape: &mut Shape<Definition>,
    feeds: &Feeds,
    feed: FeedId,
    out: &mut Emitter<'_, LogPosition>,
) -> Result<(), PublishFailure> {
    let old = row.old.map(Document::parse).transpose()?;
    let new = row.new.map(Document::parse).transpose()?;
    [&old, &new].into_iter().flatten().for_each(|document| shape.admit(document.names()));
    if shape.prepared().is_none() {
        let relation = shape.relation(feeds.get(feed));
        let prepared = out.prepare(&relation).await.map_err(|error| PublishFailure::Failed(error.into()))?;
        shape.set_prepared(prepared);
    }
    let Some(definition) = shape.prepared() else { return Ok(()) };
    out.go_to(change.prefix().as_ref(), row.received_at);
    let Some(admitted) = out.admit(definition, row.operation, row.seq, 0) else { return Ok(()) };
    let admitted = if row.is_compensating { admitted.found_by_comparison() } else { admitted };
    let (columns, primary_key) = (shape.columns(), shape.primary_key());
    let is_same_key = key_of(old.as_ref(), primary_key) == key_of(new.as_ref(), primary_key);
    let old = old.as_ref().map(|document| document.row(columns, primary_key));
    let new = new.as_ref().map(|document| document.row(columns, primary_key));
    match (row.operation, old, new) {
        (Operation::Update, Some(old), Some(new)) if is_same_key => admitted.update(Some(old), new)?,
        // The same document under another spelling of its key: a reader compares spellings.
        (Operation::Update, Some(old), Some(new)) => admitted.change_key(old, Some(old), new)?,
        (Operation::Delete, Some(old), _) => admitted.delete(old, Some(old))?,
        (_, _, Some(new)) => admitted.insert(new)?,
        _ => return Err(RowError::Malformed { what: "a change of the local store has no document" }.into()),
    }
    Ok(())
}

/// The key of a document, as the server wrote it.
fn key_of<'d>(document: Option<&Document<'d>>, primary_key: &str) -> Option<&'d str> {
    document?.field(primary_key)
}

impl Source for Log {
    type Error = Error;
    type Token = LogPosition;

    const HEARTBEAT: Duration = Duration::from_secs(5);
    const FINDS_CHANGES_LATE: bool = true;

    async fn fill(&mut self, out: &mut Emitter<'_, LogPosition>, until: Option<&LogPosition>) -> Result<Filled, Error> {
        if let Some(failure) = self.pending.take() {
            return Err(failure);
        }
        let from = self.position.next;
        match self.fill_until(out, until.map_or(i64::MAX, |until| until.next), from).await {
            // What was written before the failure is handed over first.
            Err(failure) if from < self.position.next => {
                self.pending = Some(failure);
                Ok(Filled::Drained)
            }
            other => other,
        }
    }

    fn progress(&mut self, _written: &Emission<LogPosition>) -> SourceProgress {
        SourceProgress { token: self.position.token(), table_changes: Vec::new() }
    }

    async fn acknowledge(&mut self, durable: Option<&LogPosition>, _written: &Emission<LogPosition>) -> Result<(), Error> {
        // While the log is held, nobody else asks.
        self.failure.check()?;
        let Some(durable) = durable.filter(|durable| durable.epoch == self.position.epoch) else { return Ok(()) };
        self.writer.trim(durable.next)
    }
}
