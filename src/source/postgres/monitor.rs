//! Watches the server over a second connection while the log is read: whether commits of applications would wait for feedline, and whether
//! a silent server is working. It observes the server every second while something arrives over the log.

use super::error::Error;
use super::options::Options;
use super::quote::literal;
use super::session::{Mode, Session};
use super::standby;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The shortest time between two observations. Reading the log and its keep-alives start them, so no timer of their own is needed. It is a
/// little shorter than a heartbeat, so that every heartbeat starts one.
const INTERVAL: Duration = Duration::from_millis(900);
/// The same after an observation that failed.
const INTERVAL_FAILED: Duration = Duration::from_secs(10);
/// How long an observation may take. A later result would be out of date.
const TIMEOUT: Duration = Duration::from_secs(5);

type Running = Pin<Box<dyn Future<Output = Result<(Session, Observation), Error>> + Send>>;

/// Observes the server without making its caller wait.
pub(super) struct Monitor {
    options: Options,
    /// Process ID of the walsender that sends the log.
    walsender: u32,
    session: Option<Session>,
    running: Option<Running>,
    due: Instant,
}

/// The result of an observation.
#[derive(Debug)]
pub(super) struct Observation {
    /// Why commits of applications would wait for feedline; `None` if they would not.
    pub(super) commits_wait: Option<String>,
    /// Whether the walsender is doing something other than waiting for more log or for feedline. Asked only if it is silent.
    pub(super) is_working: Option<bool>,
}

impl Monitor {
    /// Takes over an ordinary session.
    pub(super) async fn begin(options: Options, walsender: u32, mut session: Session) -> Result<Self, Error> {
        act_as_login_role(&mut session).await?;
        Ok(Self { options, walsender, session: Some(session), running: None, due: Instant::now() })
    }

    /// Starts an observation if the last one was long enough ago and none is running.
    pub(super) fn start_if_due(&mut self, is_silent: bool) {
        if self.running.is_none() && self.due <= Instant::now() {
            self.due = Instant::now() + INTERVAL;
            self.running = Some(Box::pin(bounded(self.options.clone(), self.session.take(), is_silent.then_some(self.walsender))));
        }
    }

    /// Starts an observation of a silent walsender, if none is running.
    pub(super) fn start_now(&mut self) {
        self.due = Instant::now();
        self.start_if_due(true);
    }

    /// Waits for the running observation; for ever if there is none. Cancel safe.
    pub(super) async fn observed(&mut self) -> Result<Observation, Error> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let observed = running.as_mut().await;
        self.running = None;
        match observed {
            Ok((session, observation)) => {
                self.session = Some(session);
                Ok(observation)
            }
            Err(error) => {
                self.due = Instant::now() + INTERVAL_FAILED;
                Err(error)
            }
        }
    }
}

async fn bounded(options: Options, session: Option<Session>, walsender: Option<u32>) -> Result<(Session, Observation), Error> {
    let address = options.address();
    let late = Error::Silent { address, seconds: TIMEOUT.as_secs(), what: "an answer about its state" };
    timeout(TIMEOUT, observe(options, session, walsender)).await.unwrap_or(Err(late))
}

/// Only the role that logged in sees what its own processes do.
async fn act_as_login_role(session: &mut Session) -> Result<(), Error> {
    session.query("SET ROLE NONE").await.map(drop)
}

async fn observe(options: Options, session: Option<Session>, walsender: Option<u32>) -> Result<(Session, Observation), Error> {
    let mut session = if let Some(session) = session {
        session
    } else {
        let mut session = Session::open(&options, Mode::Ordinary).await?;
        act_as_login_role(&mut session).await?;
        session
    };
    let commits_wait = standby::check(&mut session).await?;
    let is_working = match walsender {
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
    Ok((session, Observation { commits_wait, is_working }))
}
