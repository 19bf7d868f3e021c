//! Existing rows, read under one read transaction. Its position in the log is exact, because SQLite has one writer at a time.

use crate::checkpoint::ScanPosition;
use crate::event::{FeedId, RowError, Timestamp};
use crate::format::Encoder;
use crate::source::prefeed::{Cut, Opened, Prefeed, Scanned, ToRead};
use crate::source::rows::RowEmitter;
use crate::source::sqlite::database::Database;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::estimate;
use crate::source::sqlite::log_row::Heading;
use crate::source::sqlite::open;
use crate::source::sqlite::page::Page;
use crate::source::sqlite::row::{KeyError, RowView};
use crate::source::sqlite::scan::{self, KeyValue};
use crate::source::sqlite::schema;
use crate::source::sqlite::table::TableSchema;
use crate::source::sqlite::token::LogPosition;
use crate::status::metrics::SourceMetrics;
use rusqlite::{Connection, params_from_iter};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Reads existing rows.
pub struct Rows {
    database: Database,
    metrics: SourceMetrics,
    /// The connection with the read transaction, lent to the thread that reads.
    connection: Option<Connection>,
    tables: HashMap<FeedId, SnapshotTable>,
    ahead: ReadAhead,
    /// The key of the last row written, encoded as in a page.
    last_key: Vec<u8>,
}

/// A table as the snapshot shows it.
struct SnapshotTable {
    schema: Arc<TableSchema>,
    fingerprint: String,
    /// Prepared before its first row is written.
    encoder: Option<Encoder>,
}

/// Rows that were read and are not written yet.
#[derive(Default)]
struct ReadAhead {
    page: Page,
    /// Their feed, and the position of the row before them.
    begins: Option<(FeedId, Option<ScanPosition>)>,
    /// Whether the table ends with the page.
    is_last: bool,
}

impl Rows {
    pub(super) fn new(database: Database, metrics: SourceMetrics) -> Self {
        Self { database, metrics, connection: None, tables: HashMap::new(), ahead: ReadAhead::default(), last_key: Vec::new() }
    }

    /// Lends the connection to a thread. If the call is cancelled, the thread closes it: the snapshot is lost, and the next call fails.
    async fn on_snapshot<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Database, &mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut connection = self.connection.take().ok_or(Error::NoSnapshot)?;
        let database = self.database.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&database, &mut connection);
            (connection, done)
        });
        let (connection, done) = worked.await.map_err(|_| Error::Ended)?;
        self.connection = Some(connection);
        done
    }

    /// Reads the feed's table definition, once per snapshot.
    async fn describe(&mut self, feed: FeedId) -> Result<(), Error> {
        if self.tables.contains_key(&feed) {
            return Ok(());
        }
        let read =
            move |database: &Database, connection: &mut Connection| schema::describe(connection, &database.path, database.feeds.get(feed));
        let schema = self.on_snapshot(read).await?;
        let fingerprint = scan::fingerprint(&schema);
        self.tables.insert(feed, SnapshotTable { schema: Arc::new(schema), fingerprint, encoder: None });
        Ok(())
    }

    /// Prepares the feed's encoder, once per snapshot.
    async fn prepare(&mut self, feed: FeedId, out: &RowEmitter<'_>) -> Result<(), Error> {
        self.describe(feed).await?;
        let Some(table) = self.tables.get_mut(&feed).filter(|table| table.encoder.is_none()) else { return Ok(()) };
        table.encoder = Some(out.prepare(&table.schema.layout.relation(feed)).await?);
        Ok(())
    }

    /// Reads the next page behind `key`.
    async fn read(&mut self, schema: Arc<TableSchema>, key: Option<Vec<KeyValue>>) -> Result<(), Error> {
        let mut page = std::mem::take(&mut self.ahead.page);
        page.clear();
        let (page, is_last) = self
            .on_snapshot(move |database, connection| {
                let is_last = read_page(database, connection, &schema, key.as_deref(), &mut page)?;
                Ok((page, is_last))
            })
            .await?;
        self.metrics.bytes.inc_by(page.size_bytes() as u64);
        self.ahead.page = page;
        self.ahead.is_last = is_last;
        Ok(())
    }
}

impl Prefeed for Rows {
    type Error = Error;

    /// An open read transaction blocks nobody in WAL mode, but it pins the `-wal` file, which grows with each write.
    const SLICE_MAX: Duration = Duration::from_secs(1);

    async fn open(&mut self, feeds: &[ToRead], _within: Duration) -> Result<Opened, Error> {
        self.close().await?;
        let database = self.database.clone();
        let opened = tokio::task::spawn_blocking(move || open_snapshot(&database)).await.map_err(|_| Error::Ended)?;
        let (connection, cut) = opened?;
        let opened_at = Timestamp::now();
        self.connection = Some(connection);
        for feed in feeds {
            self.describe(feed.feed).await?;
        }
        Ok(Opened::Cut(Cut { token: cut.token(), opened_at }))
    }

    async fn scan(&mut self, feed: FeedId, after: Option<&ScanPosition>, out: &mut RowEmitter<'_>) -> Result<Scanned, Error> {
        self.prepare(feed, out).await?;
        let (schema, fingerprint) = {
            let table = &self.tables[&feed];
            (Arc::clone(&table.schema), table.fingerprint.clone())
        };
        if self.ahead.begins.as_ref().is_none_or(|(ahead, begins)| *ahead != feed || begins.as_ref() != after) {
            let key = after.and_then(|after| scan::after(after, &fingerprint));
            self.read(Arc::clone(&schema), key).await?;
        }
        self.ahead.begins = None;
        let before = out.written();
        let done = loop {
            self.write(feed, out)?;
            if !self.ahead.page.is_empty() {
                break false;
            }
            if self.ahead.is_last {
                break true;
            }
            let key = self.key(&schema)?;
            self.read(Arc::clone(&schema), Some(key)).await?;
        };
        let position = if out.written() == before { None } else { Some(scan::position(&fingerprint, &self.key(&schema)?)) };
        if !done {
            self.ahead.begins = Some((feed, position.clone().or_else(|| after.cloned())));
        }
        Ok(Scanned { after: position, done })
    }

    async fn close(&mut self) -> Result<(), Error> {
        self.tables.clear();
        self.ahead = ReadAhead::default();
        if let Some(connection) = self.connection.take() {
            // Closing the last connection writes the `-wal` file back, which takes time.
            tokio::task::spawn_blocking(move || drop(connection)).await.map_err(|_| Error::Ended)?;
        }
        Ok(())
    }

    async fn expected_rows(&mut self, feed: FeedId) -> Result<Option<u64>, Error> {
        let database = self.database.clone();
        tokio::task::spawn_blocking(move || estimate::expected_rows(&database.path, database.feeds.get(feed)))
            .await
            .map_err(|_| Error::Ended)?
    }
}

impl Rows {
    /// Writes the rows that were read, until the batch is full.
    fn write(&mut self, feed: FeedId, out: &mut RowEmitter<'_>) -> Result<(), Error> {
        let SnapshotTable { schema, encoder, .. } = &self.tables[&feed];
        let encoder = encoder.as_ref().ok_or(Error::NoSnapshot)?;
        let layout = &schema.layout;
        let failed = |source| Error::Row { table: layout.table.clone(), source };
        while !out.is_full() {
            let Some((_, values)) = self.ahead.page.peek().map_err(failed)? else { break };
            let row = RowView::whole(&layout.columns, values);
            row.check_key().map_err(|error| match error {
                KeyError::Null => Error::NullKey { table: layout.table.clone() },
                KeyError::Row(source) => failed(source),
            })?;
            out.write(encoder, row).map_err(failed)?;
            row.copy_key(&mut self.last_key).map_err(failed)?;
            self.ahead.page.advance();
        }
        Ok(())
    }

    /// The key of the last row written.
    fn key(&self, schema: &TableSchema) -> Result<Vec<KeyValue>, Error> {
        let failed = |source: RowError| Error::Row { table: schema.layout.table.clone(), source };
        scan::key_values(&self.last_key).map_err(failed)
    }
}

fn open_snapshot(database: &Database) -> Result<(Connection, LogPosition), Error> {
    let failed = |source| Error::sqlite("open a snapshot", &database.path, source);
    let (connection, _) = open::open(&database.path)?;
    connection.execute_batch("BEGIN").map_err(failed)?;
    // The first read decides what the transaction shows, of the rows and of the log.
    let history = database.history(&connection);
    let next = database.checked.check_newest(&history)?;
    let cut = LogPosition { epoch: history.origin()?.epoch, next, last: history.before(next)? };
    Ok((connection, cut))
}

/// Fills the page in key order. Returns whether the table ends there.
fn read_page(
    database: &Database,
    connection: &Connection,
    schema: &TableSchema,
    key: Option<&[KeyValue]>,
    page: &mut Page,
) -> Result<bool, Error> {
    let failed = |source| Error::sqlite("read existing rows", &database.path, source);
    let mut statement = connection.prepare_cached(&scan::select(schema, key.is_some())).map_err(failed)?;
    let mut rows = statement.query(params_from_iter(key.unwrap_or_default())).map_err(failed)?;
    let columns = schema.layout.columns.len();
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
