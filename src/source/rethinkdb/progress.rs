//! How far the tables are followed, for those who wait for them.

use crate::event::FeedId;
use crate::status::metrics::SourceMetrics;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// A table that is followed now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Followed {
    /// When the server was last heard.
    pub(super) heard_at: Instant,
    /// Whether the current scan is complete: from here on each change comes at once.
    pub(super) is_ready: bool,
}

/// What the tasks that follow tables publish.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    tables: Arc<watch::Sender<HashMap<FeedId, Followed>>>,
    /// About how many documents each feed's table has, once the server has told.
    documents: Arc<watch::Sender<HashMap<FeedId, u64>>>,
    /// Bytes of the local log; `None` until it is read.
    log_bytes: Arc<watch::Sender<Option<u64>>>,
    metrics: SourceMetrics,
}

impl Progress {
    pub(super) fn new(metrics: SourceMetrics) -> Self {
        Self { tables: Arc::default(), documents: Arc::default(), log_bytes: Arc::default(), metrics }
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

    /// The server of this feed was heard.
    pub(super) fn heard(&self, feed: FeedId, heard_at: Instant, is_ready: bool) {
        self.metrics.message_received();
        self.tables.send_modify(|tables| {
            tables.insert(feed, Followed { heard_at, is_ready });
        });
    }

    /// This feed has ended, perhaps because the server left changes out.
    pub(super) fn ended(&self, feed: FeedId, has_left_out: bool) {
        self.metrics.overflows.inc_by(has_left_out.into());
        self.tables.send_modify(|tables| {
            tables.remove(&feed);
        });
    }

    /// What is followed now.
    pub(super) fn watch(&self) -> watch::Receiver<HashMap<FeedId, Followed>> {
        self.tables.subscribe()
    }
}
