//! Creates the replication slot. The server first waits for every running transaction that may write, in any database; the applications
//! decide how long that takes. The attempt is kept between calls, so that it does not start again behind newer transactions, and the
//! transactions that delay it are named.

use crate::source::postgres::error::Error;
use crate::source::postgres::instance::Instance;
use crate::source::postgres::options::Options;
use crate::source::postgres::prefeed::watch::Watcher;
use crate::source::postgres::quote::identifier;
use crate::source::postgres::session::Session;
use crate::source::postgres::token::Lsn;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// After this time the delaying transactions are named for the first time.
const NAMED_AFTER: Duration = Duration::from_secs(2);
/// After this time they are named again.
const NAMED_AGAIN: Duration = Duration::from_secs(20);

/// A creation in progress. When it is dropped, the server ends it within a second (`client_connection_check_interval`), and nothing
/// remains.
pub(crate) struct SlotCreation {
    created: Pin<Box<dyn Future<Output = Result<Lsn, Error>> + Send + Sync>>,
    /// Process ID of the walsender that creates the slot.
    pid: u32,
    instance: Instance,
    was_named: bool,
}

impl fmt::Debug for SlotCreation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SlotCreation").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl SlotCreation {
    /// Begins it on a replication connection.
    pub(crate) fn begin(options: &Options, mut session: Session) -> Self {
        session.disable_timeout();
        let (pid, instance) = (session.pid(), session.instance().clone());
        let sql = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput NOEXPORT_SNAPSHOT", identifier(&options.slot));
        let created = Box::pin(async move {
            // The server checks the connection only once a query has run; a replication command does not count as one.
            session.query("SELECT 1").await?;
            let created = session.query_one(&sql).await?;
            created.text(1).parse().map_err(|()| Error::Protocol { what: "the slot's consistent point" })
        });
        Self { created, pid, instance, was_named: false }
    }

    /// Process ID of the walsender that creates the slot.
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the slot is created on the server that all sessions must reach now.
    pub(crate) fn is_on_this_server(&self, options: &Options) -> bool {
        options.server.check(&self.instance, false, &options.address()).is_ok()
    }

    /// Waits for the slot; returns its consistent point.
    ///
    /// # Errors
    /// [`Error::HeldUp`] if other transactions delay it. The creation goes on then: call this again.
    pub(crate) async fn finished(&mut self, options: &Options) -> Result<Lsn, Error> {
        let deadline = Instant::now() + if self.was_named { NAMED_AGAIN } else { NAMED_AFTER };
        let interval = NAMED_AFTER / 8;
        let mut watcher = None;
        loop {
            tokio::select! { biased;
                created = &mut self.created => return created,
                () = sleep(interval) => {}
            }
            if deadline <= Instant::now() {
                let watcher = match &mut watcher {
                    Some(watcher) => watcher,
                    None => watcher.insert(Watcher::open(options).await?),
                };
                if let Some(by) = watcher.blockers_of(self.pid).await? {
                    self.was_named = true;
                    return Err(Error::HeldUp { what: format!("replication slot {:?} is created", options.slot), by });
                }
            }
        }
    }
}
