//! The probe: whether everything that the server has shown is delivered, and whether it shows everything at once.

use super::error::Error;
use super::options::Options;
use super::progress::Progress;
use super::store;
use super::token::LogPosition;
use crate::checkpoint::ResumeToken;
use crate::feed::Feeds;
use crate::source::{LogToken as _, Probe};
use crate::status::LogHead;
use std::sync::Arc;
use std::time::Duration;

/// A feed whose server was not heard for this long may have changes that nobody sees: the longest time without a heartbeat.
const HEARD_WITHIN: Duration = Duration::from_secs(40);

/// Looks at the end of one store's log, and at the feeds that fill it.
pub struct LogProbe {
    pub(super) options: Options,
    pub(super) feeds: Arc<Feeds>,
    pub(super) progress: Progress,
}

/// The share of the local log's bound that is left.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn headroom(bytes: u64, bytes_max: u64) -> f64 {
    1.0 - (bytes.min(bytes_max) as f64 / bytes_max as f64)
}

impl Probe for LogProbe {
    type Error = Error;

    /// It opens no connection: the feeds' own connections, which prove their server, answer heartbeats.
    async fn head(&mut self, confirmed: &ResumeToken) -> Result<LogHead, Error> {
        let position = LogPosition::parse(confirmed)?;
        let (path, pipeline) = (self.options.store.clone(), Arc::clone(&self.options.pipeline));
        let reading = tokio::task::spawn_blocking(move || {
            let (connection, _) = store::open(&path, &pipeline)?.ok_or_else(|| Error::StoreLost { path: path.clone() })?;
            store::next_seq(&connection).map_err(|source| Error::store("read the head of", &path, source))
        });
        let next = reading.await.map_err(|_| Error::Ended)??;
        let followed = self.progress.watch();
        let tables = followed.borrow();
        let is_followed = self
            .feeds
            .iter()
            .all(|feed| tables.get(&feed.id).is_some_and(|followed| followed.is_ready && followed.heard_at.elapsed() < HEARD_WITHIN));
        // What is confirmed is removed: nothing else is behind.
        let log_bytes = self.progress.log_bytes();
        Ok(LogHead {
            caught_up: is_followed && next <= position.next,
            // Its log has followed tables alone.
            reached_at: None,
            lag_bytes: log_bytes,
            retained_bytes: log_bytes,
            xmin_age: None,
            headroom_ratio: log_bytes.map(|bytes| headroom(bytes, self.options.store_log_max_bytes)),
            // Times of changes are those at which feedline received them. The head is not known while the server does not answer.
            clock_offset_seconds: is_followed.then_some(0.0),
        })
    }
}
