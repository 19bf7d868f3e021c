//! The open change log: takes pages from the reading thread and gives their rows to the emitter.

use crate::event::FeedId;
use crate::feed::Feeds;
use crate::source::emission::Emission;
use crate::source::emitter::{Definition, Emitter};
use crate::source::live::{Filled, Source, SourceProgress, TableChange};
use crate::source::sqlite::change::Change;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::layout::{Layout, SCHEMA};
use crate::source::sqlite::log_row::Anchor;
use crate::source::sqlite::page::Page;
use crate::source::sqlite::reader::Message;
use crate::source::sqlite::token::LogPosition;
use crate::source::sqlite::wake::Stop;
use crate::status::metrics::SourceMetrics;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// The open log of one database. Its two threads end when it is dropped.
pub struct Log {
    pub(super) threads: Threads,
    /// Returns used pages to the reading thread.
    pub(super) spent: std::sync::mpsc::Sender<Page>,
    /// What may be trimmed.
    pub(super) durable: Arc<Mutex<LogPosition>>,
    pub(super) metrics: SourceMetrics,
    pub(super) feeds: Arc<Feeds>,
    /// Every row below it is in a batch, or is not published.
    pub(super) position: LogPosition,
    /// Every row below it is in `page` or in an earlier one.
    pub(super) read: i64,
    pub(super) page: Page,
    /// By number.
    pub(super) versions: HashMap<i64, PublishedVersion>,
    /// Changed tables that the engine has not asked for yet.
    pub(super) table_changes: Vec<TableChange>,
    /// The error that the next `fill` returns.
    pub(super) failure: Option<Error>,
}

/// A version of a table, with the feed that publishes it.
#[derive(Debug)]
pub(super) struct PublishedVersion {
    layout: Arc<Layout>,
    feed: Option<FeedId>,
    /// Prepared before the version's first row is written.
    definition: Option<Definition>,
}

/// The threads of a log, joined when it is dropped.
pub(super) struct Threads {
    pub(super) stop: Arc<Stop>,
    pub(super) interrupt: rusqlite::InterruptHandle,
    /// `None` once dropped: a thread that waits to send a page then ends.
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

impl Log {
    /// Writes rows of the page until it ends, the batch is full, or a row lies at or beyond `limit`.
    fn write(&mut self, out: &mut Emitter<'_, LogPosition>, limit: i64) -> Result<Option<Filled>, Error> {
        loop {
            let Some((heading, values)) = self.page.peek().map_err(|source| Error::Row { table: "".into(), source })? else {
                // Numbers without a row are passed too, but never beyond the limit.
                self.position.next = self.position.next.max(self.read.min(limit));
                return Ok((limit <= self.read).then_some(Filled::Reached));
            };
            if limit <= heading.seq {
                self.position.next = self.position.next.max(limit);
                return Ok(Some(Filled::Reached));
            }
            if out.is_full() {
                return Ok(Some(Filled::Full));
            }
            let Some(version) = self.versions.get(&heading.tid) else {
                return Err(Error::Malformed { what: format!("row {} of the change log", heading.seq) });
            };
            if let Some(definition) = &version.definition {
                Change { layout: &version.layout, definition, epoch: self.position.epoch, heading }.write(values, out)?;
            }
            self.position.next = heading.seq + 1;
            self.position.last = Some(Anchor::of(&heading, values));
            self.page.advance();
        }
    }

    /// Prepares the definitions that rows of the page need. Cancel safe: the next call prepares those that are missing.
    async fn prepare(&mut self, out: &Emitter<'_, LogPosition>) -> Result<(), Error> {
        for version in self.versions.values_mut() {
            if let (Some(feed), None) = (version.feed, &version.definition) {
                version.definition = Some(out.prepare(&version.layout.relation(feed)).await?);
            }
        }
        Ok(())
    }

    /// Takes a message of the reading thread.
    fn accept(&mut self, message: Option<Message>) -> Result<(), Error> {
        self.metrics.message_received();
        match message {
            Some(Message::Layout(tid, layout)) => {
                let feed = self.feeds.of_table(SCHEMA, &layout.table).map(|feed| feed.id);
                if self.versions.insert(tid, PublishedVersion { layout, feed, definition: None }).is_none() && 1 < tid {
                    tracing::debug!(tid, "new version of a table");
                }
            }
            Some(Message::TableChanges(table_changes)) => self.table_changes.extend(table_changes),
            Some(Message::Page { page, next }) => {
                self.metrics.bytes.inc_by(page.size_bytes() as u64);
                let spent = std::mem::replace(&mut self.page, page);
                self.read = next;
                // Fails where the reading thread has ended.
                let _ended = self.spent.send(spent);
            }
            Some(Message::Failed(error)) => return Err(error),
            None => return Err(Error::Ended),
        }
        Ok(())
    }

    async fn fill_until(&mut self, out: &mut Emitter<'_, LogPosition>, limit: i64, from: i64) -> Result<Filled, Error> {
        loop {
            self.prepare(out).await?;
            if let Some(filled) = self.write(out, limit)? {
                return Ok(filled);
            }
            let messages = self.threads.messages.as_mut().expect("present until dropped");
            match messages.try_recv() {
                Ok(message) => self.accept(Some(message))?,
                Err(mpsc::error::TryRecvError::Disconnected) => self.accept(None)?,
                Err(mpsc::error::TryRecvError::Empty) if from < self.position.next => return Ok(Filled::Drained),
                Err(mpsc::error::TryRecvError::Empty) => {
                    let message = messages.recv().await;
                    self.accept(message)?;
                }
            }
            // A long run of filtered rows must not starve the other work of this thread.
            tokio::task::coop::consume_budget().await;
        }
    }
}

impl Source for Log {
    type Error = Error;
    type Token = LogPosition;

    const HEARTBEAT: Duration = Duration::from_secs(5);

    async fn fill(&mut self, out: &mut Emitter<'_, LogPosition>, until: Option<&LogPosition>) -> Result<Filled, Error> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let from = self.position.next;
        match self.fill_until(out, until.map_or(i64::MAX, |until| until.next), from).await {
            // What was written before the failure is handed over first.
            Err(failure) if from < self.position.next => {
                self.failure = Some(failure);
                Ok(Filled::Drained)
            }
            other => other,
        }
    }

    fn progress(&mut self, _written: &Emission<LogPosition>) -> SourceProgress {
        SourceProgress { token: self.position.token(), table_changes: std::mem::take(&mut self.table_changes) }
    }

    async fn acknowledge(&mut self, durable: Option<&LogPosition>, _written: &Emission<LogPosition>) -> Result<(), Error> {
        let Some(durable) = durable.filter(|durable| durable.epoch == self.position.epoch) else { return Ok(()) };
        let mut known = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if known.next < durable.next {
            *known = *durable;
        }
        Ok(())
    }
}
