//! Chooses the timestamp of each record, and warns about events that are too old or ahead of the clock for their topic.

use super::error::Error;
use super::options::Stamp;
use super::produce::NOW;
use super::routes::{Destination, Routes};
use crate::batch::{Batch, Record};
use crate::event::Timestamp;
use crate::fault::Code;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the warnings are repeated.
const WARNING_INTERVAL: Duration = Duration::from_mins(10);

/// Chooses the timestamps of one session's records.
pub(super) struct Timestamps {
    stamp: Stamp,
    /// This machine's clock when the present batch was submitted, in milliseconds.
    now_ms: i64,
    /// When a warning was last logged.
    warned_at: Option<Instant>,
}

impl Timestamps {
    pub(super) const fn new(stamp: Stamp) -> Self {
        Self { stamp, now_ms: 0, warned_at: None }
    }

    /// Reads the clock for a batch, and warns if its events are about as old as their topics keep them: Kafka deletes by the timestamp.
    pub(super) fn begin_batch(&mut self, batch: &Batch, routes: &Routes) {
        const SHARE: i64 = 2;
        self.now_ms = Timestamp::now().millis();
        let is_old = |retention_ms: i64, timestamp: Timestamp| retention_ms / SHARE < self.now_ms - timestamp.millis();
        let (Some(shortest), Some(oldest)) = (routes.shortest_retention_ms(), batch.oldest_live()) else { return };
        if self.stamp == Stamp::Append || !is_old(shortest, oldest) || self.has_just_warned() {
            return;
        }
        let found = batch.records().find_map(|record| {
            let destination = routes.destination(routes.topic_of(&record));
            let retention_ms = destination.limits.retention_ms.filter(|retention| is_old(*retention, record.head.timestamp))?;
            Some((Arc::clone(&destination.name), retention_ms, (self.now_ms - record.head.timestamp.millis()) / 1000))
        });
        if let Some((topic, retention_ms, age_seconds)) = found {
            self.warned_at = Some(Instant::now());
            tracing::warn!(
                code = %Code::TopicForgets, %topic, retention_ms, age_seconds,
                "events are older than half of the time for which their topic keeps them, counted from their commit; Kafka deletes older \
                 ones as they arrive; raise retention.ms, or set sink.timestamp = \"append\""
            );
        }
    }

    /// Checks whether the topic accepts a record of this age. Dead letters carry the time at which they are sent, and are not checked.
    pub(super) fn check_age(&self, record: &Record<'_>, destination: &Destination, table: &str) -> Result<(), Error> {
        if let Some(earliest) = destination.limits.earliest(self.now_ms)
            && self.stamp == Stamp::Commit
            && !destination.is_dead_letter
            && record.head.timestamp.millis() < earliest
        {
            return Err(Error::TooOld {
                topic: destination.name.to_string(),
                table: table.to_owned(),
                id: String::from_utf8_lossy(record.id).into_owned(),
                hours: (self.now_ms - record.head.timestamp.millis()) / 3_600_000,
                limit_ms: destination.limits.max_age_ms.unwrap_or_default(),
            });
        }
        Ok(())
    }

    /// The timestamp of a record: its commit time, or [`NOW`].
    pub(super) fn of(&mut self, record: &Record<'_>, destination: &Destination, table: &str) -> i64 {
        let committed_ms = record.head.timestamp.millis();
        if self.stamp == Stamp::Append {
            return NOW;
        }
        if destination.limits.latest(self.now_ms) < committed_ms {
            // A clock that is ahead wrote the row. The event tells its commit time; the topic would refuse it as a timestamp.
            if !self.has_just_warned() {
                self.warned_at = Some(Instant::now());
                tracing::warn!(
                    code = %Code::RecordRefused,
                    event = %String::from_utf8_lossy(record.id),
                    table,
                    topic = %destination.name,
                    ahead_seconds = (committed_ms - self.now_ms) / 1000,
                    limit_ms = destination.limits.max_ahead_ms,
                    "an event's commit time is further ahead than its topic accepts (message.timestamp.after.max.ms): its record carries the time at \
                     which it is sent; set the database's clock, or raise the limit"
                );
            }
            return NOW;
        }
        committed_ms
    }

    fn has_just_warned(&self) -> bool {
        self.warned_at.is_some_and(|at| at.elapsed() < WARNING_INTERVAL)
    }
}
