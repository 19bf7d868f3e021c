//! How far the tables are followed, for those who wait for them.

use crate::event::FeedId;
use crate::status::metrics::SourceMetrics;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

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
    metrics: SourceMetrics,
}

impl Progress {
    pub(super) fn new(metrics: SourceMetrics) -> Self {
        Self { tables: Arc::new(watch::Sender::new(HashMap::new())), metrics }
    }

    /// So many bytes came from a feed.
    pub(super) fn received(&self, bytes: usize) {
        self.metrics.message_received();
        self.metrics.bytes.inc_by(bytes as u64);
    }

    /// The server of this feed was heard.
    pub(super) fn heard(&self, feed: FeedId, heard_at: Instant, is_ready: bool) {
        self.metrics.message_received();
        self.tables.send_modify(|tables| {
            tables.insert(feed, Followed { heard_at, is_ready });
        });
    }

    /// This feed has ended.
    pub(super) fn ended(&self, feed: FeedId) {
        self.tables.send_modify(|tables| {
            tables.remove(&feed);
        });
    }

    /// What is followed now.
    pub(super) fn watch(&self) -> watch::Receiver<HashMap<FeedId, Followed>> {
        self.tables.subscribe()
    }
}
