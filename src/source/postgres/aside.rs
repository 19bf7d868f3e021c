//! What is looked at beside the log while it is read, every second while something comes over it, on a connection of its own: whether
//! commits of applications would wait for us, and whether the server works where it says nothing.

use super::error::Error;
use super::options::Options;
use super::quote::literal;
use super::session::{Mode, Session};
use super::standby;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How often is looked at most, and how often after a look that failed. Whoever keeps the log alive or reads it asks, so that no timer of
/// our own has to wake; this is a little less than a heartbeat, so that none of those is passed over.
const INTERVAL: Duration = Duration::from_millis(900);
const INTERVAL_FAILED: Duration = Duration::from_secs(10);
/// How long a look may take: it would say nothing of now any more.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

type Looking = Pin<Box<dyn Future<Output = Result<(Session, Seen), Error>> + Send>>;

/// Looks, without holding up who asks.
pub(super) struct Aside {
    options: Options,
    /// The server's process that sends the log.
    walsender: u32,
    session: Option<Session>,
    looking: Option<Looking>,
    due: Instant,
}

/// What a look shows.
#[derive(Debug)]
pub(super) struct Seen {
    /// Why commits would wait for us.
    pub(super) commits_wait: Option<String>,
    /// Whether the walsender is busy with something other than waiting for more log or for us. Asked only where it is silent.
    pub(super) works: Option<bool>,
}

impl Aside {
    pub(super) fn new(options: Options, walsender: u32) -> Self {
        Self { options, walsender, session: None, looking: None, due: Instant::now() }
    }

    /// Begins a look where it is time.
    pub(super) fn begin(&mut self, is_silent: bool) {
        if self.looking.is_none() && self.due <= Instant::now() {
            self.due = Instant::now() + INTERVAL;
            self.looking = Some(Box::pin(bounded(self.options.clone(), self.session.take(), is_silent.then_some(self.walsender))));
        }
    }

    /// Begins a look at a walsender that is silent, where none is under way.
    pub(super) fn begin_now(&mut self) {
        self.due = Instant::now();
        self.begin(true);
    }

    /// Waits for the look that is under way; for ever where there is none. Cancel safe.
    pub(super) async fn seen(&mut self) -> Result<Seen, Error> {
        let Some(looking) = &mut self.looking else { return std::future::pending().await };
        let looked = looking.as_mut().await;
        self.looking = None;
        match looked {
            Ok((session, seen)) => {
                self.session = Some(session);
                Ok(seen)
            }
            Err(error) => {
                self.due = Instant::now() + INTERVAL_FAILED;
                Err(error)
            }
        }
    }
}

async fn bounded(options: Options, session: Option<Session>, walsender: Option<u32>) -> Result<(Session, Seen), Error> {
    let address = options.address();
    let late = Error::Silent { address, seconds: LOOK_TIMEOUT.as_secs(), what: "a look beside the log" };
    timeout(LOOK_TIMEOUT, look(options, session, walsender)).await.unwrap_or(Err(late))
}

async fn look(options: Options, session: Option<Session>, walsender: Option<u32>) -> Result<(Session, Seen), Error> {
    let mut session = if let Some(session) = session {
        session
    } else {
        let mut session = Session::open(&options, Mode::Ordinary).await?;
        // What its own processes do is shown to the role that logged in.
        session.query("SET ROLE NONE").await?;
        session
    };
    let commits_wait = standby::check(&mut session).await?;
    let works = match walsender {
        Some(pid) => {
            let sql = format!(
                "SELECT a.state = 'active' AND COALESCE(a.wait_event_type, '') NOT IN ('Activity', 'Client') FROM pg_catalog.pg_stat_activity a \
                 JOIN pg_catalog.pg_replication_slots s ON s.active_pid = a.pid WHERE a.pid = {pid} AND s.slot_name = {}",
                literal(&options.slot)
            );
            Some(session.query(&sql).await?.first().is_some_and(|row| row.is_true(0)))
        }
        None => None,
    };
    Ok((session, Seen { commits_wait, works }))
}
