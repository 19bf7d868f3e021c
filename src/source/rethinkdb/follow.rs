//! Follows one table: its changefeed, written into the store frame by frame.

use super::error::Error;
use super::options::Options;
use super::progress::Progress;
use super::session::{Feed, Session};
use super::store::{Watched, WriterClient};
use crate::event::FeedId;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How long a feed may say nothing before its first scan is complete. A server whose queue overflows during the scan says nothing of it until
/// further changes come, and the scan never ends.
const STALL: Duration = Duration::from_mins(1);
/// How often it is reported that the server is alive, while nothing changes.
const REPORT: Duration = Duration::from_secs(5);
/// The log may have this many bytes that are not delivered. Beyond, no more changes are asked for; the server queues them, and when its queue
/// is full, the table is scanned again.
pub(super) const LOG_BYTES_MAX: u64 = 4 << 30;

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
        let failed = self.follow().await;
        self.progress.ended(self.feed);
        failed.err().unwrap_or(Error::Ended)
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
        let tid = self.writer.begin(&self.table, info).await?;
        let mut feed = session.follow(&self.table, self.options.queue_size).await?;
        let (mut is_ready, mut heard_of) = (false, Instant::now());
        loop {
            self.wait_for_space(&mut feed).await?;
            let batch = loop {
                if let Ok(batch) = timeout(REPORT, feed.next()).await {
                    break batch?;
                }
                self.progress.heard(self.feed, feed.heard_at(), is_ready);
                if !is_ready && STALL <= heard_of.elapsed() {
                    let reason = format!("the scan of table {} came to a halt; raise source.queue_size", self.table);
                    return Err(Error::FeedEnded { address: self.options.address(), reason });
                }
            };
            is_ready |= batch.is_ready();
            self.progress.received(batch.size_bytes());
            self.writer.apply(tid, batch).await?;
            heard_of = Instant::now();
            self.progress.heard(self.feed, feed.heard_at(), is_ready);
        }
    }

    /// Waits while the log is too large, and keeps the feed alive.
    async fn wait_for_space(&mut self, feed: &mut Feed) -> Result<(), Error> {
        let has_space = self.watched.wait_for(|watched| watched.log_bytes < LOG_BYTES_MAX);
        tokio::select! { biased;
            space = has_space => space.map(drop).map_err(|_| Error::Ended),
            failed = feed.keep_alive() => failed,
        }
    }
}
