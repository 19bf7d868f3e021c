//! The prefeed: reads existing rows with several sessions under one snapshot, whose place in the log is known exactly.

use super::charset::Charsets;
use super::error::Error;
use super::kind::Space;
use super::options::Options;
use super::quote::table as named;
use super::token::LogId;
use crate::checkpoint::{ResumeToken, ScanPosition};
use crate::event::{FeedId, Position, RowError};
use crate::feed::Feeds;
use crate::format::Encoder;
use crate::source::{Cut, KeyRanges, Opened, Prefeed, RowEmitter, Scanned, ToRead};
use crate::status::metrics::SourceMetrics;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

mod blocked;
mod column_type;
mod estimate;
mod field;
mod json;
mod locks;
mod order;
pub(super) mod query;
mod quiet;
mod ranges;
mod reader;
mod row;
mod same_place;
mod snapshot;
mod split;
mod table;
mod watch;

use super::session::NextRow;
use blocked::Blocked;
use estimate::Estimate;
use reader::Reader;
use snapshot::Wanted;
use table::Table;
use watch::Watcher;

/// Reads existing rows of tables and queries.
pub struct Rows {
    options: Options,
    feeds: Arc<Feeds>,
    metrics: SourceMetrics,
    /// The log that is read.
    log: LogId,
    watcher: Watcher,
    charsets: Charsets,
    space: Space,
    /// Reused from slice to slice.
    readers: Vec<Reader>,
    estimates: HashMap<FeedId, Estimate>,
    opened: Option<OpenSlice>,
}

/// The state of an open slice.
#[derive(Default)]
struct OpenSlice {
    /// What was described under this snapshot.
    tables: HashMap<FeedId, Table>,
    encoders: HashMap<FeedId, Encoder>,
    /// Feeds that no reader has started, in reading order.
    pending: VecDeque<ToRead>,
    scans: HashMap<FeedId, KeyRanges>,
    /// Decides which reader is asked first; changes with each call.
    turn: usize,
    /// Whether another session waits for a table that we hold. Nothing more is read then.
    waited_for: bool,
}

const NO_SNAPSHOT: Error = Error::Protocol { what: "a snapshot before its rows are read" };
/// Numbers of the errors that a table is locked, and that waiting for it would be a deadlock.
const LOCKED: [u16; 2] = [1205, 1213];
/// The number of the error that a table does not exist.
const NO_SUCH_TABLE: u16 = 1146;

impl Rows {
    /// Opens the first connection. `log` is the log that is read.
    pub(super) async fn open(options: Options, feeds: Arc<Feeds>, metrics: SourceMetrics, log: LogId) -> Result<Self, Error> {
        let mut watcher = Watcher::open(&options).await?;
        let charsets = Charsets::read(&mut watcher.session).await?;
        let (space, readers, estimates) = (Space::default(), Vec::new(), HashMap::new());
        Ok(Self { options, feeds, metrics, log, watcher, charsets, space, readers, estimates, opened: None })
    }

    /// What is read for these feeds.
    async fn wanted(&mut self, feeds: &[ToRead]) -> Result<Wanted, Error> {
        let mut wanted = Wanted { items: Vec::new(), tables: Vec::new() };
        for feed in feeds.iter().map(|feed| self.feeds.get(feed.feed)) {
            if let Some(from) = query::from_item(feed) {
                wanted.tables.extend(query::tables(feed, &from, &mut self.watcher.session).await?);
                wanted.items.push(from);
            } else {
                let name = named(&feed.schema, &feed.table);
                wanted.tables.push(name.clone());
                wanted.items.push(name);
            }
        }
        wanted.tables.sort();
        wanted.tables.dedup();
        Ok(wanted)
    }

    /// Describes the feed's table or query, once per snapshot.
    async fn describe(&mut self, feed: FeedId) -> Result<(), Error> {
        let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
        if opened.tables.contains_key(&feed) {
            return Ok(());
        }
        let (of, session) = (self.feeds.get(feed), &mut self.watcher.session);
        let table = match query::from_item(of) {
            Some(from) => query::describe(of, from, &self.charsets, session).await?,
            None => table::describe(of, &self.charsets, session).await?,
        };
        opened.tables.insert(feed, table);
        Ok(())
    }

    /// Prepares the feed's encoder, once per snapshot.
    async fn prepare(&mut self, feed: FeedId, out: &RowEmitter<'_>) -> Result<(), Error> {
        self.describe(feed).await?;
        let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
        if !opened.encoders.contains_key(&feed) {
            opened.encoders.insert(feed, out.prepare(&opened.tables[&feed].relation).await?);
        }
        Ok(())
    }

    /// Gives each free reader the next range of the feed or, when the feed has none left, a range of the next pending feed.
    async fn assign_ranges(&mut self, feed: FeedId) -> Result<(), Error> {
        for index in 0..self.readers.len() {
            let mut current = feed;
            while self.readers[index].is_free() {
                let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
                if opened.waited_for {
                    return Ok(());
                }
                if opened.scans.get(&current).and_then(KeyRanges::next).is_some() {
                    self.begin_range(index, current).await?;
                } else {
                    let Some(next) = opened.pending.pop_front() else { break };
                    current = next.feed;
                    self.begin_feed(index, &next).await?;
                }
            }
        }
        Ok(())
    }

    /// Finds the ranges of a feed that are still to be read. If another session has locked the table, the slice ends instead.
    async fn begin_feed(&mut self, reader: usize, to_read: &ToRead) -> Result<(), Error> {
        let id = to_read.feed;
        self.describe(id).await?;
        let feed = self.feeds.get(id);
        let size = self.estimates.get(&id).copied().unwrap_or_default();
        let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
        let table = &opened.tables[&id];
        let ranges = match to_read.after.as_ref().map(|after| ranges::resume(table, after)) {
            Some(Some(ranges)) => ranges,
            unusable => {
                if unusable.is_some() {
                    tracing::warn!(table = %feed.name, "the table's key changed: all its rows are read again");
                }
                match split::split(table, size, self.options.prefeed_readers, &mut self.readers[reader]).await {
                    Ok(ranges) => KeyRanges::new(ranges),
                    Err(Error::Refused(error)) if LOCKED.contains(&error.number) => {
                        opened.waited_for = true;
                        opened.pending.push_front(to_read.clone());
                        return Ok(());
                    }
                    Err(error) => return Err(query::explain_error(feed, error)),
                }
            }
        };
        opened.scans.insert(id, ranges);
        Ok(())
    }

    /// Has a reader read the feed's next range. If another session waits for the table, or has locked it, the slice ends instead.
    async fn begin_range(&mut self, reader: usize, feed: FeedId) -> Result<(), Error> {
        let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
        let (table, scan) = (&opened.tables[&feed], opened.scans.get_mut(&feed).ok_or(NO_SNAPSHOT)?);
        let Some((number, range)) = scan.next() else { return Ok(()) };
        match self.readers[reader].read(feed, number, table, &ranges::select(table, range)).await {
            Ok(()) => scan.start_next(),
            Err(Error::Refused(error)) if LOCKED.contains(&error.number) => opened.waited_for = true,
            Err(error) => return Err(query::explain_error(self.feeds.get(feed), error)),
        }
        Ok(())
    }

    /// Writes the rows of the feed that have arrived, until the batch is full. Returns whether a range ended.
    fn write(&mut self, feed: FeedId, out: &mut RowEmitter<'_>) -> Result<bool, Error> {
        let opened = self.opened.as_mut().ok_or(NO_SNAPSHOT)?;
        let (table, encoder) = (&opened.tables[&feed], &opened.encoders[&feed]);
        let Some(scan) = opened.scans.get_mut(&feed) else { return Ok(false) };
        let of = self.feeds.get(feed);
        let failed =
            |position: Position, source: RowError| Error::Row { table: of.name.to_string(), position: format!("{position:?}"), source };
        let mut range_ended = false;
        opened.turn = opened.turn.wrapping_add(1);
        let (earlier, later) = self.readers.split_at_mut(opened.turn % self.options.prefeed_readers.max(1));
        for reader in later.iter_mut().chain(earlier) {
            let Some(range) = reader.range_of(feed) else { continue };
            while !out.is_full() {
                let packet = match reader.next().map_err(|error| query::explain_error(of, error))? {
                    NextRow::Row(packet) => packet,
                    NextRow::Pending => break,
                    NextRow::Ended => {
                        scan.finish(range);
                        range_ended = true;
                        break;
                    }
                };
                let sent = reader.row(&packet);
                if let (true, Some(range)) = (table.is_query, scan.range_mut(range)) {
                    let key = ranges::key_of(table, sent.0, sent.1).map_err(|source| failed(out.next_position(), source))?;
                    query::check_key(of, range.after.as_ref(), &key)?;
                    range.after = Some(key);
                }
                out.write(encoder, reader::row(table, sent, &self.space)).map_err(|source| failed(out.next_position(), source))?;
                reader.take(&packet);
            }
            // Note where the range continues, before the next input overwrites the row's bytes.
            if let (Some((fields, newest)), Some(range)) = (reader.newest(), scan.range_mut(range)) {
                range.after = Some(ranges::key_of(table, fields, newest).map_err(|source| failed(out.next_position(), source))?);
            }
        }
        Ok(range_ended)
    }

    /// Waits until a reader of the feed has more input. After each interval without any, checks whether another session waits for us.
    async fn wait(&mut self, feed: FeedId) -> Result<(), Error> {
        let readers = &mut self.readers;
        let input = poll_fn(|context| {
            for reader in readers.iter_mut().filter(|reader| reader.range_of(feed).is_some()) {
                if let Poll::Ready(read) = reader.poll_input(context) {
                    return Poll::Ready(read);
                }
            }
            Poll::Pending
        });
        match timeout(Watcher::INTERVAL, input).await {
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
        if let Some(waiting) = self.watcher.waiting().await? {
            tracing::info!(waiting, "another session waits for a table that is being read: the slice ends here");
            opened.waited_for = true;
        }
        Ok(())
    }

    /// Ends the statements and transactions of all readers at the same time: another session may be waiting for them.
    async fn release(&mut self) -> Result<(), Error> {
        let mut killed = Ok(());
        for reader in self.readers.iter().filter(|reader| reader.is_busy()) {
            // Otherwise it would send all the rest of its range.
            killed = killed.and(self.watcher.session.query(&format!("KILL QUERY {}", reader.id())).await.map(drop));
        }
        let ids: Vec<_> = self.readers.iter().map(Reader::id).collect();
        let mut releasing: JoinSet<_> = std::mem::take(&mut self.readers).into_iter().map(Reader::release).collect();
        while let Some(reader) = releasing.join_next().await {
            self.readers.extend(reader.ok().flatten());
        }
        for id in ids.into_iter().filter(|id| self.readers.iter().all(|reader| reader.id() != *id)) {
            // Its connection is closed, which the server may notice only when it sends the next row.
            if let Err(error) = self.watcher.session.query(&format!("KILL {id}")).await {
                tracing::debug!(%error, id, "a session that read rows could not be ended");
            }
        }
        killed
    }
}

impl Prefeed for Rows {
    type Error = Error;

    /// While a snapshot is held, the server keeps the old versions of all rows that change.
    const SLICE_MAX: Duration = Duration::from_mins(10);

    async fn open(&mut self, feeds: &[ToRead], within: Duration) -> Result<Opened, Error> {
        self.close().await?;
        // Connect first: no lock or snapshot is held meanwhile.
        while self.readers.len() < self.options.prefeed_readers.max(1) {
            self.readers.push(Reader::open(&self.options).await?);
        }
        let wanted = self.wanted(feeds).await?;
        let blocked = match snapshot::open(&mut self.readers, &wanted, within, &self.options, &mut self.watcher).await {
            Ok(Ok(snapshot)) => {
                let token = ResumeToken::from(&snapshot.head.token(self.log));
                self.opened = Some(OpenSlice { pending: feeds.iter().cloned().collect(), ..OpenSlice::default() });
                return Ok(Opened::Cut(Cut { token, opened_at: snapshot.opened_at }));
            }
            Ok(Err(blocked)) => blocked,
            Err(error) => {
                self.release().await?;
                return Err(gone(error));
            }
        };
        let ours: Vec<_> = self.readers.iter().map(Reader::id).collect();
        self.release().await?;
        let by = match blocked {
            Blocked::By(by) => by,
            Blocked::ByTransactions => self.watcher.open_transactions(&ours).await?,
        };
        Ok(Opened::Blocked { by })
    }

    async fn scan(&mut self, feed: FeedId, after: Option<&ScanPosition>, out: &mut RowEmitter<'_>) -> Result<Scanned, Error> {
        self.prepare(feed, out).await?;
        loop {
            self.assign_ranges(feed).await?;
            let before = out.written();
            let range_ended = self.write(feed, out)?;
            let opened = self.opened.as_ref().ok_or(NO_SNAPSHOT)?;
            let done = opened.scans.get(&feed).is_some_and(KeyRanges::is_done);
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
        self.opened = None;
        if self.readers.iter().any(Reader::is_used) { self.release().await } else { Ok(()) }
    }

    async fn expected_rows(&mut self, feed: FeedId) -> Result<Option<u64>, Error> {
        let of = self.feeds.get(feed);
        if query::from_item(of).is_some() {
            return Ok(None);
        }
        let estimate = estimate::of(of, &mut self.watcher.session).await?;
        self.estimates.insert(feed, estimate);
        Ok(Some(estimate.rows))
    }
}

/// Names the table that does not exist any more.
fn gone(error: Error) -> Error {
    match error {
        Error::Refused(error) if error.number == NO_SUCH_TABLE => Error::TableChanged {
            table: error.message.split('\'').nth(1).unwrap_or_default().to_owned(),
            reason: "it was dropped before all its rows were read; remove it from the feeds".to_owned(),
        },
        other => other,
    }
}
