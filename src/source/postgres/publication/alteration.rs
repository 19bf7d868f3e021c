//! Runs the statements that create or change the publication. They lock the tables, and so wait for a session that has locked one.
//!
//! The lock conflicts with no read or write, but with `VACUUM`, `CREATE INDEX CONCURRENTLY` and most of `ALTER TABLE` (PostgreSQL
//! documentation, 13.3.1, SHARE UPDATE EXCLUSIVE).

use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::prefeed::watch::{self, Watcher};
use crate::source::postgres::session::Session;
use std::pin::pin;
use std::time::Duration;
use tokio::time::sleep;

/// Who held a table that the statements lock.
#[derive(Debug)]
struct Blocked {
    /// In words for a person.
    by: String,
    is_autovacuum: bool,
}

/// Runs the statements in one transaction.
///
/// # Errors
/// [`Error::HeldUp`] where a table stays locked, with who holds it. Nothing is changed then.
pub(super) async fn run(options: &Options, sql: &str, session: &mut Session) -> Result<(), Error> {
    let timeout = watch::deadlock_timeout(session).await?;
    // Shorter than the server's `deadlock_timeout`: in a deadlock these statements give way, and the application's do not fail.
    let mut blocked = attempt(options, sql, timeout * 3 / 4, session).await?;
    if blocked.as_ref().is_some_and(|blocked| blocked.is_autovacuum) {
        // The server ends an autovacuum for which a session has waited for `deadlock_timeout`.
        blocked = attempt(options, sql, 2 * timeout, session).await?;
    }
    match blocked {
        None => Ok(()),
        Some(Blocked { by, .. }) => Err(Error::HeldUp { what: format!("publication {:?} is made", options.publication), by }),
    }
}

/// Runs them unless a lock cannot be had within this time. Returns who held the table then.
async fn attempt(options: &Options, sql: &str, within: Duration, session: &mut Session) -> Result<Option<Blocked>, Error> {
    let pid = session.pid();
    // The server runs statements that are sent together in one transaction.
    let sql = format!("SET LOCAL lock_timeout = {}; {sql}", within.as_millis());
    let mut done = pin!(session.query(&sql));
    let (mut watcher, mut blocked) = (None, None);
    loop {
        tokio::select! { biased;
            done = &mut done => return match done {
                Ok(_) => Ok(None),
                Err(Error::Refused(error)) if error.is_lock_timeout() => {
                    Ok(Some(blocked.unwrap_or(Blocked { by: error.message, is_autovacuum: false })))
                }
                Err(error) => Err(error),
            },
            () = sleep(within / 3) => {}
        }
        // Another connection is only needed where these wait.
        let watcher = match &mut watcher {
            Some(watcher) => watcher,
            None => watcher.insert(Watcher::open(options).await?),
        };
        if let Some(by) = watcher.blockers_of(pid).await? {
            blocked = Some(Blocked { by, is_autovacuum: watcher.waits_for_autovacuum(pid).await? });
        }
    }
}
