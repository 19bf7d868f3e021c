//! The trimming thread: removes durable rows from the log, a few at a time, on a connection of its own. The application waits for a few
//! milliseconds at most, and delivery does not wait.

use crate::source::sqlite::database::Database;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::LogPosition;
use crate::source::sqlite::wake::Stop;
use rusqlite::{Connection, TransactionBehavior, params};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Trims one log until asked to stop.
pub(super) struct Trimmer {
    pub(super) database: Database,
    pub(super) connection: Connection,
    /// Rows before this are durable elsewhere. The newest of them stays, to prove that the log is still the same.
    pub(super) durable: Arc<Mutex<LogPosition>>,
    /// Rows from here on may have to be logged again, see the reader.
    pub(super) settled: Arc<AtomicI64>,
    pub(super) stop: Arc<Stop>,
}

impl Trimmer {
    /// Between two attempts; and while nothing new becomes durable.
    const PERIOD: Duration = Duration::from_secs(1);
    const PERIOD_IDLE: Duration = Duration::from_secs(5);
    /// Trimming begins when this many rows may be removed, or after [`Self::QUIET`]. Commits of ours must be few: each fails a transaction
    /// of the application that has read and then writes, and a writer that does not wait for the lock.
    const ROWS_MIN: i64 = 1000;
    /// After this time without trimming fewer rows are removed too.
    const QUIET: Duration = Duration::from_secs(10);
    /// The most rows in one transaction.
    const ROWS_MAX: i64 = 5000;
    /// How long a transaction may hold the write lock. The number of rows is adapted to it.
    const LOCK_MAX: Duration = Duration::from_millis(5);
    /// Between two transactions, so that writers that poll for the lock get it.
    const PAUSE: Duration = Duration::from_millis(40);

    /// Runs until asked to stop.
    pub(super) fn run(mut self) {
        let mut rows = 500;
        let mut is_warned = false;
        let mut trimmed = Instant::now();
        let mut newest = self.durable();
        // Our commits need not wait for the disk: what a power cut takes back is trimmed again. Where this fails, they do wait.
        let _waits = self.connection.execute_batch("PRAGMA synchronous = NORMAL");
        while !self.stop.is_asked() {
            let least = if Self::QUIET <= trimmed.elapsed() { 1 } else { Self::ROWS_MIN };
            match self.trim(rows, least) {
                Ok(Some(held)) => {
                    trimmed = Instant::now();
                    rows = next_rows(rows, held);
                    self.stop.sleep(Self::PAUSE);
                }
                Ok(None) => {
                    let is_idle = std::mem::replace(&mut newest, self.durable()) == newest;
                    self.stop.sleep(if is_idle { Self::PERIOD_IDLE } else { Self::PERIOD });
                }
                Err(error) if error.is_busy() => self.stop.sleep(Self::PAUSE),
                Err(error) => {
                    // The log grows, but nothing is lost. A fault of the database is met by the reader too.
                    if !std::mem::replace(&mut is_warned, true) {
                        tracing::warn!(%error, "the change log cannot be trimmed now; trying again");
                    }
                    self.stop.sleep(Self::PERIOD);
                }
            }
        }
    }

    fn durable(&self) -> LogPosition {
        *self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes up to `rows` durable rows, if there are at least `least`. Returns how long the write lock was held; `None` where nothing was to
    /// be removed.
    fn trim(&mut self, rows: i64, least: i64) -> Result<Option<Duration>, Error> {
        let durable = self.durable();
        let newest = durable.last.map_or(0, |last| last.seq);
        let limit = newest.min(self.settled.load(Ordering::Acquire));
        let Self { database, connection, .. } = self;
        let failed = |source| Error::sqlite("trim the change log", &database.path, source);
        let (log, notes, meta) = (quoted(&database.names.log), quoted(&database.names.notes), quoted(&database.names.meta));
        let (first, has_notes): (Option<i64>, bool) = connection
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
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            begun = Instant::now();
            // In a restored or emptied log the same numbers may have other rows, which are not durable elsewhere.
            database.history(&transaction).check_read(durable.next, durable.last)?;
            transaction.execute(&format!("DELETE FROM main.{log} WHERE seq < ?1"), [end]).map_err(failed)?;
            database.capture().sweep(&transaction)?;
            // A note is needed during one statement only. Notes of ignored and upserted rows are left behind.
            transaction
                .execute(&format!("DELETE FROM main.{notes} WHERE rowid IN (SELECT rowid FROM main.{notes} LIMIT ?1)"), [rows])
                .map_err(failed)?;
            transaction.execute(&format!("UPDATE main.{meta} SET trimmed = max(trimmed, ?1)"), params![end - 1]).map_err(failed)?;
            transaction.commit().map_err(failed)?;
        }
        Ok(Some(begun.elapsed()))
    }
}

/// How many rows the next transaction removes, after the last one held the lock this long.
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
    fn a_slow_disk_gets_fewer_rows() {
        assert_eq!(next_rows(5000, Duration::from_millis(40)), 2500);
        assert_eq!(next_rows(2000, Duration::from_millis(1)), 4000);
        assert_eq!(next_rows(4000, Duration::from_millis(1)), Trimmer::ROWS_MAX);
        assert_eq!(next_rows(10, Duration::from_secs(1)), 10);
    }
}
