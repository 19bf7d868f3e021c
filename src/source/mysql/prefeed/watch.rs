//! Finds sessions that wait for tables that we hold, and sessions for whose locks we wait.
//!
//! A transaction that has read a table holds its definition: an `ALTER TABLE` waits for it, and later statements queue behind that. `FLUSH TABLES`
//! waits for statements that read a table. Both are seen in the server's list of processes, which needs the privilege PROCESS.

use crate::source::Answer;
use crate::source::mysql::error::Error;
use crate::source::mysql::options::Options;
use crate::source::mysql::session::Session;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// The time between two checks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Sessions that wait for a lock of whole tables, or until nobody uses a table. Waits for rows and for the query cache are others.
const WAITING: &str = "\
SELECT ID, USER, STATE, TIME, INFO FROM information_schema.PROCESSLIST \
WHERE (STATE LIKE 'Waiting for % lock' OR STATE = 'Waiting for table flush') AND STATE NOT LIKE '%query cache%' ORDER BY TIME DESC LIMIT 100";

/// Transactions that have been open for long, and locks of tables.
const OPEN: &str = "\
SELECT t.trx_mysql_thread_id, p.USER, p.COMMAND, p.TIME FROM information_schema.INNODB_TRX t \
LEFT JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id \
WHERE t.trx_mysql_thread_id NOT IN ({ours}) ORDER BY t.trx_started LIMIT 3";

/// A session that asks about others.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) session: Session,
    checked_at: Option<Instant>,
    /// What waited already before the snapshot was opened: session and statement. It waits for somebody else.
    waited_before: HashSet<(String, String)>,
}

impl Watcher {
    pub(super) const INTERVAL: Duration = INTERVAL;

    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let session = Session::open(options).await?;
        Ok(Self { session, checked_at: None, waited_before: HashSet::new() })
    }

    /// Notes who waits now, before a snapshot is opened.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        self.waited_before = self.session.query(WAITING).await?.iter().map(identity).collect();
        self.checked_at = None;
        Ok(())
    }

    /// Sessions that have begun to wait since the snapshot is open, in words for a person. Checks at most once per interval.
    pub(super) async fn waiting(&mut self) -> Result<Option<String>, Error> {
        if self.checked_at.is_some_and(|at| at.elapsed() < INTERVAL) {
            return Ok(None);
        }
        let rows = self.session.query(WAITING).await?;
        // Set only after the answer: a check that was cancelled does not count.
        self.checked_at = Some(Instant::now());
        let new: Vec<_> = rows.iter().filter(|row| !self.waited_before.contains(&identity(row))).map(process).collect();
        Ok((!new.is_empty()).then(|| new.join(", ")))
    }

    /// The oldest open transactions but those of our own sessions, in words for a person.
    pub(super) async fn open_transactions(&mut self, ours: &[u32]) -> Result<String, Error> {
        let ours: Vec<_> = ours.iter().chain([&self.session.id()]).map(u32::to_string).collect();
        let rows = self.session.query(&OPEN.replace("{ours}", &ours.join(", "))).await?;
        let names: Vec<_> = rows.iter().map(transaction).collect();
        Ok(if names.is_empty() { "another session's lock".to_owned() } else { names.join(", ") })
    }
}

fn identity(row: &Answer) -> (String, String) {
    (row.text(0).to_owned(), row.text(4).to_owned())
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
