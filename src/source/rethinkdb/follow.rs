//! Follows one table: its changefeed, written into the store frame by frame.

use super::error::Error;
use super::feed_end::FeedEnd;
use super::options::Options;
use super::progress::Progress;
use super::session::{Feed, Session};
use super::store::{Watched, WriterClient};
use crate::event::FeedId;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long a feed may say nothing before its first scan is complete. A server whose queue overflows during the scan says nothing of it until
/// further changes come, and the scan never ends.
const STALL: Duration = Duration::from_mins(1);

/// What is needed to follow a table.
#[derive(Clone, Debug)]
pub(super) struct Follow {
    pub(super) options: Options,
    pub(super) feed: FeedId,
    pub(super) table: String,
    pub(super) database_uuid: String,
    pub(super) writer: WriterClient,
    pub(super) watched: watch::Receiver<Watched>,
    pub(super) progress: Progress,
}

impl Follow {
    /// Follows the table until something fails.
    pub(super) async fn run(mut self) -> Error {
        let failed = self.follow().await.err().unwrap_or(Error::Ended);
        self.progress.ended(self.feed, matches!(&failed, Error::FeedEnded { reason, .. } if reason.has_left_out()));
        failed
    }

    async fn follow(&mut self) -> Result<(), Error> {
        let mut session = Session::open(&self.options).await?;
        let info = session.table_info(&self.table).await?.ok_or_else(|| Error::TableGone { table: self.table.clone() })?;
        if info.database_uuid != self.database_uuid {
            return Err(Error::Foreign {
                address: session.address().to_owned(),
                database: self.options.database.clone(),
                what: format!("its UUID is {}", info.database_uuid),
            });
        }
        let documents = info.documents;
        let tid = self.writer.begin(&self.table, info).await?;
        self.progress.scan_begins(self.feed, documents);
        let mut feed = session.follow(&self.table, self.options.queue_size).await?;
        let (mut looks, mut heard_of, mut was_full) = (self.progress.looks(), Instant::now(), false);
        loop {
            if self.wait_for_space(&mut feed, was_full).await? {
                // Nothing was asked for meanwhile.
                (was_full, heard_of) = (true, Instant::now());
            }
            let batch = loop {
                tokio::select! { biased;
                    said = feed.next() => match said? {
                        Some(batch) => break batch,
                        None => self.progress.shown(self.feed, feed.shown_until()),
                    },
                    _ = looks.changed() => feed.hurry(),
                    () = sleep_until(heard_of + STALL), if feed.shown_until().is_none() => {
                        let reason = FeedEnd::Stalled { table: self.table.clone() };
                        return Err(Error::FeedEnded { address: self.options.address(), reason });
                    }
                }
            };
            self.progress.received(batch.size_bytes());
            self.writer.apply(tid, batch).await?;
            heard_of = Instant::now();
            self.progress.shown(self.feed, feed.shown_until());
        }
    }

    /// Waits while the log is too large, and keeps the feed alive. The server queues changes meanwhile; if its queue is full, it tells so,
    /// and the table is scanned again. Returns whether it waited; the log tells that once.
    async fn wait_for_space(&mut self, feed: &mut Feed, was_full: bool) -> Result<bool, Error> {
        let bytes_max = self.options.store_log_max_bytes;
        let has_space = |watched: &Watched| watched.log_bytes < bytes_max;
        let is_full = !has_space(&self.watched.borrow());
        if is_full && !was_full {
            tracing::warn!(table = %self.table, bytes_max, "the local log is full: no changes are asked for until the broker has confirmed some");
        }
        let has_space = self.watched.wait_for(has_space);
        tokio::select! { biased;
            space = has_space => space.map(|_| is_full).map_err(|_| Error::Ended),
            failed = feed.keep_alive() => failed.map(|()| is_full),
        }
    }
}
