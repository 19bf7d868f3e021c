//! How far the tables are followed, for those who wait for them.

use crate::event::FeedId;
use crate::feed::Feeds;
use crate::status::metrics::SourceMetrics;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// For each table that is followed now, until when its server's changes are in the store; `None` while its scan is not complete.
type Shown = HashMap<FeedId, Option<Instant>>;

/// What the tasks that follow tables publish.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    tables: Arc<watch::Sender<Shown>>,
    /// Changes whenever somebody wants to know whether the server has more changes.
    looks: Arc<watch::Sender<()>>,
    /// About how many documents each feed's table has, once the server has told.
    documents: Arc<watch::Sender<HashMap<FeedId, u64>>>,
    /// Bytes of the local log; `None` until it is read.
    log_bytes: Arc<watch::Sender<Option<u64>>>,
    metrics: SourceMetrics,
}

impl Progress {
    pub(super) fn new(metrics: SourceMetrics) -> Self {
        Self { tables: Arc::default(), looks: Arc::default(), documents: Arc::default(), log_bytes: Arc::default(), metrics }
    }

    /// So many bytes came from a feed.
    pub(super) fn received(&self, bytes: usize) {
        self.metrics.message_received();
        self.metrics.bytes.inc_by(bytes as u64);
    }

    /// A scan of a table begins, which has about so many documents.
    pub(super) fn scan_begins(&self, feed: FeedId, documents: u64) {
        self.metrics.scans.inc();
        self.documents.send_modify(|tables| {
            tables.insert(feed, documents);
        });
    }

    /// About how many documents the feed's table has; `None` if the server does not tell within this time.
    pub(super) async fn documents(&self, feed: FeedId, within: Duration) -> Option<u64> {
        let mut tables = self.documents.subscribe();
        let told = timeout(within, tables.wait_for(|tables| tables.contains_key(&feed))).await.ok()?.ok()?;
        told.get(&feed).copied()
    }

    /// Scans have compared so many documents, and found so many changes of which nobody had told.
    pub(super) fn compared(&self, documents: u64, differences: u64) {
        self.metrics.scanned_rows.inc_by(documents);
        self.metrics.scan_differences.inc_by(differences);
    }

    /// The local log has so many bytes that are not delivered.
    pub(super) fn stored(&self, log_bytes: u64) {
        self.log_bytes.send_replace(Some(log_bytes));
    }

    /// Bytes of the local log that are not delivered; `None` until it is read.
    pub(super) fn log_bytes(&self) -> Option<u64> {
        *self.log_bytes.borrow()
    }

    /// The server of this feed was heard. Its changes until then are in the store; `None` while its scan is not complete.
    pub(super) fn shown(&self, feed: FeedId, until: Option<Instant>) {
        self.metrics.message_received();
        self.tables.send_modify(|tables| {
            tables.insert(feed, until);
        });
    }

    /// This feed has ended, perhaps because the server left changes out.
    pub(super) fn ended(&self, feed: FeedId, has_left_out: bool) {
        self.metrics.overflows.inc_by(has_left_out.into());
        self.tables.send_modify(|tables| {
            tables.remove(&feed);
        });
    }

    /// Waits until these feeds' scans are complete.
    pub(super) async fn are_complete(&self, feeds: &[FeedId]) {
        let mut tables = self.tables.subscribe();
        // The sender is held here, so that this waits for as long as it takes.
        let _complete = tables.wait_for(|tables| feeds.iter().all(|feed| tables.get(feed).is_some_and(Option::is_some))).await;
    }

    /// Until when the changes of all these feeds are in the store; `None` while one of them is scanned or not followed. Their servers are asked
    /// now, and may take this time to answer.
    pub(super) async fn shown_until(&self, feeds: &Feeds, within: Duration) -> Option<Instant> {
        let (asked_at, mut tables) = (Instant::now(), self.tables.subscribe());
        let until = |tables: &Shown| feeds.iter().map(|feed| tables.get(&feed.id).copied().flatten()).min().flatten();
        self.looks.send_replace(());
        // A scan takes its time: nobody waits for it here.
        let answered = tables.wait_for(|tables| until(tables).is_none_or(|until| asked_at <= until));
        let _shown = timeout(within, answered).await.is_ok();
        until(&self.tables.borrow())
    }

    /// Changes at each [`Self::shown_until`].
    pub(super) fn looks(&self) -> watch::Receiver<()> {
        self.looks.subscribe()
    }
}
