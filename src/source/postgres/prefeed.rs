//! The prefeed: reads existing rows with several sessions under one snapshot, whose log position is known exactly.

use super::error::Error;
use super::options::Options;
use super::quote::table as named;
use super::types::Types;
use crate::checkpoint::ScanPosition;
use crate::event::{FeedId, Position, RowError};
use crate::feed::Feeds;
use crate::format::Encoder;
use crate::source::{Cut, KeyRange, KeyRanges, Opened, Prefeed, RowEmitter, Scanned, ToRead};
use crate::status::metrics::SourceMetrics;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

mod describe;
mod estimate;
mod finished;
pub(super) mod order;
pub(super) mod query;
mod ranges;
mod reader;
mod row;
mod snapshot;
mod table;
pub(super) mod watch;

use estimate::Estimate;
use reader::{NextRow, Reader};
use row::AnswerRow;
use snapshot::{Blocked, Snapshot};
use table::Table;
use watch::Watcher;

/// About how many bytes of a table are sampled to choose the ranges.
const SAMPLED_BYTES: f64 = (1 << 20) as f64;

/// Reads existing rows of PostgreSQL tables and queries.
pub struct Rows {
    options: Options,
    feeds: Arc<Feeds>,
    metrics: SourceMetrics,
    watcher: Watcher,
    types: Types,
    /// Reused from slice to slice.
    readers: Vec<Reader>,
    estimates: HashMap<FeedId, Estimate>,
    opened: Option<OpenSlice>,
}

/// The state of an open slice.
struct OpenSlice {
    snapshot: Snapshot,
    tables: HashMap<FeedId, Table>,
    /// Of the tables that were read under this snapshot.
    encoders: HashMap<FeedId, Encoder>,
    /// Feeds that no reader has started, in reading order.
    pending: VecDeque<ToRead>,
    scans: HashMap<FeedId, KeyRanges>,
    /// Decides which reader is polled first; changes with each call.
    turn: usize,
    /// Whether another session waits for one of our locks. Nothing more is read then.
    waited_for: bool,
}

impl Rows {
    pub(super) async fn new(options: Options, feeds: Arc<Feeds>, metrics: SourceMetrics) -> Result<Self, Error> {
        let mut watcher = Watcher::open(&options).await?;
        let estimates = estimate::all(&feeds, &mut watcher.session).await?;
        let types = Types::default();
        Ok(Self { options, feeds, metrics, watcher, types, readers: Vec::new(), estimates, opened: None })
    }

    /// Imports the snapshot in all readers and describes the tables under it.
    async fn import_snapshot(&mut self, snapshot: Snapshot, feeds: &[ToRead]) -> Result<(), Error> {
        for reader in &mut self.readers {
            reader.import(&snapshot).await?;
        }
        let wanted: Vec<_> = feeds.iter().map(|feed| feed.feed).collect();
        let tables = match self.readers.first_mut() {
            Some(reader) if !wanted.is_empty() => {
                let session = reader.session();
                describe::describe(&self.options, &self.feeds, &wanted, &mut self.types, session).await?
            }
            _ => HashMap::new(),
        };
        let (pending, scans) = (feeds.iter().cloned().collect(), HashMap::new());
        self.opened = Some(OpenSlice { snapshot, tables, encoders: HashMap::new(), pending, scans, turn: 0, waited_for: false });
        Ok(())
    }

    /// Gives each free reader the next range of the feed or, when the feed has none left, a range of the next pending feed.
    async fn assign_ranges(&mut self, feed: FeedId) -> Result<(), Error> {
        for reader in &mut self.readers {
            let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
            let mut current = feed;
            while reader.is_free() {
                if let Some((number, range)) = opened.scans.get(&current).and_then(KeyRanges::next) {
                    reader.begin(current, number, &ranges::select(&opened.tables[&current], range)).await?;
                    opened.scans.get_mut(&current).ok_or(NO_SNAPSHOT)?.start_next();
                } else {
                    let Some(next) = opened.pending.pop_front() else { break };
                    current = next.feed;
                    let table = &opened.tables[&current];
                    let size = self.estimates.get(&current).copied().unwrap_or_default();
                    let ranges = match next.after.as_ref().map(|after| ranges::resume(table, after)) {
                        Some(Some(ranges)) => ranges,
                        unusable => {
                            if unusable.is_some() {
                                tracing::warn!(table = %self.feeds.get(current).name, "the table's key changed: all its rows are read again");
                            }
                            KeyRanges::new(split(table, size, self.options.prefeed_readers, reader).await?)
                        }
                    };
                    opened.scans.insert(current, ranges);
                }
            }
        }
        Ok(())
    }

    /// Prepares the feed's encoder, once per snapshot.
    async fn prepare(&mut self, feed: FeedId, out: &RowEmitter<'_>) -> Result<(), Error> {
        let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
        if !opened.encoders.contains_key(&feed) {
            opened.encoders.insert(feed, out.prepare(&opened.tables[&feed].relation).await?);
        }
        Ok(())
    }

    /// Writes the rows of the feed that have arrived, until the batch is full. Returns whether a range ended.
    async fn write(&mut self, feed: FeedId, out: &mut RowEmitter<'_>) -> Result<bool, Error> {
        let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
        let (table, encoder) = (&opened.tables[&feed], &opened.encoders[&feed]);
        let scan = opened.scans.get_mut(&feed).ok_or(NO_SNAPSHOT)?;
        let failed = |position: Position, source: RowError| Error::Row {
            table: self.feeds.get(feed).name.to_string(),
            position: format!("{position:?}"),
            source,
        };
        let mut range_ended = false;
        opened.turn = opened.turn.wrapping_add(1);
        let (earlier, later) = self.readers.split_at_mut(opened.turn % self.options.prefeed_readers);
        for reader in later.iter_mut().chain(earlier) {
            let Some(range) = reader.range_of(feed) else { continue };
            while !out.is_full() {
                let frame = match reader.next().await.map_err(|error| query::explain_error(self.feeds.get(feed), error))? {
                    NextRow::Row(frame) => frame,
                    NextRow::Pending => break,
                    NextRow::Ended => {
                        scan.finish(range);
                        range_ended = true;
                        break;
                    }
                };
                let row = AnswerRow { kinds: &table.kinds, body: reader.body(&frame) };
                if let (true, Some(range)) = (table.is_query, scan.range_mut(range)) {
                    let key = ranges::key_of(table, row.body).map_err(|source| failed(out.next_position(), source))?;
                    query::check_key(self.feeds.get(feed), table, range.after.as_ref(), &key)?;
                    range.after = Some(key);
                }
                out.write(encoder, row).map_err(|source| failed(out.next_position(), source))?;
                reader.take(frame);
            }
            // Note where the range continues, before the next input overwrites the row's bytes.
            if let (Some(newest), Some(range)) = (reader.newest(), scan.range_mut(range)) {
                range.after = Some(ranges::key_of(table, newest).map_err(|source| failed(out.next_position(), source))?);
            }
        }
        Ok(range_ended)
    }

    /// Waits until a reader of the feed has more input. After each interval without any, checks whether another session waits for our locks.
    async fn wait(&mut self, feed: FeedId) -> Result<(), Error> {
        let interval = self.watcher.interval;
        let readers = &mut self.readers;
        let input = poll_fn(|context| {
            for reader in readers.iter_mut().filter(|reader| reader.range_of(feed).is_some()) {
                if let Poll::Ready(read) = reader.poll_input(context) {
                    return Poll::Ready(read);
                }
            }
            Poll::Pending
        });
        match timeout(interval, input).await {
            Ok(read) => {
                self.metrics.bytes.inc_by(read? as u64);
                self.metrics.message_received();
            }
            Err(_) => self.check_waiters().await?,
        }
        Ok(())
    }

    async fn check_waiters(&mut self) -> Result<(), Error> {
        let Some(opened) = &mut self.opened else { return Ok(()) };
        let ours: Vec<u32> = self.readers.iter().map(Reader::pid).chain(opened.snapshot.pids()).collect();
        if let Some(waiting) = self.watcher.waiting_for(&ours).await? {
            tracing::info!(waiting, "another session waits for a table that is being read: the slice ends here");
            opened.waited_for = true;
        }
        Ok(())
    }
}

const NO_SNAPSHOT: Error = Error::Protocol { what: "a snapshot before its rows are read" };

/// Splits a table into key ranges for several readers. A small table and a query stay one range.
async fn split(table: &Table, size: Estimate, readers: usize, reader: &mut Reader) -> Result<Vec<KeyRange>, Error> {
    let parts = KeyRange::parts(size.bytes, readers).filter(|_| !table.is_query);
    let Some(parts) = parts else { return Ok(vec![KeyRange::default()]) };
    #[expect(clippy::cast_precision_loss, reason = "a percentage of a table")]
    let percent = (100.0 * SAMPLED_BYTES / size.bytes as f64).clamp(0.0001, 100.0);
    let keys = reader.session().query(&ranges::sample(table, percent, parts)).await?;
    let key = |row: &super::session::Answer| (0..table.key.len()).map(|index| row.get(index).map(str::to_owned)).collect::<Option<_>>();
    Ok(KeyRange::between(keys.iter().filter_map(key).collect()))
}

impl Prefeed for Rows {
    type Error = Error;

    /// While a snapshot is held, vacuum cannot remove dead rows from any table of the database.
    const SLICE_MAX: Duration = Duration::from_mins(10);

    async fn open(&mut self, feeds: &[ToRead], within: Duration) -> Result<Opened, Error> {
        self.close().await?;
        // Connect first: no lock or snapshot is held meanwhile.
        while self.readers.len() < self.options.prefeed_readers {
            self.readers.push(Reader::open(&self.options).await?);
        }
        let mut tables = Vec::new();
        for feed in feeds.iter().map(|feed| self.feeds.get(feed.feed)) {
            match query::from_item(feed) {
                Some(from) => tables.extend(query::tables(feed, &from, &mut self.watcher.session).await?),
                None => tables.push(named(&feed.schema, &feed.table)),
            }
        }
        let snapshot = match snapshot::open(&self.options, &tables, within, &mut self.watcher).await {
            Ok(Ok(snapshot)) => snapshot,
            Ok(Err(Blocked { by })) => return Ok(Opened::Blocked { by }),
            Err(Error::Refused(error)) if error.sqlstate == UNDEFINED_TABLE => {
                return Err(Error::TableChanged {
                    table: error.message.split('"').nth(1).unwrap_or_default().to_owned(),
                    reason: "it was dropped before all its rows were read; remove it from the feeds".to_owned(),
                });
            }
            Err(error) => return Err(error),
        };
        let cut = Cut { token: snapshot.cut.into(), opened_at: snapshot.opened_at };
        self.import_snapshot(snapshot, feeds).await?;
        Ok(Opened::Cut(cut))
    }

    async fn scan(&mut self, feed: FeedId, after: Option<&ScanPosition>, out: &mut RowEmitter<'_>) -> Result<Scanned, Error> {
        self.prepare(feed, out).await?;
        loop {
            self.assign_ranges(feed).await?;
            let before = out.written();
            let range_ended = self.write(feed, out).await?;
            let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
            let done = opened.scans.get(&feed).is_some_and(KeyRanges::is_done);
            if done {
                opened.snapshot.check_held().await?;
            }
            if done || out.is_full() || opened.waited_for {
                let position = opened.scans.get(&feed).map(|scan| scan.position(&opened.tables[&feed].fingerprint));
                return Ok(Scanned { after: position.or_else(|| after.cloned()), done });
            }
            if out.written() == before && !range_ended {
                self.wait(feed).await?;
            }
        }
    }

    async fn is_waited_for(&mut self) -> Result<bool, Error> {
        self.check_waiters().await?;
        Ok(self.opened.as_ref().is_some_and(|opened| opened.waited_for))
    }

    async fn close(&mut self) -> Result<(), Error> {
        let Some(opened) = self.opened.take() else { return Ok(()) };
        // Release all sessions at the same time: another session may be waiting for their locks.
        let mut releasing: JoinSet<_> = std::mem::take(&mut self.readers).into_iter().map(Reader::release).collect();
        let released = opened.snapshot.release().await;
        while let Some(reader) = releasing.join_next().await {
            self.readers.extend(reader.ok().flatten());
        }
        released
    }

    async fn expected_rows(&mut self, feed: FeedId) -> Result<Option<u64>, Error> {
        if query::from_item(self.feeds.get(feed)).is_some() {
            return Ok(None);
        }
        Ok(self.estimates.get(&feed).map(|estimate| estimate.rows))
    }
}

/// SQLSTATE of a table that does not exist.
const UNDEFINED_TABLE: &str = "42P01";
