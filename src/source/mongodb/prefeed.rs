//! Existing documents, read with several sessions under one snapshot, whose place in the log is known exactly: a cluster time.
//!
//! Nothing is locked, and nobody waits. A server keeps the snapshots of the last five minutes (`minSnapshotHistoryWindowInSeconds`); a slice
//! that is read later fails, and the next one goes on where it ended.

use super::action::Action;
use super::bson::{Document, Writer};
use super::document::{FIXED, Fields, KEY, shown_key};
use super::error::Error;
use super::filter;
use super::options::Options;
use super::snapshot;
use super::token::Token;
use crate::checkpoint::{ResumeToken, ScanPosition};
use crate::event::{FeedId, Timestamp};
use crate::feed::{Feeds, PrefeedKind};
use crate::format::Encoder;

use crate::source::{Cut, KeyRange, KeyRanges, Opened, Prefeed, RowEmitter, Scanned, Shape, ToRead};
use crate::status::metrics::SourceMetrics;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

mod ranges;
mod reader;

use reader::{NextRow, Reader};

/// Samples for each boundary between ranges: the more, the more equal they are.
const SAMPLES: usize = 20;
/// How long the server may send nothing while documents are read.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Reads existing documents.
pub struct Rows {
    options: Options,
    feeds: Arc<Feeds>,
    metrics: SourceMetrics,
    /// As in the positions of the log.
    epoch: u32,
    /// Used again from slice to slice.
    readers: Vec<Reader>,
    opened: Option<OpenSlice>,
}

/// The state of an open slice.
struct OpenSlice {
    /// The time that its snapshot shows.
    time: u64,
    scans: HashMap<FeedId, Scan>,
    /// Decides which reader is asked first; changes with each call.
    turn: usize,
}

/// How far a collection is read.
struct Scan {
    ranges: KeyRanges,
    shape: Shape<Encoder>,
    filter: Vec<u8>,
}

impl Rows {
    pub(super) fn new(options: Options, feeds: Arc<Feeds>, metrics: SourceMetrics, epoch: u32) -> Self {
        Self { options, feeds, metrics, epoch, readers: Vec::new(), opened: None }
    }

    async fn open_snapshot(&mut self) -> Result<(u64, Timestamp), Error> {
        // Connect first: the snapshot ages meanwhile.
        while self.readers.len() < self.options.prefeed_readers.max(1) {
            self.readers.push(Reader::open(&self.options).await?);
        }
        let opened_at = Timestamp::now();
        let time = snapshot::time(&mut self.readers[0].session, &self.feeds).await?;
        Ok((time, opened_at))
    }

    /// Finds the ranges of a feed that are still to be read.
    async fn begin(&mut self, feed: FeedId, after: Option<&ScanPosition>) -> Result<(), Error> {
        let opened = self.opened.as_ref().ok_or(Error::NoSnapshot)?;
        if opened.scans.contains_key(&feed) {
            return Ok(());
        }
        let described = self.feeds.get(feed);
        let filter = filter::of(described)?;
        let ranges = match after.and_then(ranges::resume) {
            Some(ranges) => ranges,
            None => KeyRanges::new(self.split(feed).await?),
        };
        let scan = Scan { ranges, shape: Shape::new(KEY, FIXED), filter };
        self.opened.as_mut().ok_or(Error::NoSnapshot)?.scans.insert(feed, scan);
        Ok(())
    }

    /// Splits a large collection into ranges, by samples of its keys.
    async fn split(&mut self, feed: FeedId) -> Result<Vec<KeyRange>, Error> {
        let described = self.feeds.get(feed);
        let Some(reader) = self.readers.iter_mut().find(|reader| reader.is_free()) else { return Ok(vec![KeyRange::default()]) };
        if matches!(described.prefeed, PrefeedKind::Query(_)) {
            return Ok(vec![KeyRange::default()]);
        }
        let aggregate = |stages: Vec<Vec<u8>>| {
            Writer::new().text("aggregate", &described.table).documents("pipeline", stages).document("cursor", Document::EMPTY.bytes())
        };
        let size = Writer::new().document("storageStats", Document::EMPTY.bytes()).finish();
        let stats =
            match reader.session.documents(Action::Read, aggregate(vec![Writer::new().document("$collStats", &size).finish()])).await {
                // A server or a user without it reads the collection as one range.
                Err(Error::Refused { .. } | Error::Privilege { .. }) => Vec::new(),
                stats => stats?,
            };
        let mut bytes = 0;
        for shard in &stats {
            let stats = Document::new(shard)?.document("storageStats")?;
            bytes += stats.map(|stats| stats.number("size")).transpose()?.flatten().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        }
        let Some(parts) = KeyRange::parts(bytes, self.options.prefeed_readers) else { return Ok(vec![KeyRange::default()]) };
        let size = i32::try_from(parts * SAMPLES).unwrap_or(i32::MAX);
        let only_key = || Writer::new().int(KEY, 1).finish();
        let stages = vec![
            Writer::new().document("$sample", &Writer::new().int("size", size).finish()).finish(),
            Writer::new().document("$project", &only_key()).finish(),
            Writer::new().document("$sort", &only_key()).finish(),
        ];
        let sampled = reader.session.documents(Action::Read, aggregate(stages)).await?;
        let boundaries: Vec<_> = sampled.into_iter().skip(SAMPLES).step_by(SAMPLES).collect();
        Ok(ranges::between(&boundaries))
    }

    /// Gives each free reader the next range of the feed.
    async fn assign(&mut self, feed: FeedId) -> Result<(), Error> {
        let opened = self.opened.as_mut().ok_or(Error::NoSnapshot)?;
        let scan = opened.scans.get_mut(&feed).ok_or(Error::NoSnapshot)?;
        let table = &self.feeds.get(feed).table;
        for reader in self.readers.iter_mut().filter(|reader| reader.is_free()) {
            let Some((number, range)) = scan.ranges.next() else { break };
            let order = Writer::new().int(KEY, 1).finish();
            let find = Writer::new().text("find", table).document("filter", &scan.filter).document("sort", &order).document("hint", &order);
            let (find, skipped) = ranges::bounded(find.document("readConcern", &snapshot::concern(Some(opened.time))), range);
            reader.begin(feed, number, Arc::clone(table), find, skipped);
            scan.ranges.start_next();
        }
        for reader in &mut self.readers {
            reader.flush().await?;
        }
        Ok(())
    }

    /// Writes the documents of the feed that have arrived, until the batch is full. Returns whether a range ended.
    async fn write(&mut self, feed: FeedId, out: &mut RowEmitter<'_>) -> Result<bool, Error> {
        let described = self.feeds.get(feed);
        let opened = self.opened.as_mut().ok_or(Error::NoSnapshot)?;
        let scan = opened.scans.get_mut(&feed).ok_or(Error::NoSnapshot)?;
        opened.turn = opened.turn.wrapping_add(1);
        let (mut range_ended, mut newest) = (false, Vec::new());
        let (earlier, later) = self.readers.split_at_mut(opened.turn % self.options.prefeed_readers.max(1));
        for reader in later.iter_mut().chain(earlier) {
            let Some(range) = reader.range_of(feed) else { continue };
            newest.clear();
            while !out.is_full() {
                let (document, next) = match reader.next()? {
                    NextRow::Row(document, next) => (document, next),
                    NextRow::Pending => break,
                    NextRow::Ended => {
                        scan.ranges.finish(range);
                        reader.end();
                        range_ended = true;
                        break;
                    }
                };
                let failed = |source| Error::Row { table: described.name.to_string(), key: shown_key(Some(document)), source };
                let fields = Fields::of(document).map_err(failed)?;
                scan.shape.admit(fields.names());
                if scan.shape.prepared().is_none() {
                    let encoder = out.prepare(&scan.shape.relation(described)).await?;
                    scan.shape.set_prepared(encoder);
                }
                let encoder = scan.shape.prepared().ok_or(Error::NoSnapshot)?;
                out.write(encoder, fields.row(scan.shape.columns(), self.options.spelling)).map_err(failed)?;
                if let Some((kind, value)) = ranges::key_of(document) {
                    newest.clear();
                    newest.push(kind);
                    newest.extend_from_slice(value);
                }
                reader.pass(next);
            }
            if let (Some((kind, value)), Some(range)) = (newest.split_first(), scan.ranges.range_mut(range)) {
                range.after = Some(ranges::read((*kind, value)));
            }
        }
        for reader in &mut self.readers {
            reader.flush().await?;
        }
        Ok(range_ended)
    }

    /// Waits until a reader of the feed has more input.
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
        let Ok(read) = timeout(SILENCE_MAX, input).await else {
            let address = self.options.addresses();
            return Err(Error::Silent { address, seconds: SILENCE_MAX.as_secs(), what: "documents" });
        };
        self.metrics.bytes.inc_by(read? as u64);
        self.metrics.message_received();
        Ok(())
    }
}

impl Prefeed for Rows {
    type Error = Error;

    /// A server keeps the snapshots of five minutes, unless it is configured otherwise.
    const SLICE_MAX: Duration = Duration::from_mins(4);

    async fn open(&mut self, _feeds: &[ToRead], within: Duration) -> Result<Opened, Error> {
        self.close().await?;
        let Ok(opened) = timeout(within, self.open_snapshot()).await else {
            self.readers.clear();
            return Ok(Opened::Blocked { by: format!("MongoDB at {}, which answers too slowly", self.options.addresses()) });
        };
        let (time, opened_at) = opened?;
        self.opened = Some(OpenSlice { time, scans: HashMap::new(), turn: 0 });
        // What was committed at that time is in the snapshot.
        let token = ResumeToken::from(&Token::at(self.epoch, time + 1));
        Ok(Opened::Cut(Cut { token, opened_at }))
    }

    async fn scan(&mut self, feed: FeedId, after: Option<&ScanPosition>, out: &mut RowEmitter<'_>) -> Result<Scanned, Error> {
        self.begin(feed, after).await?;
        loop {
            self.assign(feed).await?;
            let before = out.written();
            let range_ended = self.write(feed, out).await?;
            let opened = self.opened.as_ref().ok_or(Error::NoSnapshot)?;
            let ranges = &opened.scans.get(&feed).ok_or(Error::NoSnapshot)?.ranges;
            if ranges.is_done() || out.is_full() {
                return Ok(Scanned { after: Some(ranges::position(ranges)), done: ranges.is_done() });
            }
            if out.written() == before && !range_ended {
                self.wait(feed).await?;
            }
        }
    }

    async fn close(&mut self) -> Result<(), Error> {
        if self.opened.take().is_none() {
            return Ok(());
        }
        let mut releasing: JoinSet<_> = std::mem::take(&mut self.readers).into_iter().map(Reader::release).collect();
        while let Some(reader) = releasing.join_next().await {
            self.readers.extend(reader.ok().flatten());
        }
        Ok(())
    }

    async fn expected_rows(&mut self, feed: FeedId) -> Result<Option<u64>, Error> {
        let described = self.feeds.get(feed);
        if !matches!(described.prefeed, PrefeedKind::Snapshot) {
            return Ok(None);
        }
        if self.readers.is_empty() {
            self.readers.push(Reader::open(&self.options).await?);
        }
        let reply = self.readers[0].session.run(Action::Read, Writer::new().text("count", &described.table)).await?;
        Ok(Document::new(&reply)?.number("n")?.and_then(|count| u64::try_from(count).ok()))
    }
}
