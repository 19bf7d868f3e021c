//! The probe: whether everything that the server has shown is delivered, and whether it shows everything at once.

use super::error::Error;
use super::options::Options;
use super::progress::Progress;
use super::session::Session;
use super::store::{self, Origin};
use super::token::LogPosition;
use crate::checkpoint::ResumeToken;
use crate::feed::{Feeds, TableName};
use crate::source::{LogToken as _, PastHeads, Probe};
use crate::status::LogHead;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the servers may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks at the end of one store's log, and at the feeds that fill it.
pub struct LogProbe {
    options: Options,
    feeds: Arc<Feeds>,
    progress: Progress,
    /// Epochs and numbers of the log.
    heads: PastHeads<(u32, i64)>,
}

impl LogProbe {
    pub(super) fn new(options: Options, feeds: Arc<Feeds>, progress: Progress) -> Self {
        Self { options, feeds, progress, heads: PastHeads::default() }
    }

    /// What the store says of itself, and the number that the next row of its log will have.
    async fn stored(&self) -> Result<(Origin, i64), Error> {
        let (path, pipeline) = (self.options.store.clone(), Arc::clone(&self.options.pipeline));
        let reading = tokio::task::spawn_blocking(move || {
            let (connection, origin) = store::open(&path, &pipeline)?.ok_or_else(|| Error::StoreLost { path: path.clone() })?;
            let next = store::next_seq(&connection).map_err(|source| Error::store("read the head of", &path, source))?;
            Ok((origin, next))
        });
        reading.await.map_err(|_| Error::Ended)?
    }
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
        let asked_at = Instant::now();
        // First, so that what they have shown is in the log that is read.
        let shown_until = self.progress.shown_until(&self.feeds, ANSWER_TIMEOUT).await;
        let (Origin { epoch, .. }, next) = self.stored().await?;
        let (head, confirmed) = ((epoch, next), (position.epoch, position.next));
        let reached_at = shown_until.and_then(|shown_until| self.heads.note(shown_until, head, &confirmed));
        let is_shown = shown_until.is_some_and(|shown_until| asked_at <= shown_until);
        // What is confirmed is removed: nothing else is behind.
        let log_bytes = self.progress.log_bytes();
        Ok(LogHead {
            caught_up: is_shown && head <= confirmed,
            reached_at,
            lag_bytes: log_bytes,
            retained_bytes: log_bytes,
            xmin_age: None,
            headroom_ratio: log_bytes.map(|bytes| headroom(bytes, self.options.store_log_max_bytes)),
            // Times of changes are those at which feedline received them. The head is not known while the server does not answer.
            clock_offset_seconds: is_shown.then_some(0.0),
        })
    }

    async fn tables(&mut self) -> Result<Vec<TableName>, Error> {
        let mut session = Session::open(&self.options).await?;
        let names = session.table_list().await?;
        // Another cluster may answer, with other tables.
        if let Some(name) = names.first()
            && let Some(info) = session.table_info(name).await?
            && info.database_uuid != self.stored().await?.0.database_uuid
        {
            let (address, database) = (self.options.address(), self.options.database.clone());
            return Err(Error::Foreign { address, database, what: format!("its UUID is {}", info.database_uuid) });
        }
        let schema: Arc<str> = self.options.database.as_str().into();
        Ok(names.into_iter().map(|name| (Arc::clone(&schema), name.into())).collect())
    }
}
