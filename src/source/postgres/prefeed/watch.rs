//! Looks who waits for what we hold, and who holds what we wait for.
//!
//! A table lock of ours makes an application's `ALTER TABLE` wait, and all that queues behind it. Where we wait for that
//! application's transaction in turn, the server kills *it* as the victim of the deadlock: so we look often, and let go.

use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::session::{Answer, Mode, Session};
use std::time::Duration;
use tokio::time::Instant;

/// How often is looked at least.
const INTERVAL: Duration = Duration::from_millis(250);
/// How often at most, however early the server looks for deadlocks.
const INTERVAL_MIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Watcher {
    pub(super) session: Session,
    /// How long a look holds.
    pub(crate) interval: Duration,
    looked_at: Option<Instant>,
}

impl Watcher {
    pub(crate) async fn open(options: &Options) -> Result<Self, Error> {
        let mut session = Session::open(options, Mode::Ordinary).await?;
        let timeout = session.query_one("SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'").await?;
        let timeout = timeout.text(0).parse().map_or(INTERVAL, Duration::from_millis);
        Ok(Self { session, interval: (timeout / 4).clamp(INTERVAL_MIN, INTERVAL), looked_at: None })
    }

    /// Who waits for one of these processes of ours; at most one look an interval.
    pub(super) async fn waiting_for(&mut self, ours: &[u32]) -> Result<Option<String>, Error> {
        if ours.is_empty() || self.looked_at.is_some_and(|at| at.elapsed() < self.interval) {
            return Ok(None);
        }
        let ours = array(ours);
        // What others wait for is shown to everybody in pg_locks; pg_stat_activity hides it from roles without privileges.
        let rows = self
            .session
            .query(&format!(
                "SELECT DISTINCT l.pid, a.application_name, a.usename, a.state, NULL FROM pg_catalog.pg_locks l \
                 LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
                 WHERE NOT l.granted AND l.pid <> ALL ({ours}) AND pg_catalog.pg_blocking_pids(l.pid) && {ours}"
            ))
            .await?;
        // Not before the answer: a look that was cancelled is none.
        self.looked_at = Some(Instant::now());
        Ok((!rows.is_empty()).then(|| rows.iter().map(process).collect::<Vec<_>>().join(", ")))
    }

    /// Whom this process of ours waits for.
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
        self.named(&rows).await
    }

    /// Who holds these transactions.
    pub(super) async fn holders_of(&mut self, transactions: &[u64]) -> Result<String, Error> {
        // The lock of a transaction on its own number is the last that it lets go of, and is shown to everybody.
        let numbers: Vec<_> = transactions.iter().map(|xid| (xid & u64::from(u32::MAX)).to_string()).collect();
        let rows = self
            .session
            .query(&format!(
                "SELECT DISTINCT COALESCE(l.pid, 0), a.application_name, a.usename, a.state, \
                 EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint \
                 FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
                 WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.transactionid = ANY ('{{{}}}'::xid[])",
                numbers.join(",")
            ))
            .await?;
        Ok(self.named(&rows).await?.unwrap_or_else(|| format!("transaction {}", numbers.join(", "))))
    }

    /// The processes of an answer, for a person.
    async fn named(&mut self, rows: &[Answer]) -> Result<Option<String>, Error> {
        let mut names: Vec<_> = rows.iter().filter(|row| row.text(0) != "0").map(process).collect();
        if rows.iter().any(|row| row.text(0) == "0") {
            // Process 0 stands for a transaction that is prepared and has no process any more.
            let prepared = self.session.query("SELECT gid FROM pg_catalog.pg_prepared_xacts ORDER BY prepared LIMIT 5").await?;
            let gids: Vec<_> = prepared.iter().map(|row| format!("{:?}", row.text(0))).collect();
            names.push(format!("prepared transactions ({})", gids.join(", ")));
        }
        Ok((!names.is_empty()).then(|| names.join(", ")))
    }
}

fn array(pids: &[u32]) -> String {
    let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
    format!("ARRAY[{}]::int[]", pids.join(","))
}

/// `process 4711 ("billing", user "app", idle in transaction, for 62 s)`, as far as the server tells.
fn process(row: &Answer) -> String {
    let mut facts = Vec::new();
    facts.extend(row.get(1).filter(|name| !name.is_empty()).map(|name| format!("{name:?}")));
    facts.extend(row.get(2).map(|user| format!("user {user:?}")));
    facts.extend(row.get(3).map(str::to_owned));
    facts.extend(row.get(4).map(|seconds| format!("for {seconds} s")));
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    format!("process {}{facts}", row.text(0))
}
