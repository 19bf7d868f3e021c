//! Finds sessions that wait for tables that we hold, and sessions for whose locks we wait.
//!
//! A transaction that has read a table holds its definition: an `ALTER TABLE` waits for it, and later statements queue behind that. `FLUSH TABLES`
//! waits for statements that read a table. Both are seen in the server's list of processes, which needs the privilege PROCESS.

use crate::source::Answer;
use crate::source::mysql::error::Error;
use crate::source::mysql::options::Options;
use crate::source::mysql::session::Session;
use std::time::Duration;
use tokio::time::Instant;

/// The time between two checks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Sessions that wait for a lock of whole tables, or until nobody uses a table. Waits for rows and for the query cache are others. What they run is
/// not asked for: the server may be unable to convert it.
const WAITING: &str = "\
SELECT ID, USER, STATE, UNIX_TIMESTAMP() - TIME FROM {processes} \
WHERE (STATE LIKE 'Waiting for % lock' OR STATE = 'Waiting for table flush') AND STATE NOT LIKE '%query cache%' ORDER BY TIME DESC LIMIT 100";

/// The transactions that have been open for longest.
const OPEN: &str = "\
SELECT t.trx_mysql_thread_id, p.USER, p.COMMAND, p.TIME FROM information_schema.INNODB_TRX t \
LEFT JOIN {processes} p ON p.ID = t.trx_mysql_thread_id WHERE t.trx_mysql_thread_id NOT IN ({ours}) ORDER BY t.trx_started LIMIT 3";

/// A session that asks about others.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) session: Session,
    checked_at: Option<Instant>,
    /// What waited already before the snapshot was opened. It waits for somebody else.
    waited_before: Vec<Waiter>,
}

/// A session that waits: its number, and when its statement began, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiter {
    id: u64,
    since: i64,
}

impl Waiter {
    fn of(row: &Answer) -> Self {
        Self { id: row.text(0).parse().unwrap_or_default(), since: row.text(3).parse().unwrap_or_default() }
    }

    /// Whether it is the same statement. The server counts whole seconds.
    const fn is(&self, other: &Self) -> bool {
        self.id == other.id && self.since.abs_diff(other.since) <= 1
    }
}

impl Watcher {
    pub(super) const INTERVAL: Duration = INTERVAL;

    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let session = Session::open(options).await?;
        Ok(Self { session, checked_at: None, waited_before: Vec::new() })
    }

    /// A statement about all sessions.
    async fn ask(&mut self, statement: &str) -> Result<Vec<Answer>, Error> {
        let statement = statement.replace("{processes}", self.session.version().process_list());
        self.session.query(&statement).await
    }

    /// Notes who waits now, before a snapshot is opened.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        self.checked_at = None;
        self.waited_before = match self.ask(WAITING).await {
            Ok(rows) => rows.iter().map(Waiter::of).collect(),
            Err(Error::Refused(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// Sessions that have begun to wait since the snapshot is open, in words for a person. Checks at most once per interval.
    pub(super) async fn waiting(&mut self) -> Result<Option<String>, Error> {
        if self.checked_at.is_some_and(|at| at.elapsed() < INTERVAL) {
            return Ok(None);
        }
        let rows = self.ask(WAITING).await;
        // Set only after the answer: a check that was cancelled does not count.
        self.checked_at = Some(Instant::now());
        let rows = match rows {
            Ok(rows) => rows,
            // Then somebody may wait. It must not end the session, which goes on in the next slice.
            Err(Error::Refused(error)) => return Ok(Some(format!("perhaps a session: {error}"))),
            Err(error) => return Err(error),
        };
        let is_new = |row: &&Answer| !self.waited_before.iter().any(|known| known.is(&Waiter::of(row)));
        let new: Vec<_> = rows.iter().filter(is_new).map(process).collect();
        Ok((!new.is_empty()).then(|| new.join(", ")))
    }

    /// The oldest open transactions but those of our own sessions, in words for a person.
    pub(super) async fn open_transactions(&mut self, ours: &[u32]) -> Result<String, Error> {
        let ours: Vec<_> = ours.iter().chain([&self.session.id()]).map(u32::to_string).collect();
        let rows = match self.ask(&OPEN.replace("{ours}", &ours.join(", "))).await {
            Ok(rows) => rows,
            Err(Error::Refused(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        let names: Vec<_> = rows.iter().map(transaction).collect();
        Ok(if names.is_empty() { "another session's lock or transaction".to_owned() } else { names.join(", ") })
    }
}

/// A session for a person: `session 15 (user "app", Waiting for table metadata lock)`.
fn process(row: &Answer) -> String {
    format!("session {} (user {:?}, {})", row.text(0), row.text(1), row.text(2))
}

/// A transaction for a person: `session 15 (user "app", Sleep for 62 s)`. One that is prepared has no session.
fn transaction(row: &Answer) -> String {
    match row.text(0) {
        "0" => "a prepared XA transaction (XA RECOVER lists it)".to_owned(),
        id => format!("session {id} (user {:?}, {} for {} s)", row.text(1), row.text(2), row.text(3)),
    }
}

#[cfg(test)]
mod tests {
    use super::Waiter;

    #[test]
    fn a_later_statement_of_the_same_session_is_another_waiter() {
        let waiter = Waiter { id: 7, since: 100 };
        assert!(waiter.is(&Waiter { id: 7, since: 101 }));
        assert!(!waiter.is(&Waiter { id: 7, since: 102 }) && !waiter.is(&Waiter { id: 8, since: 100 }));
    }
}
