//! Existing rows, read under one read transaction whose place in the log is exact: a single writer makes it so.

use crate::batch::BatchWriter;
use crate::checkpoint::ScanPosition;
use crate::event::{Event, FeedId, Operation, RowError, Timestamp};
use crate::feed::{Feed, Feeds};
use crate::format::{Encoder, Format};
use crate::source::file::{self, Dataset};
use crate::source::sqlite::capture::Names;
use crate::source::sqlite::history::{History, Proved};
use crate::source::sqlite::page::{Heading, Page};
use crate::source::sqlite::row::{KeyError, View};
use crate::source::sqlite::scan::{self, KeyValue};
use crate::source::sqlite::schema::{self, Shape};
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::{self, LogPosition};
use crate::source::sqlite::{Error, error, identity};
use crate::source::{Cut, Opened as Attempt, Prefeed, RowPositions, Scanned, Slice, ToRead};
use crate::status::metrics::SourceMetrics;
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Reads existing rows.
pub struct Rows {
    pub(super) reading: Reading,
    pub(super) format: Format,
    pub(super) metrics: SourceMetrics,
    /// The connection with its read transaction; lent to the thread that reads.
    connection: Option<Connection>,
    snapshot: Option<Snapshot>,
    tables: HashMap<FeedId, Opened>,
    ahead: Ahead,
    last_key: Vec<u8>,
    dataset: Dataset,
}

/// What a reading thread needs.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) path: PathBuf,
    pub(super) names: Names,
    pub(super) feeds: Arc<Feeds>,
    /// What the open log is.
    pub(super) proved: Proved,
}

#[derive(Clone, Copy)]
struct Snapshot {
    cut: LogPosition,
    opened_at: Timestamp,
}

/// A table as the snapshot shows it.
struct Opened {
    shape: Arc<Shape>,
    fingerprint: String,
    encoder: Encoder,
}

/// Rows that were read and not yet written.
#[derive(Default)]
struct Ahead {
    page: Page,
    /// Which table, and behind which row they begin.
    place: Option<(FeedId, Option<ScanPosition>)>,
    /// Whether the table ends with the page.
    last: bool,
}

impl Rows {
    pub(super) fn new(reading: Reading, format: Format, metrics: SourceMetrics) -> Self {
        Self {
            dataset: Dataset::new(format.clone()),
            reading,
            format,
            metrics,
            connection: None,
            snapshot: None,
            tables: HashMap::new(),
            ahead: Ahead::default(),
            last_key: Vec::new(),
        }
    }

    /// Lends the connection to a thread. Cancelled, it is closed there: the snapshot is then gone, and says so.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Reading, &mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut connection = self.connection.take().ok_or(Error::NoSnapshot)?;
        let reading = self.reading.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&reading, &mut connection);
            (connection, done)
        });
        let (connection, done) = worked.await.map_err(|_| Error::Ended)?;
        self.connection = Some(connection);
        done
    }

    async fn learn(&mut self, feed: FeedId) -> Result<(), Error> {
        if self.tables.contains_key(&feed) {
            return Ok(());
        }
        let shape = self.with(move |reading, connection| schema::describe(connection, &reading.path, reading.feeds.get(feed))).await?;
        let encoder = self.format.prepare(&shape.layout.relation(feed)).await;
        let encoder = encoder.map_err(|source| Error::Row { table: shape.layout.table.clone(), source })?;
        let fingerprint = scan::fingerprint(&shape);
        self.tables.insert(feed, Opened { shape: Arc::new(shape), fingerprint, encoder });
        Ok(())
    }

    /// Reads the next page behind `key`.
    async fn read(&mut self, shape: Arc<Shape>, key: Option<Vec<KeyValue>>) -> Result<(), Error> {
        let mut page = std::mem::take(&mut self.ahead.page);
        page.clear();
        let (page, last) = self
            .with(move |reading, connection| {
                let last = read_page(reading, connection, &shape, key.as_deref(), &mut page)?;
                Ok((page, last))
            })
            .await?;
        self.metrics.bytes.inc_by(page.size_bytes() as u64);
        self.ahead.page = page;
        self.ahead.last = last;
        Ok(())
    }
}

impl Prefeed for Rows {
    type Error = Error;

    /// An open read transaction pins the `-wal` file, which grows with each write meanwhile.
    const SLICE_MAX: Duration = Duration::from_secs(1);

    async fn open(&mut self, feeds: &[ToRead], _within: Duration) -> Result<Attempt, Error> {
        self.close().await?;
        let reading = self.reading.clone();
        let opened = tokio::task::spawn_blocking(move || open(&reading)).await.map_err(|_| Error::Ended)?;
        let (connection, cut) = opened?;
        let snapshot = Snapshot { cut, opened_at: Timestamp::now() };
        self.connection = Some(connection);
        self.snapshot = Some(snapshot);
        for feed in feeds {
            self.learn(feed.feed).await?;
        }
        Ok(Attempt::Cut(Cut { token: cut.token(), opened_at: snapshot.opened_at }))
    }

    async fn reset(&mut self, feed: FeedId, cut: &Cut, slice: &mut Slice, out: &mut BatchWriter) -> Result<(), Error> {
        let position = slice.positions(&token::spelled(LogPosition::parse(&cut.token)?)).of(slice.take_row());
        let feed = self.reading.feeds.get(feed);
        let written = self.format.write_reset(feed, position, cut.opened_at, out).await;
        written.map_err(|source| Error::Row { table: feed.table.clone(), source })
    }

    async fn load(
        &mut self,
        feed: FeedId,
        cut: &Cut,
        after: Option<&ScanPosition>,
        slice: &mut Slice,
        out: &mut BatchWriter,
    ) -> Result<Scanned, Error> {
        let place = token::spelled(LogPosition::parse(&cut.token)?);
        Ok(self.dataset.load(self.reading.feeds.get(feed), &place, cut, after, slice, out).await?)
    }

    async fn scan(
        &mut self,
        feed: FeedId,
        after: Option<&ScanPosition>,
        slice: &mut Slice,
        out: &mut BatchWriter,
    ) -> Result<Scanned, Error> {
        let snapshot = self.snapshot.ok_or(Error::NoSnapshot)?;
        self.learn(feed).await?;
        let (shape, fingerprint) = {
            let table = &self.tables[&feed];
            (Arc::clone(&table.shape), table.fingerprint.clone())
        };
        if self.ahead.place.as_ref().is_none_or(|(ahead, place)| *ahead != feed || place.as_ref() != after) {
            let key = after.and_then(|after| scan::after(after, &fingerprint));
            self.read(Arc::clone(&shape), key).await?;
        }
        self.ahead.place = None;
        let positions = slice.positions(&token::spelled(snapshot.cut));
        let mut rows = 0;
        let done = loop {
            let wrote = self.write(feed, snapshot, &positions, slice, out)?;
            rows += wrote;
            if !self.ahead.page.is_empty() {
                break false;
            }
            if self.ahead.last {
                break true;
            }
            let key = self.key(&shape)?;
            self.read(Arc::clone(&shape), Some(key)).await?;
        };
        self.metrics.add_events(Operation::Read, rows);
        let position = if rows == 0 { None } else { Some(scan::position(&fingerprint, &self.key(&shape)?)) };
        if !done {
            self.ahead.place = Some((feed, position.clone().or_else(|| after.cloned())));
        }
        Ok(Scanned { after: position, rows, done })
    }

    async fn is_waited_for(&mut self) -> Result<bool, Error> {
        // A reader blocks nobody in WAL mode; what it pins is bounded by the slice.
        Ok(false)
    }

    async fn close(&mut self) -> Result<(), Error> {
        self.snapshot = None;
        self.tables.clear();
        self.ahead = Ahead::default();
        if let Some(connection) = self.connection.take() {
            // Closing may write the `-wal` file back, where nobody else has it open.
            tokio::task::spawn_blocking(move || drop(connection)).await.map_err(|_| Error::Ended)?;
        }
        Ok(())
    }

    async fn expected_rows(&mut self, feed: FeedId) -> Result<Option<u64>, Error> {
        if let Some(rows) = file::expected_rows(self.reading.feeds.get(feed)) {
            return Ok(Some(rows));
        }
        let reading = self.reading.clone();
        tokio::task::spawn_blocking(move || expected_rows(&reading, reading.feeds.get(feed))).await.map_err(|_| Error::Ended)?
    }
}

impl Rows {
    /// Writes the rows that were read until the batch is full; returns how many.
    fn write(
        &mut self,
        feed: FeedId,
        snapshot: Snapshot,
        positions: &RowPositions,
        slice: &mut Slice,
        out: &mut BatchWriter,
    ) -> Result<u64, Error> {
        let table = &self.tables[&feed];
        let layout = &table.shape.layout;
        let failed = |source| Error::Row { table: layout.table.clone(), source };
        let mut rows = 0;
        while !out.is_full() {
            let Some((_, values)) = self.ahead.page.peek().map_err(failed)? else { break };
            let row = View::whole(&layout.columns, values);
            row.check_key().map_err(|error| match error {
                KeyError::Null => Error::NullKey { table: layout.table.clone() },
                KeyError::Row(source) => failed(source),
            })?;
            let event = Event {
                operation: Operation::Read,
                position: positions.of(slice.next_row),
                timestamp: snapshot.opened_at,
                transaction: None,
                key: Some(row),
                before: None,
                after: Some(row),
                counterpart: None,
            };
            table.encoder.write(&event, out).map_err(failed)?;
            row.copy_key(&mut self.last_key).map_err(failed)?;
            slice.next_row += 1;
            rows += 1;
            self.ahead.page.advance();
        }
        Ok(rows)
    }

    /// The key of the last row written.
    fn key(&self, shape: &Shape) -> Result<Vec<KeyValue>, Error> {
        let failed = |source: RowError| Error::Row { table: shape.layout.table.clone(), source };
        scan::key_values(&self.last_key).map_err(failed)
    }
}

fn open(reading: &Reading) -> Result<(Connection, LogPosition), Error> {
    let failed = |source| error::Error::sqlite("open a snapshot", &reading.path, source);
    let (connection, _) = identity::open(&reading.path)?;
    connection.execute_batch("BEGIN").map_err(failed)?;
    // The first read fixes what the transaction shows: rows and log alike.
    let history = History { connection: &connection, names: &reading.names, path: &reading.path };
    let next = reading.proved.check_newest(&history)?;
    let place = LogPosition { epoch: history.origin()?.epoch, next, last: history.before(next)? };
    Ok((connection, place))
}

/// Fills the page in key order; returns whether the table ends there.
fn read_page(reading: &Reading, connection: &Connection, shape: &Shape, key: Option<&[KeyValue]>, page: &mut Page) -> Result<bool, Error> {
    let failed = |source| error::Error::sqlite("read existing rows", &reading.path, source);
    let mut statement = connection.prepare_cached(&scan::select(shape, key.is_some())).map_err(failed)?;
    let mut rows = statement.query(params_from_iter(key.unwrap_or_default())).map_err(failed)?;
    let columns = shape.layout.columns.len();
    while !page.is_full() {
        let Some(row) = rows.next().map_err(failed)? else { return Ok(true) };
        page.push(Heading { seq: 0, tid: 0, op: 0, at: 0 }, |values| {
            (0..columns).try_for_each(|index| {
                values.push(row.get_ref(index)?);
                Ok(())
            })
        })
        .map_err(failed)?;
    }
    Ok(false)
}

/// From the analyst's statistics or else from the span of row numbers; counting would read the whole table.
/// Counts a table that is counted at once; of a larger one tells what statistics say, or how far its row numbers reach.
fn expected_rows(reading: &Reading, feed: &Feed) -> Result<Option<u64>, Error> {
    const COUNTED_MAX: u64 = 1_000_000;
    let (connection, _) = identity::open(&reading.path)?;
    let count = format!("SELECT count(*) FROM (SELECT 1 FROM main.{} LIMIT {})", quoted(&feed.table), COUNTED_MAX + 1);
    let counted: rusqlite::Result<i64> = connection.query_row(&count, [], |row| row.get(0));
    if let Some(rows) = counted.ok().and_then(|rows| u64::try_from(rows).ok()).filter(|rows| *rows <= COUNTED_MAX) {
        return Ok(Some(rows));
    }
    let statistics: rusqlite::Result<Option<String>> = connection
        .query_row("SELECT stat FROM main.sqlite_stat1 WHERE tbl = ?1 LIMIT 1", [feed.table.as_ref()], |row| row.get(0))
        .optional();
    if let Some(count) = statistics.ok().flatten().and_then(|text| text.split(' ').next()?.parse().ok()) {
        return Ok(Some(count));
    }
    let span = format!("SELECT max(rowid) - min(rowid) + 1 FROM main.{}", quoted(&feed.table));
    let span: rusqlite::Result<Option<i64>> = connection.query_row(&span, [], |row| row.get(0));
    // A table without row numbers tells nothing cheaply; an empty one has no span.
    Ok(span.ok().map(|span| u64::try_from(span.unwrap_or(0)).unwrap_or(0)))
}
