//! Opens a snapshot whose place in the log is known exactly, in several sessions.

use super::blocked::Blocked;
use super::reader::Reader;
use super::watch::Watcher;
use super::{locks, quiet, same_place};
use crate::event::Timestamp;
use crate::source::mysql::error::Error;
use crate::source::mysql::head::Head;
use crate::source::mysql::options::Options;
use crate::source::mysql::session::Session;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How many tables one statement holds.
const TABLES_PER_STATEMENT: usize = 32;
/// Numbers of the errors that a table is locked, that waiting for it would be a deadlock, and that its definition changed since the snapshot.
const CHANGING: [u16; 3] = [1205, 1213, 1412];

/// What a slice reads.
pub(super) struct Wanted {
    /// Items of a `FROM` clause: tables and queries. Their definitions must not change while they are read.
    pub(super) items: Vec<String>,
    /// All tables that are read, as quoted SQL names.
    pub(super) tables: Vec<String>,
}

/// An open snapshot, in all readers that take part.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Everything before it is visible, nothing behind it.
    pub(super) head: Head,
    pub(super) opened_at: Timestamp,
}

/// Opens a snapshot for these tables within this time. If it is blocked, the readers are to be released.
pub(super) async fn open(
    readers: &mut [Reader],
    wanted: &Wanted,
    within: Duration,
    options: &Options,
    watcher: &mut Watcher,
) -> Result<Result<Snapshot, Blocked>, Error> {
    watcher.begin().await?;
    let deadline = Instant::now() + within;
    let attempt = async {
        let head = match begin(readers, wanted, options, &mut watcher.session).await? {
            Ok(head) => head,
            Err(blocked) => return Ok(Err(blocked)),
        };
        let opened_at = Timestamp::now();
        Ok(hold(readers, wanted).await?.map(|()| Snapshot { head, opened_at }))
    };
    timeout_at(deadline, attempt).await.unwrap_or(Ok(Err(Blocked::ByTransactions)))
}

/// Begins a transaction in each reader.
async fn begin(readers: &mut [Reader], wanted: &Wanted, options: &Options, session: &mut Session) -> Result<Result<Head, Blocked>, Error> {
    if session.is_mariadb() {
        return same_place::open(readers, session).await;
    }
    match quiet::open(readers, session).await? {
        Some(head) => Ok(Ok(head)),
        None => locks::open(readers, &wanted.tables, options, session).await,
    }
}

/// Holds the definitions of all tables until the end of the transaction: a transaction that has read a table holds it. A table whose definition
/// changed after the snapshot was opened could not be read under it.
async fn hold(readers: &mut [Reader], wanted: &Wanted) -> Result<Result<(), Blocked>, Error> {
    let Some(reader) = readers.iter_mut().find(|reader| reader.is_free()) else {
        return Err(Error::Protocol { what: "a session under the snapshot" });
    };
    for items in wanted.items.chunks(TABLES_PER_STATEMENT) {
        let each: Vec<_> = items.iter().map(|item| format!("(SELECT 1 FROM {item} LIMIT 0)")).collect();
        match reader.session().query(&each.join(" UNION ALL ")).await {
            Ok(_) => {}
            Err(Error::Refused(error)) if CHANGING.contains(&error.number) => {
                return Ok(Err(Blocked::By(format!("a change of a table's definition ({error})"))));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(()))
}
