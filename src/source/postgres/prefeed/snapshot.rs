//! Opens a snapshot whose log position is known exactly: that of a temporary replication slot. It is exported to the sessions that read.

use super::finished::VisibleTransactions;
use super::watch::Watcher;
use crate::event::Timestamp;
use crate::source::postgres::error::Error;
use crate::source::postgres::identity::System;
use crate::source::postgres::options::Options;
use crate::source::postgres::quote::{identifier, literal};
use crate::source::postgres::session::{Interrupter, Mode, Session};
use crate::source::postgres::token::{Lsn, Token};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The first pause between two checks whether the visible transactions are finished; it doubles with each check.
const FINISHED_PAUSE: Duration = Duration::from_millis(2);
/// How long an interrupted statement may take to end.
const INTERRUPT_TIMEOUT: Duration = Duration::from_secs(5);

/// An open snapshot. It ends when the value is dropped.
#[derive(Debug)]
pub(super) struct Snapshot {
    exporter: Session,
    /// Holds the locks on tables of which our role may read only some columns.
    locker: Option<Box<Session>>,
    name: String,
    /// The log position: everything before it is visible, nothing after it.
    pub(super) cut: Token,
    pub(super) opened_at: Timestamp,
    visible: VisibleTransactions,
}

/// Why a snapshot was not opened in time.
pub(super) struct Blocked {
    /// What blocks it, in words for a person.
    pub(super) by: String,
}

/// Opens a snapshot for these tables, given as quoted SQL names, within this time.
///
/// First the tables are locked (ACCESS SHARE). Without the lock, a table would look empty under the snapshot after a later `TRUNCATE` or
/// an `ALTER TABLE` that rewrites it. The server creates the slot when all transactions that were writing have ended. Then this waits until
/// ordinary sessions see all visible transactions as finished; nothing may be read before that (see `finished.rs`).
pub(super) async fn open(
    options: &Options,
    tables: &[String],
    within: Duration,
    watcher: &mut Watcher,
) -> Result<Result<Snapshot, Blocked>, Error> {
    let deadline = Instant::now() + within;
    let mut exporter = Session::open(options, Mode::Replication).await?;
    let timeline = System::read(&mut exporter).await?.timeline;
    let reading_role = watcher.session.role().to_owned();
    let locks = Locks::allowed(tables, &mut watcher.session).await?;
    let locker = if locks.by_select.is_empty() { None } else { Some(Box::new(Session::open(options, Mode::Ordinary).await?)) };
    let sessions = || locker.as_deref().into_iter().chain([&exporter]);
    let (ours, interrupters): (Vec<u32>, Vec<Interrupter>) =
        sessions().map(|session| (session.pid(), session.interrupter(options))).unzip();
    let mut opening = Box::pin(begin(exporter, locker, locks, timeline, &reading_role));
    let mut blockers = None;
    loop {
        let by = tokio::select! { biased;
            opened = &mut opening => match too_large_is_blocked(opened)? {
                Ok(snapshot) => return wait_until_finished(snapshot, deadline, watcher).await,
                Err(blocked) => return Ok(Err(blocked)),
            },
            () = sleep(watcher.interval) => {
                if let Some(waiting) = watcher.waiting_for(&ours).await? {
                    our_lock(&waiting)
                } else if deadline <= Instant::now() {
                    blockers.unwrap_or_else(|| "the server".to_owned())
                } else {
                    for pid in &ours {
                        blockers = watcher.blockers_of(*pid).await?.or(blockers);
                    }
                    continue;
                }
            }
        };
        interrupt(&interrupters, opening).await;
        return Ok(Err(Blocked { by }));
    }
}

fn our_lock(waiting: &str) -> String {
    format!("our table lock, for which {waiting} waits,")
}

/// Waits until ordinary sessions see every transaction that the snapshot shows as finished. Releases the snapshot at the deadline, or when
/// another session waits for one of our locks.
async fn wait_until_finished(snapshot: Snapshot, deadline: Instant, watcher: &mut Watcher) -> Result<Result<Snapshot, Blocked>, Error> {
    let mut pause = FINISHED_PAUSE;
    loop {
        let unfinished = snapshot.visible.unfinished(&visible_transactions(&mut watcher.session).await?);
        if unfinished.is_empty() {
            return Ok(Ok(snapshot));
        }
        let by = if let Some(waiting) = watcher.waiting_for(&snapshot.pids()).await? {
            our_lock(&waiting)
        } else if deadline <= Instant::now() {
            format!(
                "a transaction that is committed in the log but not yet visible to others, of {}",
                watcher.holders_of(&unfinished).await?
            )
        } else {
            sleep(pause).await;
            pause = (2 * pause).min(watcher.interval);
            continue;
        };
        snapshot.release().await?;
        return Ok(Err(Blocked { by }));
    }
}

/// The transactions that the session sees as finished now.
async fn visible_transactions(session: &mut Session) -> Result<VisibleTransactions, Error> {
    let snapshot = session.query_one("SELECT pg_catalog.pg_current_snapshot()").await?;
    VisibleTransactions::parse(snapshot.text(0)).ok_or(Error::Protocol { what: "a snapshot" })
}

/// Turns the error "initial slot snapshot too large" (`SnapBuildInitialSnapshot`) into [`Blocked`]: it is transient.
fn too_large_is_blocked(opened: Result<Snapshot, Error>) -> Result<Result<Snapshot, Blocked>, Error> {
    match opened {
        Ok(snapshot) => Ok(Ok(snapshot)),
        Err(Error::Refused(error)) if error.message.contains("snapshot too large") => {
            Ok(Err(Blocked { by: format!("the number of running transactions ({})", error.message) }))
        }
        Err(error) => Err(error),
    }
}

/// Interrupts the attempt and ends its sessions, which releases its locks.
async fn interrupt(interrupters: &[Interrupter], opening: impl Future<Output = Result<Snapshot, Error>>) {
    let interrupted = async {
        for interrupter in interrupters {
            if let Err(error) = interrupter.interrupt().await {
                tracing::debug!(%error, "the attempt to open a snapshot could not be interrupted");
            }
        }
    };
    let ended = async { tokio::join!(interrupted, opening) };
    // After the timeout the sessions are closed anyway.
    let _ended = timeout(INTERRUPT_TIMEOUT, ended).await;
}

/// How tables are locked.
struct Locks {
    /// By a `SELECT` of no rows. A grant on some columns is enough for it.
    by_select: Vec<String>,
    /// By `LOCK TABLE`, which needs the privilege to read the whole table.
    by_lock: Vec<String>,
}

impl Locks {
    /// Chooses for each table the way that the session's role is allowed to use.
    async fn allowed(tables: &[String], session: &mut Session) -> Result<Self, Error> {
        if tables.is_empty() {
            return Ok(Self { by_select: Vec::new(), by_lock: Vec::new() });
        }
        let names = tables.iter().map(|table| literal(table)).collect::<Vec<_>>().join(", ");
        let partly_readable = session
            .query(&format!(
                "SELECT t.name FROM pg_catalog.unnest(ARRAY[{names}]) t (name) \
                 WHERE NOT pg_catalog.has_table_privilege(pg_catalog.to_regclass(t.name), 'SELECT')"
            ))
            .await?;
        let (by_select, by_lock) = tables.iter().cloned().partition(|table| partly_readable.iter().any(|row| row.text(0) == table));
        Ok(Self { by_select, by_lock })
    }
}

/// Locks tables and their partitions like `LOCK TABLE ... IN ACCESS SHARE MODE`, until the transaction ends. The transaction holds no
/// snapshot between its statements.
async fn lock_by_select(locker: &mut Session, tables: &[String]) -> Result<(), Error> {
    locker.query("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY").await?;
    let statements: Vec<_> = tables.iter().map(|table| format!("SELECT FROM {table} LIMIT 0")).collect();
    locker.query(&statements.join("; ")).await.map(drop)
}

async fn begin(
    mut exporter: Session,
    mut locker: Option<Box<Session>>,
    locks: Locks,
    timeline: u32,
    reading_role: &str,
) -> Result<Snapshot, Error> {
    if let Some(locker) = &mut locker {
        lock_by_select(locker, &locks.by_select).await?;
    }
    exporter.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let tables = &locks.by_lock;
    if !tables.is_empty() {
        // The role that reads the tables locks them; the login role creates the slot.
        let is_other = exporter.role() != reading_role;
        if is_other {
            exporter.query(&format!("SET LOCAL ROLE {}", identifier(reading_role))).await?;
        }
        exporter.query(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", tables.join(", "))).await?;
        if is_other {
            exporter.query("SET LOCAL ROLE NONE").await?;
        }
    }
    let slot = format!("feedline_cut_{}", exporter.pid());
    let made =
        exporter.query_one(&format!("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput USE_SNAPSHOT", identifier(&slot))).await?;
    let boundary: Lsn = made.text(1).parse().map_err(|()| Error::Protocol { what: "the slot's consistent point" })?;
    let opened_at = Timestamp::now();
    // The snapshot stays without the slot. The slot would keep log for nothing, and a rollback does not drop it.
    exporter.query(&format!("DROP_REPLICATION_SLOT {}", identifier(&slot))).await?;
    let name = exporter.query_one("SELECT pg_catalog.pg_export_snapshot()").await?.text(0).to_owned();
    let visible = visible_transactions(&mut exporter).await?;
    Ok(Snapshot { exporter, locker, name, cut: Token { timeline, boundary, inside: None, last: None }, opened_at, visible })
}

impl Snapshot {
    /// Starts a transaction of the session that uses the snapshot.
    pub(super) async fn import(&self, session: &mut Session) -> Result<(), Error> {
        session.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        match session.query(&format!("SET TRANSACTION SNAPSHOT {}", literal(&self.name))).await {
            // Whatever the server's message says: the exporting session is gone.
            Err(Error::Refused(error)) => Err(Error::Unavailable(error)),
            imported => imported.map(drop),
        }
    }

    /// Fails if a session that holds locks is gone. A table that was rewritten since then would look empty.
    pub(super) async fn check_held(&mut self) -> Result<(), Error> {
        for session in self.locker.as_deref_mut().into_iter().chain([&mut self.exporter]) {
            session.query("SELECT 1").await?;
        }
        Ok(())
    }

    /// The server processes that hold the locks.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.locker.as_deref().into_iter().chain([&self.exporter]).map(Session::pid).collect()
    }

    /// Releases the locks at once.
    pub(super) async fn release(mut self) -> Result<(), Error> {
        let released = self.exporter.query("ROLLBACK").await.map(drop);
        if let Some(mut locker) = self.locker {
            locker.query("ROLLBACK").await?;
        }
        released
    }
}

/// Sets these settings in the session, in addition to those of every session.
pub(super) async fn apply_settings(session: &mut Session, settings: &[(&str, &str)]) -> Result<(), Error> {
    let calls = settings.iter().map(|(name, value)| format!("pg_catalog.set_config({}, {}, false)", literal(name), literal(value)));
    let calls = calls.collect::<Vec<_>>().join(", ");
    session.query(&format!("SELECT {calls}")).await.map(drop)
}
