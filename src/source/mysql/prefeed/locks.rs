//! Snapshots of MySQL under locks of the tables, for a server that commits all the time.
//!
//! While its table is locked nobody commits a change of it, and what was committed before stands in the log and is visible. The locks are
//! held for milliseconds: until the snapshots are open and the end of the log is known.
//!
//! Each table is locked by a session of its own. One session for all would hold some locks while it waits for others. A transaction of an
//! application that writes first a table for which it waits, and then one that it holds, would be a deadlock, and the server ends the
//! application's transaction then (`MDL_ticket::get_deadlock_weight`).

use super::blocked::Blocked;
use super::reader::Reader;
use crate::source::mysql::error::Error;
use crate::source::mysql::head::Head;
use crate::source::mysql::options::Options;
use crate::source::mysql::session::Session;
use futures_util::future::try_join_all;
use std::time::Duration;
use tokio::time::timeout;

/// How long tables may be locked, and statements of applications wait for a lock that is not granted.
const LOCKED_MAX: Duration = Duration::from_secs(1);

/// Numbers of the errors that a lock was not granted in time, and that it would be a deadlock.
const NOT_GRANTED: [u16; 2] = [1205, 1213];

/// Begins a transaction in each reader while these tables, given as quoted SQL names, are locked.
pub(super) async fn open(
    readers: &mut [Reader],
    tables: &[String],
    options: &Options,
    session: &mut Session,
) -> Result<Result<Head, Blocked>, Error> {
    let mut lockers = Vec::with_capacity(tables.len());
    for _ in tables {
        match Session::open(options).await {
            Ok(locker) => lockers.push(locker),
            Err(Error::Full { .. }) => {
                let by = format!("the server's limit of connections, of which locking {} tables at once needs as many,", tables.len());
                return Ok(Err(Blocked::By(by)));
            }
            Err(error) => return Err(error),
        }
    }
    let opened = timeout(LOCKED_MAX, under_locks(&mut lockers, tables, readers, session)).await;
    match opened {
        Ok(Ok(head)) => {
            try_join_all(lockers.iter_mut().map(|locker| locker.query("UNLOCK TABLES"))).await?;
            Ok(Ok(head))
        }
        // The locks end with their sessions, which are closed here.
        Err(_) => Ok(Err(Blocked::ByTransactions)),
        Ok(Err(Error::Refused(error))) if NOT_GRANTED.contains(&error.number) => Ok(Err(Blocked::ByTransactions)),
        Ok(Err(error)) => Err(error),
    }
}

async fn under_locks(lockers: &mut [Session], tables: &[String], readers: &mut [Reader], session: &mut Session) -> Result<Head, Error> {
    let locked = lockers.iter_mut().zip(tables).map(async |(locker, table)| locker.query(&format!("LOCK TABLES {table} READ")).await);
    try_join_all(locked).await?;
    try_join_all(readers.iter_mut().map(Reader::begin)).await?;
    Head::read(session).await
}
