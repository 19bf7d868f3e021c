//! Finds sessions that wait for our locks, and sessions for whose locks we wait.
//!
//! An `ALTER TABLE` of an application waits for our table lock, and later statements queue behind it. If we in turn wait for the application's
//! transaction, that is a deadlock, and the server cancels the *application's* statement. So we check often, and release our locks first.

use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::session::{Answer, Mode, Session};
use std::time::Duration;
use tokio::time::Instant;

/// The longest interval between two checks.
const INTERVAL_MAX: Duration = Duration::from_millis(250);
/// The shortest, however small the server's `deadlock_timeout` is.
const INTERVAL_MIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Watcher {
    pub(super) session: Session,
    /// The time between two checks: a quarter of the server's `deadlock_timeout`, within bounds.
    pub(crate) interval: Duration,
    checked_at: Option<Instant>,
}

impl Watcher {
    pub(crate) async fn open(options: &Options) -> Result<Self, Error> {
        let mut session = Session::open(options, Mode::Ordinary).await?;
        let interval = (deadlock_timeout(&mut session).await? / 4).clamp(INTERVAL_MIN, INTERVAL_MAX);
        Ok(Self { session, interval, checked_at: None })
    }

    /// The sessions that wait for one of our processes `ours`, in words for a person. Checks at most once per interval.
    pub(super) async fn waiting_for(&mut self, ours: &[u32]) -> Result<Option<String>, Error> {
        if ours.is_empty() || self.checked_at.is_some_and(|at| at.elapsed() < self.interval) {
            return Ok(None);
        }
        let ours = array(ours);
        // pg_locks shows to every role what others wait for; pg_stat_activity hides it from roles without privileges.
        let rows = self
            .session
            .query(&format!(
                "SELECT DISTINCT l.pid, a.application_name, a.usename, a.state, NULL FROM pg_catalog.pg_locks l \
                 LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
                 WHERE NOT l.granted AND l.pid <> ALL ({ours}) AND pg_catalog.pg_blocking_pids(l.pid) && {ours}"
            ))
            .await?;
        // Set only after the answer: a check that was cancelled does not count.
        self.checked_at = Some(Instant::now());
        Ok((!rows.is_empty()).then(|| rows.iter().map(process).collect::<Vec<_>>().join(", ")))
    }

    /// The sessions for which this process of ours waits, in words for a person.
    pub(crate) async fn blockers_of(&mut self, pid: u32) -> Result<Option<String>, Error> {
        let rows = self
            .session
            .query(&format!(
                "SELECT DISTINCT b.pid, a.application_name, a.usename, a.state, \
                 EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint \
                 FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids({pid})) b (pid) \
                 LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid"
            ))
            .await?;
        self.describe(&rows).await
    }

    /// Whether this process of ours waits for autovacuum alone. An autovacuum worker has a database and no user.
    pub(crate) async fn waits_for_autovacuum(&mut self, pid: u32) -> Result<bool, Error> {
        let answer = self
            .session
            .query_one(&format!(
                "SELECT COALESCE(pg_catalog.bool_and(COALESCE(a.usesysid IS NULL AND a.datid IS NOT NULL, false)), false) \
                 FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids({pid})) b (pid) \
                 LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid"
            ))
            .await?;
        Ok(answer.is_true(0))
    }

    /// The sessions that run these transactions, in words for a person.
    pub(super) async fn holders_of(&mut self, transactions: &[u64]) -> Result<String, Error> {
        // The lock of a transaction on its own id is the last one that it releases, and every role can see it.
        let xids: Vec<_> = transactions.iter().map(|xid| (xid & u64::from(u32::MAX)).to_string()).collect();
        let rows = self
            .session
            .query(&format!(
                "SELECT DISTINCT COALESCE(l.pid, 0), a.application_name, a.usename, a.state, \
                 EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint \
                 FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
                 WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.transactionid = ANY ('{{{}}}'::xid[])",
                xids.join(",")
            ))
            .await?;
        Ok(self.describe(&rows).await?.unwrap_or_else(|| format!("transaction {}", xids.join(", "))))
    }

    /// Describes the sessions of an answer for a person; `None` if there are none.
    async fn describe(&mut self, rows: &[Answer]) -> Result<Option<String>, Error> {
        let mut names: Vec<_> = rows.iter().filter(|row| row.text(0) != "0").map(process).collect();
        if rows.iter().any(|row| row.text(0) == "0") {
            // Process 0 stands for a prepared transaction, which has no process.
            let prepared = self.session.query("SELECT gid FROM pg_catalog.pg_prepared_xacts ORDER BY prepared LIMIT 5").await?;
            let gids: Vec<_> = prepared.iter().map(|row| format!("{:?}", row.text(0))).collect();
            names.push(format!("prepared transactions ({})", gids.join(", ")));
        }
        Ok((!names.is_empty()).then(|| names.join(", ")))
    }
}

/// The server's `deadlock_timeout`.
pub(crate) async fn deadlock_timeout(session: &mut Session) -> Result<Duration, Error> {
    let timeout = session.query_one("SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'").await?;
    Ok(timeout.text(0).parse().map_or(4 * INTERVAL_MAX, Duration::from_millis))
}

fn array(pids: &[u32]) -> String {
    let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
    format!("ARRAY[{}]::int[]", pids.join(","))
}

/// A session for a person, such as `process 4711 ("billing", user "app", idle in transaction, for 62 s)`, with the parts that the server shows.
fn process(row: &Answer) -> String {
    let mut facts = Vec::new();
    facts.extend(row.get(1).filter(|name| !name.is_empty()).map(|name| format!("{name:?}")));
    facts.extend(row.get(2).map(|user| format!("user {user:?}")));
    facts.extend(row.get(3).map(str::to_owned));
    facts.extend(row.get(4).map(|seconds| format!("for {seconds} s")));
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    format!("process {}{facts}", row.text(0))
}
