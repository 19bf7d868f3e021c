//! A snapshot whose exact place in the log is known: a temporary replication slot's, exported to the sessions that read.

use super::finished::Shown;
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

/// How long is waited before the next look whether the transactions that a snapshot shows are finished, at first.
const FINISHED: Duration = Duration::from_millis(2);
/// How long an interrupted statement may take to end.
const INTERRUPTED: Duration = Duration::from_secs(5);

/// A snapshot that is open while it lives.
#[derive(Debug)]
pub(super) struct Snapshot {
    exporter: Session,
    /// Holds the locks of tables of which our role may read some columns alone.
    locker: Option<Box<Session>>,
    name: String,
    /// All before it is visible, nothing after it.
    pub(super) cut: Token,
    pub(super) opened_at: Timestamp,
    shown: Shown,
}

/// What stood in the way of an attempt.
pub(super) struct Blocked {
    /// Who, and with what, for a person.
    pub(super) by: String,
}

/// Opens one over these tables, named as SQL does, within this time.
///
/// The tables are locked first and softly (ACCESS SHARE): after a rewriting `ALTER TABLE` or a `TRUNCATE` that comes later
/// than the snapshot they would look empty under it. Making the slot waits for all transactions that are writing, and what
/// ended meanwhile is waited for until it is finished for everybody: before that nothing may be read.
pub(super) async fn open(
    options: &Options,
    tables: &[String],
    within: Duration,
    watcher: &mut Watcher,
) -> Result<Result<Snapshot, Blocked>, Error> {
    let deadline = Instant::now() + within;
    let mut exporter = Session::open(options, Mode::Replication).await?;
    let timeline = System::read(&mut exporter).await?.timeline;
    let reads_as = watcher.session.role().to_owned();
    let locks = Locks::by_right(tables, &mut watcher.session).await?;
    let locker = if locks.read.is_empty() { None } else { Some(Box::new(Session::open(options, Mode::Ordinary).await?)) };
    let sessions = || locker.as_deref().into_iter().chain([&exporter]);
    let (ours, interrupters): (Vec<u32>, Vec<Interrupter>) =
        sessions().map(|session| (session.pid(), session.interrupter(options))).unzip();
    let mut opening = Box::pin(begin(exporter, locker, locks, timeline, &reads_as));
    let mut blockers = None;
    loop {
        let by = tokio::select! { biased;
            opened = &mut opening => match unless_crowded(opened)? {
                Ok(snapshot) => return finished(snapshot, deadline, watcher).await,
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
    format!("a table's lock of ours, for which {waiting} waits,")
}

/// Waits until every transaction that the snapshot shows is finished for ordinary sessions too; lets go of the snapshot where that takes
/// longer than allowed, or somebody waits for us.
async fn finished(snapshot: Snapshot, deadline: Instant, watcher: &mut Watcher) -> Result<Result<Snapshot, Blocked>, Error> {
    let mut pause = FINISHED;
    loop {
        let unfinished = snapshot.shown.unfinished(&shown(&mut watcher.session).await?);
        if unfinished.is_empty() {
            return Ok(Ok(snapshot));
        }
        let by = if let Some(waiting) = watcher.waiting_for(&snapshot.pids()).await? {
            our_lock(&waiting)
        } else if deadline <= Instant::now() {
            format!("a transaction that is committed in the log and not yet for others, of {}", watcher.holders_of(&unfinished).await?)
        } else {
            sleep(pause).await;
            pause = (2 * pause).min(watcher.interval);
            continue;
        };
        snapshot.release().await?;
        return Ok(Err(Blocked { by }));
    }
}

/// What the session sees now: of an ordinary one, which transactions are finished.
async fn shown(session: &mut Session) -> Result<Shown, Error> {
    let shown = session.query_one("SELECT pg_catalog.pg_current_snapshot()").await?;
    Shown::parse(shown.text(0)).ok_or(Error::Protocol { what: "a snapshot" })
}

/// Too many transactions at once pass by themselves (`SnapBuildInitialSnapshot`).
fn unless_crowded(opened: Result<Snapshot, Error>) -> Result<Result<Snapshot, Blocked>, Error> {
    match opened {
        Ok(snapshot) => Ok(Ok(snapshot)),
        Err(Error::Refused(error)) if error.message.contains("snapshot too large") => {
            Ok(Err(Blocked { by: format!("the number of running transactions ({})", error.message) }))
        }
        Err(error) => Err(error),
    }
}

/// Lets go of what was locked; the session ends with it.
async fn interrupt(interrupters: &[Interrupter], opening: impl Future<Output = Result<Snapshot, Error>>) {
    let interrupted = async {
        for interrupter in interrupters {
            if let Err(error) = interrupter.interrupt().await {
                tracing::debug!(%error, "the attempt could not be interrupted");
            }
        }
    };
    let ended = async { tokio::join!(interrupted, opening) };
    // What has not ended by then ends with its sessions.
    let _ended = timeout(INTERRUPTED, ended).await;
}

/// How tables are locked.
struct Locks {
    /// By reading none of their rows, which a grant of columns is enough for.
    read: Vec<String>,
    /// By `LOCK TABLE`, which asks for the right to read the whole table.
    whole: Vec<String>,
}

impl Locks {
    /// As the session's role may.
    async fn by_right(tables: &[String], session: &mut Session) -> Result<Self, Error> {
        if tables.is_empty() {
            return Ok(Self { read: Vec::new(), whole: Vec::new() });
        }
        let names = tables.iter().map(|table| literal(table)).collect::<Vec<_>>().join(", ");
        let closed = session
            .query(&format!(
                "SELECT t.name FROM pg_catalog.unnest(ARRAY[{names}]) t (name) \
                 WHERE NOT pg_catalog.has_table_privilege(pg_catalog.to_regclass(t.name), 'SELECT')"
            ))
            .await?;
        let (read, whole) = tables.iter().cloned().partition(|table| closed.iter().any(|row| row.text(0) == table));
        Ok(Self { read, whole })
    }
}

/// Locks tables and their partitions as `LOCK TABLE ... IN ACCESS SHARE MODE` does, until the transaction ends; between its statements
/// it has no snapshot.
async fn lock_by_reading(locker: &mut Session, tables: &[String]) -> Result<(), Error> {
    locker.query("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY").await?;
    let statements: Vec<_> = tables.iter().map(|table| format!("SELECT FROM {table} LIMIT 0")).collect();
    locker.query(&statements.join("; ")).await.map(drop)
}

async fn begin(
    mut exporter: Session,
    mut locker: Option<Box<Session>>,
    locks: Locks,
    timeline: u32,
    reads_as: &str,
) -> Result<Snapshot, Error> {
    if let Some(locker) = &mut locker {
        lock_by_reading(locker, &locks.read).await?;
    }
    exporter.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let tables = &locks.whole;
    if !tables.is_empty() {
        // Tables are locked by the role that reads them; a slot is made by the one that logs in.
        let is_other = exporter.role() != reads_as;
        if is_other {
            exporter.query(&format!("SET LOCAL ROLE {}", identifier(reads_as))).await?;
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
    // The snapshot stays; the slot would keep log for nothing, and no rollback drops it.
    exporter.query(&format!("DROP_REPLICATION_SLOT {}", identifier(&slot))).await?;
    let name = exporter.query_one("SELECT pg_catalog.pg_export_snapshot()").await?.text(0).to_owned();
    let shown = shown(&mut exporter).await?;
    Ok(Snapshot { exporter, locker, name, cut: Token { timeline, boundary, inside: None, last: None }, opened_at, shown })
}

impl Snapshot {
    /// The session shows from now on what the snapshot shows.
    pub(super) async fn import(&self, session: &mut Session) -> Result<(), Error> {
        session.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        match session.query(&format!("SET TRANSACTION SNAPSHOT {}", literal(&self.name))).await {
            // Whatever the server makes of the name: the session that exported it is gone.
            Err(Error::Refused(error)) => Err(Error::Unavailable(error)),
            imported => imported.map(drop),
        }
    }

    /// Fails where the locks are gone with their session: a table that was written anew since looks empty.
    pub(super) async fn check_held(&mut self) -> Result<(), Error> {
        for session in self.locker.as_deref_mut().into_iter().chain([&mut self.exporter]) {
            session.query("SELECT 1").await?;
        }
        Ok(())
    }

    /// The processes that hold the locks.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.locker.as_deref().into_iter().chain([&self.exporter]).map(Session::pid).collect()
    }

    /// Lets go of the locks at once.
    pub(super) async fn release(mut self) -> Result<(), Error> {
        let released = self.exporter.query("ROLLBACK").await.map(drop);
        if let Some(mut locker) = self.locker {
            locker.query("ROLLBACK").await?;
        }
        released
    }
}

/// What a session is told beside what all are.
pub(super) async fn settle_in(session: &mut Session, settings: &[(&str, &str)]) -> Result<(), Error> {
    let calls = settings.iter().map(|(name, value)| format!("pg_catalog.set_config({}, {}, false)", literal(name), literal(value)));
    let calls = calls.collect::<Vec<_>>().join(", ");
    session.query(&format!("SELECT {calls}")).await.map(drop)
}
