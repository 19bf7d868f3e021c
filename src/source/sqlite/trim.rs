//! Removes from the log what is durable, a little at a time, on a connection of its own: the application waits for at most
//! a few milliseconds, and delivery for nothing.

use crate::feed::Feeds;
use crate::source::sqlite::capture::{Capture, Names};
use crate::source::sqlite::history::History;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::LogPosition;
use crate::source::sqlite::wake::Stop;
use crate::source::sqlite::{Error, error};
use rusqlite::{Connection, TransactionBehavior, params};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Trims one log until asked to stop.
pub(super) struct Trimmer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) names: Names,
    pub(super) feeds: Arc<Feeds>,
    /// Rows before this are durable elsewhere; the newest of them stays, as the proof that the log is still the same.
    pub(super) durable: Arc<Mutex<LogPosition>>,
    /// Rows from here on may have to be read again, see the reader.
    pub(super) settled: Arc<AtomicI64>,
    pub(super) stop: Arc<Stop>,
}

impl Trimmer {
    /// Between two looks, and between those that find nothing new that is durable.
    const PERIOD: Duration = Duration::from_secs(1);
    const PERIOD_IDLE: Duration = Duration::from_secs(5);
    /// Each commit of ours fails an application's transaction that has read and goes on to write, and a writer that does not wait:
    /// so there are few. Trimming begins when this many rows may go, or after a while.
    const ROWS_MIN: i64 = 1000;
    /// How long fewer rows are left alone.
    const QUIET: Duration = Duration::from_secs(10);
    /// The most rows in one transaction.
    const ROWS_MAX: i64 = 5000;
    /// How long a transaction may hold the write lock; the number of rows follows it.
    const LOCK_MAX: Duration = Duration::from_millis(5);
    /// Between two transactions, so that writers who poll for the lock get it.
    const PAUSE: Duration = Duration::from_millis(40);

    /// Runs until asked to stop.
    pub(super) fn run(mut self) {
        let mut rows = 500;
        let mut told = false;
        let mut trimmed = Instant::now();
        let mut seen = self.durable();
        // A trim that a power cut takes back is made again: no commit of ours waits for the disk under the lock.
        let _slower = self.connection.execute_batch("PRAGMA synchronous = NORMAL");
        while !self.stop.is_asked() {
            let least = if Self::QUIET <= trimmed.elapsed() { 1 } else { Self::ROWS_MIN };
            match self.trim(rows, least) {
                Ok(Some(held)) => {
                    trimmed = Instant::now();
                    rows = next_rows(rows, held);
                    self.stop.sleep(Self::PAUSE);
                }
                Ok(None) => {
                    let is_idle = std::mem::replace(&mut seen, self.durable()) == seen;
                    self.stop.sleep(if is_idle { Self::PERIOD_IDLE } else { Self::PERIOD });
                }
                Err(error) if error.is_busy() => self.stop.sleep(Self::PAUSE),
                Err(error) => {
                    // The log grows meanwhile, but nothing is lost: the reader meets the same fault where it is one.
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "trim the change log");
                    }
                    self.stop.sleep(Self::PERIOD);
                }
            }
        }
    }

    fn durable(&self) -> LogPosition {
        *self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes some durable rows, where there are at least so many; returns for how long the write lock was held, `None` where
    /// nothing was to be removed.
    fn trim(&mut self, rows: i64, least: i64) -> Result<Option<Duration>, Error> {
        let path = self.path.clone();
        let failed = |source| error::Error::sqlite("trim the change log", &path, source);
        let durable = self.durable();
        let newest = durable.last.map_or(0, |last| last.seq);
        let limit = newest.min(self.settled.load(Ordering::Acquire));
        let (log, notes, meta) = (quoted(&self.names.log), quoted(&self.names.notes), quoted(&self.names.meta));
        let (first, has_notes): (Option<i64>, bool) = self
            .connection
            .prepare_cached(&format!("SELECT (SELECT min(seq) FROM main.{log}), EXISTS (SELECT 1 FROM main.{notes})"))
            .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
            .map_err(failed)?;
        let end = match first {
            Some(first) if first.saturating_add(least) <= limit => limit.min(first.saturating_add(rows)),
            _ if has_notes && least == 1 => 0,
            _ => return Ok(None),
        };
        let begun;
        {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            begun = Instant::now();
            // What somebody put back meanwhile, or wrote under numbers that were taken back, is not what is durable elsewhere.
            History { connection: &transaction, names: &self.names, path: &self.path }.proved(durable.next, durable.last)?;
            transaction.execute(&format!("DELETE FROM main.{log} WHERE seq < ?1"), [end]).map_err(failed)?;
            Capture { names: &self.names, feeds: &self.feeds, path: &self.path }.sweep(&transaction)?;
            // Notes live for one statement of the application; those of ignored and upserted rows are left behind.
            transaction
                .execute(&format!("DELETE FROM main.{notes} WHERE rowid IN (SELECT rowid FROM main.{notes} LIMIT ?1)"), [rows])
                .map_err(failed)?;
            transaction.execute(&format!("UPDATE main.{meta} SET trimmed = max(trimmed, ?1)"), params![end - 1]).map_err(failed)?;
            transaction.commit().map_err(failed)?;
        }
        Ok(Some(begun.elapsed()))
    }
}

/// How many rows the next transaction removes, from how long the last one took.
fn next_rows(rows: i64, held: Duration) -> i64 {
    let next = if Trimmer::LOCK_MAX < held {
        rows / 2
    } else if held < Trimmer::LOCK_MAX / 2 {
        rows * 2
    } else {
        rows
    };
    next.clamp(10, Trimmer::ROWS_MAX)
}

#[cfg(test)]
mod tests {
    use super::{Trimmer, next_rows};
    use std::time::Duration;

    #[test]
    fn a_slow_disk_is_given_fewer_rows() {
        assert_eq!(next_rows(5000, Duration::from_millis(40)), 2500);
        assert_eq!(next_rows(2000, Duration::from_millis(1)), 4000);
        assert_eq!(next_rows(4000, Duration::from_millis(1)), Trimmer::ROWS_MAX);
        assert_eq!(next_rows(10, Duration::from_secs(1)), 10);
    }
}
