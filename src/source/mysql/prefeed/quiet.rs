//! Snapshots of MySQL without a lock, in a moment in which nothing is being committed.
//!
//! A transaction owns its GTID from before it is written to the log until after its engine has committed it (MySQL 9.7 `sql/binlog.cc`,
//! `process_flush_stage_queue`, `finish_commit`). So if no GTID is owned, all that stands in the log is visible; and if the log ends at one
//! place before and after the snapshots were opened, they show exactly what stands before that place.

use super::reader::Reader;
use crate::source::mysql::error::Error;
use crate::source::mysql::head::{Head, names_transactions};
use crate::source::mysql::session::Session;
use futures_util::future::try_join_all;
use std::time::Duration;
use tokio::time::sleep;

const ATTEMPTS: usize = 40;
/// The longest pause between two attempts.
const PAUSE_MILLIS_MAX: u64 = 20;

/// Begins a transaction in each reader, in such a moment; `None` if there was none, or if the server does not name all transactions.
pub(super) async fn open(readers: &mut [Reader], session: &mut Session) -> Result<Option<Head>, Error> {
    if !names_transactions(session).await? {
        return Ok(None);
    }
    for _ in 0..ATTEMPTS {
        let before = Head::read(session).await?;
        let owned = session.query("SELECT @@GLOBAL.gtid_owned").await?;
        if owned.first().is_some_and(|row| row.text(0).is_empty()) {
            try_join_all(readers.iter_mut().map(Reader::begin)).await?;
            let after = Head::read(session).await?;
            if (&after.file, after.offset) == (&before.file, before.offset) {
                return Ok(Some(after));
            }
            try_join_all(readers.iter_mut().map(Reader::leave)).await?;
        }
        sleep(Duration::from_millis(fastrand::u64(1..=PAUSE_MILLIS_MAX))).await;
    }
    Ok(None)
}
