//! The live source: pages of the reading thread, encoded into batches.

use crate::batch::BatchWriter;
use crate::checkpoint::ResumeToken;
use crate::event::{Event, FeedId, Operation, Position, Timestamp};
use crate::feed::{Feed, Feeds};
use crate::format::{Encoder, Format};
use crate::source::sqlite::history::Anchor;
use crate::source::sqlite::page::{Heading, Page};
use crate::source::sqlite::reader::Message;
use crate::source::sqlite::row::{KeyError, View};
use crate::source::sqlite::schema::{Layout, SCHEMA};
use crate::source::sqlite::token::{self, LogPosition};
use crate::source::sqlite::trigger::op;
use crate::source::sqlite::wake::Stop;
use crate::source::sqlite::{Error, capture};
use crate::source::{Filled, Source, TableChange};
use crate::status::metrics::SourceMetrics;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// The open log of one database. Its two threads end with it.
pub struct Log {
    pub(super) threads: Threads,
    pub(super) spent: std::sync::mpsc::Sender<Page>,
    pub(super) durable: Arc<Mutex<LogPosition>>,
    pub(super) format: Format,
    pub(super) metrics: SourceMetrics,
    pub(super) feeds: Arc<Feeds>,
    /// From which number on each feed is published; by feed.
    pub(super) starts: Vec<Option<i64>>,
    /// Every row below it is in a batch, or is not published.
    pub(super) place: LogPosition,
    /// Every row below it is in `page` or came before.
    pub(super) read: i64,
    pub(super) page: Page,
    pub(super) versions: HashMap<i64, Version>,
    /// How tables look, where that is not as they were seen last.
    pub(super) table_changes: Vec<TableChange>,
    /// Why nothing more will come.
    pub(super) failure: Option<Error>,
}

/// A version of a table, as far as this pipeline publishes it.
#[derive(Debug)]
pub(super) struct Version {
    layout: Arc<Layout>,
    feed: Option<FeedId>,
    /// Made before the version's first row is written.
    encoder: Option<Encoder>,
}

/// The threads of a log, joined when it is dropped.
pub(super) struct Threads {
    pub(super) stop: Arc<Stop>,
    pub(super) interrupt: rusqlite::InterruptHandle,
    /// `None` once dropped: a thread that waits to hand a page over then ends.
    pub(super) messages: Option<mpsc::Receiver<Message>>,
    pub(super) joins: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.ask();
        self.interrupt.interrupt();
        self.messages = None;
        for join in self.joins.drain(..) {
            if join.join().is_err() {
                tracing::error!("a thread of the change log panicked");
            }
        }
    }
}

/// What a call of `fill` did.
#[derive(Default)]
struct Tally {
    counts: [u64; Operation::ALL.len()],
    filtered: u64,
    /// Whether the place moved.
    moved: bool,
}

impl Log {
    /// Encodes rows of the page until it ends, the batch is full, or a row lies at or beyond `limit`.
    fn encode(&mut self, out: &mut BatchWriter, limit: i64, tally: &mut Tally) -> Result<Option<Filled>, Error> {
        loop {
            let Some((heading, values)) = self.page.peek().map_err(|source| Error::Row { table: "".into(), source })? else {
                // Numbers that no row has are passed too, but never beyond the limit.
                let next = self.read.min(limit);
                tally.moved |= self.place.next < next;
                self.place.next = self.place.next.max(next);
                return Ok((limit <= self.read).then_some(Filled::Reached));
            };
            if limit <= heading.seq {
                tally.moved |= self.place.next < limit;
                self.place.next = self.place.next.max(limit);
                return Ok(Some(Filled::Reached));
            }
            if out.is_full() {
                return Ok(Some(Filled::Full));
            }
            let Some(version) = self.versions.get(&heading.tid) else {
                return Err(Error::Malformed { what: format!("row {} of the change log", heading.seq) });
            };
            if let (Some(feed), Some(encoder)) = (version.feed, &version.encoder) {
                let started = self.starts.get(feed.index()).copied().flatten().is_some_and(|start| start <= heading.seq);
                let change = Change { feed: self.feeds.get(feed), layout: &version.layout, encoder, epoch: self.place.epoch, started };
                change.write(heading, values, out, tally)?;
            }
            self.place.next = heading.seq + 1;
            self.place.last = Some(Anchor::of(&heading, values));
            tally.moved = true;
            self.page.advance();
        }
    }

    /// Makes ready what the rows of the page need. Cancel safe: what is not ready is made ready by the next call.
    async fn prepare(&mut self) -> Result<(), Error> {
        for version in self.versions.values_mut() {
            if let (Some(feed), None) = (version.feed, &version.encoder) {
                let encoder = self.format.prepare(&version.layout.relation(feed)).await;
                version.encoder = Some(encoder.map_err(|source| Error::Row { table: version.layout.table.clone(), source })?);
            }
        }
        Ok(())
    }

    fn accept(&mut self, message: Option<Message>) -> Result<(), Error> {
        self.metrics.message_received();
        match message {
            Some(Message::Layout(tid, layout)) => {
                let feed = self.feeds.of_table(SCHEMA, &layout.table).map(|feed| feed.id);
                if self.versions.insert(tid, Version { layout, feed, encoder: None }).is_none() && 1 < tid {
                    tracing::debug!(tid, "another version of a table");
                }
            }
            Some(Message::TableChanges(table_changes)) => self.table_changes.extend(table_changes),
            Some(Message::Page { page, next }) => {
                self.metrics.bytes.inc_by(page.size_bytes() as u64);
                let spent = std::mem::replace(&mut self.page, page);
                self.read = next;
                // A reader that has ended takes no pages back.
                let _ended = self.spent.send(spent);
            }
            Some(Message::Failed(error)) => return Err(error),
            None => return Err(Error::Ended),
        }
        Ok(())
    }

    fn count(&self, tally: &Tally) {
        for (operation, count) in Operation::ALL.into_iter().zip(tally.counts) {
            if count != 0 {
                self.metrics.add_events(operation, count);
            }
        }
        if tally.filtered != 0 {
            self.metrics.filtered_operations.inc_by(tally.filtered);
        }
    }

    async fn fill_until(&mut self, out: &mut BatchWriter, limit: i64, tally: &mut Tally) -> Result<Filled, Error> {
        loop {
            self.prepare().await?;
            if let Some(filled) = self.encode(out, limit, tally)? {
                return Ok(filled);
            }
            let messages = self.threads.messages.as_mut().expect("present until dropped");
            match messages.try_recv() {
                Ok(message) => self.accept(Some(message))?,
                Err(mpsc::error::TryRecvError::Disconnected) => self.accept(None)?,
                Err(mpsc::error::TryRecvError::Empty) if tally.moved => return Ok(Filled::Drained),
                Err(mpsc::error::TryRecvError::Empty) => {
                    let message = messages.recv().await;
                    self.accept(message)?;
                }
            }
            // A flood of filtered rows must not keep the task from its other duties.
            tokio::task::coop::consume_budget().await;
        }
    }
}

impl Source for Log {
    type Error = Error;

    fn table_changes(&mut self) -> Vec<TableChange> {
        std::mem::take(&mut self.table_changes)
    }

    const HEARTBEAT: Duration = Duration::from_secs(5);

    async fn fill(&mut self, out: &mut BatchWriter, until: Option<&ResumeToken>) -> Result<Filled, Error> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let limit = match until {
            Some(token) => LogPosition::parse(token)?.next,
            None => i64::MAX,
        };
        let mut tally = Tally::default();
        let filled = self.fill_until(out, limit, &mut tally).await;
        self.count(&tally);
        match filled {
            // What came before the failure is handed over first.
            Err(failure) if tally.moved => {
                self.failure = Some(failure);
                Ok(Filled::Drained)
            }
            other => other,
        }
    }

    fn token(&self) -> ResumeToken {
        self.place.token()
    }

    fn start(&mut self, feed: FeedId, start: &ResumeToken) {
        // A token that cannot be read was not made here: the feed waits for a right one.
        let start = LogPosition::parse(start).ok().map(|place| place.next);
        if let Some(slot) = self.starts.get_mut(feed.index()) {
            *slot = start;
        }
    }

    async fn acknowledge(&mut self, durable: Option<&ResumeToken>) -> Result<(), Error> {
        let Some(durable) = durable.map(LogPosition::parse).transpose()? else { return Ok(()) };
        if durable.epoch == self.place.epoch {
            let mut known = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            if known.next < durable.next {
                *known = durable;
            }
        }
        Ok(())
    }
}

/// One row of the log on its way into a batch.
struct Change<'a> {
    feed: &'a Feed,
    layout: &'a Layout,
    encoder: &'a Encoder,
    epoch: u32,
    /// Whether the row lies at or behind the feed's start.
    started: bool,
}

impl Change<'_> {
    fn write(&self, heading: Heading, values: &[u8], out: &mut BatchWriter, tally: &mut Tally) -> Result<(), Error> {
        let failed = |source| Error::Row { table: self.layout.table.clone(), source };
        let holds =
            capture::holds(heading.op).ok_or_else(|| Error::Malformed { what: format!("row {} of the change log", heading.seq) })?;
        let (old, new) = View::split(&self.layout.columns, values, holds.old_key).map_err(failed)?;
        if holds.old_key {
            self.check_key(&old)?;
        }
        if holds.values {
            self.check_key(&new)?;
        }
        match heading.op {
            op::INSERT => self.one(heading, Operation::Insert, (new, Some(new)), out, tally),
            op::DELETE => self.one(heading, Operation::Delete, (old, None), out, tally),
            _ if old.same_key(&new).map_err(failed)? => self.one(heading, Operation::Update, (new, Some(new)), out, tally),
            // Equal to the database, as `A` and `a` may be, and yet not the same key: one row less, one row more.
            op::REPLACE => {
                self.half(heading, 0, Operation::Delete, (old, None, None), out, tally)?;
                self.half(heading, 1, Operation::Insert, (new, Some(new), None), out, tally)
            }
            _ => self.pair(heading, old, new, out, tally),
        }
    }

    fn check_key(&self, row: &View<'_>) -> Result<(), Error> {
        row.check_key().map_err(|error| match error {
            KeyError::Null => Error::NullKey { table: self.layout.table.clone() },
            KeyError::Row(source) => Error::Row { table: self.layout.table.clone(), source },
        })
    }

    fn one<'r>(
        &self,
        heading: Heading,
        operation: Operation,
        (key, after): (View<'r>, Option<View<'r>>),
        out: &mut BatchWriter,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        self.half(heading, 0, operation, (key, after, None), out, tally)
    }

    /// One event that the mask is asked about.
    fn half<'r>(
        &self,
        heading: Heading,
        half: u8,
        operation: Operation,
        rows: (View<'r>, Option<View<'r>>, Option<View<'r>>),
        out: &mut BatchWriter,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        tally.counts[operation as usize] += 1;
        if !self.feed.operations.admits(operation) {
            tally.filtered += 1;
            return Ok(());
        }
        self.event(heading, half, operation, rows, out)
    }

    /// A changed key: two events, and the mask is asked about the update that they are.
    fn pair(&self, heading: Heading, old: View<'_>, new: View<'_>, out: &mut BatchWriter, tally: &mut Tally) -> Result<(), Error> {
        tally.counts[Operation::Update as usize] += 1;
        if !self.feed.operations.admits(Operation::Update) {
            tally.filtered += 1;
            return Ok(());
        }
        self.event(heading, 0, Operation::Delete, (old, None, Some(new)), out)?;
        self.event(heading, 1, Operation::Insert, (new, Some(new), Some(old)), out)
    }

    fn event<'r>(
        &self,
        heading: Heading,
        half: u8,
        operation: Operation,
        (key, after, counterpart): (View<'r>, Option<View<'r>>, Option<View<'r>>),
        out: &mut BatchWriter,
    ) -> Result<(), Error> {
        if !self.started {
            return Ok(());
        }
        let position: Position = token::live(self.epoch, heading.seq, half);
        let event = Event {
            operation,
            position,
            timestamp: Timestamp(heading.at),
            transaction: None,
            key: Some(key),
            before: None,
            after,
            counterpart,
        };
        self.encoder.write(&event, out).map_err(|source| Error::Row { table: self.layout.table.clone(), source })
    }
}
