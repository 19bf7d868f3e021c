//! Existing rows, read by several sessions under one snapshot whose place in the log is exact.

use super::Options;
use super::error::Error;
use super::table as named;
use super::token::Token;
use super::types::Types;
use crate::batch::BatchWriter;
use crate::checkpoint::ScanPosition;
use crate::event::{Event, FeedId, Operation};
use crate::feed::Feeds;
use crate::format::Format;
use crate::source::file::{self, Dataset};
use crate::source::{Cut, Opened, Prefeed, Scanned, Slice, ToRead};
use crate::status::metrics::SourceMetrics;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

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
use ranges::Range;
use reader::{Next, Reader};
use row::AnswerRow;
use snapshot::{Blocked, Snapshot};
use table::Table;
use watch::Watcher;

/// A table from this size on is read by ranges of its key.
const DIVIDED_BYTES: u64 = 16 << 20;
/// Ranges for each reader: one that is done early takes the next.
const RANGES_A_READER: usize = 4;
/// About how many bytes of a table are looked at to find the ranges.
const SAMPLED_BYTES: f64 = (1 << 20) as f64;

/// Reads existing rows.
pub struct Rows {
    options: Options,
    feeds: Arc<Feeds>,
    format: Format,
    metrics: SourceMetrics,
    watcher: Watcher,
    types: Types,
    /// Kept from one slice to the next.
    readers: Vec<Reader>,
    estimates: HashMap<FeedId, Estimate>,
    opened: Option<OpenSlice>,
    dataset: Dataset,
}

/// What is open during a slice.
struct OpenSlice {
    snapshot: Snapshot,
    /// The cut as positions of rows begin with it.
    place: String,
    tables: HashMap<FeedId, Table>,
    /// Feeds that no reader has begun yet, in the order in which they are read.
    ahead: VecDeque<ToRead>,
    scans: HashMap<FeedId, Scan>,
    /// The reader that is listened to first, in turns.
    turn: usize,
    /// Whether somebody waits for a lock of ours: nothing more is read.
    waited_for: bool,
}

/// How far a feed's table is read.
#[derive(Debug, Default)]
struct Scan {
    /// Ranges that are not read to their end, by number.
    ranges: Vec<Option<Range>>,
    /// The first range that no reader has begun.
    next: usize,
}

impl Scan {
    fn new(ranges: Vec<Range>) -> Self {
        Self { ranges: ranges.into_iter().map(Some).collect(), next: 0 }
    }

    fn take_next(&mut self) -> Option<usize> {
        let range = self.next;
        self.ranges.get(range)?;
        self.next += 1;
        Some(range)
    }

    fn is_done(&self) -> bool {
        self.ranges.iter().all(Option::is_none)
    }
}

impl Rows {
    pub(super) async fn new(options: Options, feeds: Arc<Feeds>, format: Format, metrics: SourceMetrics) -> Result<Self, Error> {
        let mut watcher = Watcher::open(&options).await?;
        let estimates = estimate::all(&feeds, &mut watcher.session).await?;
        let types = Types::default();
        let dataset = Dataset::new(format.clone());
        Ok(Self { options, feeds, format, metrics, watcher, types, readers: Vec::new(), estimates, opened: None, dataset })
    }

    /// Lets all readers see the snapshot, and learns the tables from it.
    async fn enter(&mut self, snapshot: Snapshot, feeds: &[ToRead]) -> Result<(), Error> {
        let place = place(&snapshot.cut);
        for reader in &mut self.readers {
            reader.import(&snapshot).await?;
        }
        let wanted: Vec<_> = feeds.iter().map(|feed| feed.feed).collect();
        let tables = match self.readers.first_mut() {
            Some(reader) if !wanted.is_empty() => {
                let session = reader.session();
                table::describe(&self.options, &self.feeds, &wanted, &self.format, &mut self.types, session).await?
            }
            _ => HashMap::new(),
        };
        let (ahead, scans) = (feeds.iter().cloned().collect(), HashMap::new());
        self.opened = Some(OpenSlice { snapshot, place, tables, ahead, scans, turn: 0, waited_for: false });
        Ok(())
    }

    /// Gives each free reader the next range of the feed, or the first one of a feed that comes after it.
    async fn employ(&mut self, feed: FeedId) -> Result<(), Error> {
        for reader in &mut self.readers {
            let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
            let mut current = feed;
            while reader.is_free() {
                let range = opened.scans.get_mut(&current).and_then(Scan::take_next);
                if let Some(number) = range {
                    let (table, scan) = (&opened.tables[&current], &opened.scans[&current]);
                    let Some(range) = &scan.ranges[number] else { continue };
                    reader.begin(current, number, &ranges::select(table, range)).await?;
                } else {
                    let Some(next) = opened.ahead.pop_front() else { break };
                    current = next.feed;
                    let table = &opened.tables[&current];
                    let size = self.estimates.get(&current).copied().unwrap_or_default();
                    let ranges = match next.after.as_ref().map(|after| ranges::resume(table, after)) {
                        Some(Some(ranges)) => ranges,
                        unfit => {
                            if unfit.is_some() {
                                tracing::warn!(table = %self.feeds.get(current).name, "its key changed: its rows are read from the first again");
                            }
                            divide(table, size, self.options.prefeed_readers, reader).await?
                        }
                    };
                    opened.scans.insert(current, Scan::new(ranges));
                }
            }
        }
        Ok(())
    }

    /// Writes the rows of the feed that have come, until the batch is full; returns how many, and whether anything else moved.
    async fn write(&mut self, feed: FeedId, slice: &mut Slice, out: &mut BatchWriter) -> Result<(u64, bool), Error> {
        let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
        let positions = slice.positions(&opened.place);
        let table = &opened.tables[&feed];
        let scan = opened.scans.get_mut(&feed).ok_or(NO_SNAPSHOT)?;
        let failed = |position: u32, source| Error::Row {
            table: self.feeds.get(feed).name.to_string(),
            position: String::from_utf8_lossy(positions.of(position).as_bytes()).into_owned(),
            source,
        };
        let (mut rows, mut moved) = (0, false);
        opened.turn = opened.turn.wrapping_add(1);
        let (earlier, later) = self.readers.split_at_mut(opened.turn % self.options.prefeed_readers);
        for reader in later.iter_mut().chain(earlier) {
            let Some(range) = reader.range_of(feed) else { continue };
            while !out.is_full() {
                let frame = match reader.next().await.map_err(|error| query::blamed(self.feeds.get(feed), error))? {
                    Next::Row(frame) => frame,
                    Next::Pending => break,
                    Next::Ended => {
                        scan.ranges[range] = None;
                        moved = true;
                        break;
                    }
                };
                let number = slice.take_row();
                let row = AnswerRow { kinds: &table.kinds, body: reader.body(&frame) };
                if let (true, Some(range)) = (table.is_query, &mut scan.ranges[range]) {
                    let key = ranges::key_of(table, row.body).map_err(|source| failed(number, source))?;
                    query::check_key(self.feeds.get(feed), table, range.after.as_ref(), &key)?;
                    range.after = Some(key);
                }
                let event = Event {
                    operation: Operation::Read,
                    position: positions.of(number),
                    timestamp: opened.snapshot.opened_at,
                    transaction: None,
                    key: Some(row),
                    before: None,
                    after: Some(row),
                    counterpart: None,
                };
                table.encoder.write(&event, out).map_err(|source| failed(number, source))?;
                reader.take(frame);
                rows += 1;
            }
            // Before its bytes are gone: where the range goes on.
            if let (Some(newest), Some(range)) = (reader.newest(), &mut scan.ranges[range]) {
                range.after = Some(ranges::key_of(table, newest).map_err(|source| failed(slice.next_row, source))?);
            }
        }
        Ok((rows, moved))
    }

    /// Waits until a reader of the feed has more; looks meanwhile whether somebody waits for us.
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
            Err(_) => self.look().await?,
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Error> {
        let Some(opened) = &mut self.opened else { return Ok(()) };
        let ours: Vec<u32> = self.readers.iter().map(Reader::pid).chain(opened.snapshot.pids()).collect();
        if let Some(waiting) = self.watcher.waiting_for(&ours).await? {
            tracing::info!(waiting, "somebody waits for a table that is being read: the slice ends here");
            opened.waited_for = true;
        }
        Ok(())
    }
}

/// A place in the log as positions of the prefeed begin with it.
fn place(token: &Token) -> String {
    format!("{:08X}-{:016X}", token.timeline, token.boundary.0)
}

const NO_SNAPSHOT: Error = Error::Protocol { what: "a snapshot before its rows are read" };

/// Ranges of a table's key, for several readers; one where the table is small.
async fn divide(table: &Table, size: Estimate, readers: usize, reader: &mut Reader) -> Result<Vec<Range>, Error> {
    if readers < 2 || size.bytes < DIVIDED_BYTES || table.is_query {
        return Ok(vec![Range::default()]);
    }
    #[expect(clippy::cast_precision_loss, reason = "a share of a table")]
    let percent = (100.0 * SAMPLED_BYTES / size.bytes as f64).clamp(0.0001, 100.0);
    let keys = reader.session().query(&ranges::sample(table, percent, readers * RANGES_A_READER)).await?;
    let key = |row: &super::session::Answer| (0..table.key.len()).map(|index| row.get(index).map(str::to_owned)).collect::<Option<_>>();
    Ok(ranges::between(keys.iter().filter_map(key).collect()))
}

impl Prefeed for Rows {
    type Error = Error;

    /// Under a snapshot the server's vacuum leaves dead rows in all tables of the database.
    const SLICE_MAX: Duration = Duration::from_mins(10);

    async fn open(&mut self, feeds: &[ToRead], within: Duration) -> Result<Opened, Error> {
        self.close().await?;
        // Connections are made before anything is held.
        while self.readers.len() < self.options.prefeed_readers {
            self.readers.push(Reader::open(&self.options).await?);
        }
        let mut tables = Vec::new();
        for feed in feeds.iter().map(|feed| self.feeds.get(feed.feed)) {
            match query::derived(feed) {
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
        self.enter(snapshot, feeds).await?;
        Ok(Opened::Cut(cut))
    }

    async fn reset(&mut self, feed: FeedId, cut: &Cut, slice: &mut Slice, out: &mut BatchWriter) -> Result<(), Error> {
        let place = place(&Token::try_from(&cut.token)?);
        let position = slice.positions(&place).of(slice.take_row());
        let feed = self.feeds.get(feed);
        let written = self.format.write_reset(feed, position, cut.opened_at, out).await;
        written.map_err(|source| Error::Row { table: feed.name.to_string(), position: format!("{position:?}"), source })
    }

    async fn scan(
        &mut self,
        feed: FeedId,
        after: Option<&ScanPosition>,
        slice: &mut Slice,
        out: &mut BatchWriter,
    ) -> Result<Scanned, Error> {
        let mut rows = 0;
        loop {
            self.employ(feed).await?;
            let (wrote, moved) = self.write(feed, slice, out).await?;
            rows += wrote;
            let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
            let done = opened.scans.get(&feed).is_some_and(Scan::is_done);
            if done {
                opened.snapshot.check_held().await?;
            }
            if done || out.is_full() || opened.waited_for {
                self.metrics.add_events(Operation::Read, rows);
                let left = opened.scans.get(&feed).map(|scan| scan.ranges.iter().flatten());
                let position = left.map(|left| ranges::position(&opened.tables[&feed], left));
                return Ok(Scanned { after: position.or_else(|| after.cloned()), rows, done });
            }
            if wrote == 0 && !moved {
                self.wait(feed).await?;
            }
        }
    }

    async fn load(
        &mut self,
        feed: FeedId,
        cut: &Cut,
        after: Option<&ScanPosition>,
        slice: &mut Slice,
        out: &mut BatchWriter,
    ) -> Result<Scanned, Error> {
        let place = place(&Token::try_from(&cut.token)?);
        Ok(self.dataset.load(self.feeds.get(feed), &place, cut, after, slice, out).await?)
    }

    async fn is_waited_for(&mut self) -> Result<bool, Error> {
        self.look().await?;
        Ok(self.opened.as_ref().is_some_and(|opened| opened.waited_for))
    }

    async fn close(&mut self) -> Result<(), Error> {
        let Some(opened) = self.opened.take() else { return Ok(()) };
        // All at once: somebody may be waiting for their locks.
        let mut releasing: JoinSet<_> = std::mem::take(&mut self.readers).into_iter().map(Reader::release).collect();
        let released = opened.snapshot.release().await;
        while let Some(reader) = releasing.join_next().await {
            self.readers.extend(reader.ok().flatten());
        }
        released
    }

    async fn expected_rows(&mut self, feed: FeedId) -> Result<Option<u64>, Error> {
        let of_file = file::expected_rows(self.feeds.get(feed));
        if query::derived(self.feeds.get(feed)).is_some() {
            return Ok(None);
        }
        Ok(of_file.or_else(|| self.estimates.get(&feed).map(|estimate| estimate.rows)))
    }
}

/// SQLSTATE of a table that does not exist.
const UNDEFINED_TABLE: &str = "42P01";
