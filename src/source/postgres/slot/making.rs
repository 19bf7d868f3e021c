//! A slot that is being made. The server waits for every transaction that is running and may change something, in any database,
//! before a slot can begin; how long that takes is up to the applications. The attempt is kept, so that it need not begin anew
//! behind transactions that came later, and whoever holds it up is named.

use crate::source::postgres::error::Error;
use crate::source::postgres::instance::Instance;
use crate::source::postgres::options::Options;
use crate::source::postgres::prefeed::watch::Watcher;
use crate::source::postgres::quote::identifier;
use crate::source::postgres::session::{Mode, Session};
use crate::source::postgres::token::Lsn;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// After how long whoever holds it up is named the first time, and how often after that.
const NAMED_AFTER: Duration = Duration::from_secs(2);
const NAMED_AGAIN: Duration = Duration::from_secs(20);

/// An attempt that is under way while this lives. Dropped, the server ends it within a second
/// (`client_connection_check_interval`), and nothing stays.
pub(crate) struct Making {
    made: Pin<Box<dyn Future<Output = Result<Lsn, Error>> + Send + Sync>>,
    /// The server's process that makes it.
    pid: u32,
    instance: Instance,
    was_named: bool,
}

impl fmt::Debug for Making {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Making").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Making {
    pub(crate) async fn begin(options: &Options) -> Result<Self, Error> {
        let mut session = Session::open(options, Mode::Replication).await?;
        session.wait_without_end();
        let (pid, instance) = (session.pid(), session.instance().clone());
        let sql = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput NOEXPORT_SNAPSHOT", identifier(&options.slot));
        let made = Box::pin(async move {
            // Whether we are still there is looked at from the beginning of a query on, which a replication command is not.
            session.query("SELECT 1").await?;
            let made = session.query_one(&sql).await?;
            made.text(1).parse().map_err(|()| Error::Protocol { what: "the slot's consistent point" })
        });
        Ok(Self { made, pid, instance, was_named: false })
    }

    /// The process of the server's that makes it.
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it is made on the server that all sessions must reach by now.
    pub(crate) fn is_there(&self, options: &Options) -> bool {
        options.server.check(&self.instance, false, &options.address()).is_ok()
    }

    /// Its consistent point, once it is made; [`Error::HeldUp`] where others hold it up: it is still being made then.
    pub(crate) async fn finished(&mut self, options: &Options) -> Result<Lsn, Error> {
        let deadline = Instant::now() + if self.was_named { NAMED_AGAIN } else { NAMED_AFTER };
        let interval = NAMED_AFTER / 8;
        let mut watcher = None;
        loop {
            tokio::select! { biased;
                made = &mut self.made => return made,
                () = sleep(interval) => {}
            }
            if deadline <= Instant::now() {
                let watcher = match &mut watcher {
                    Some(watcher) => watcher,
                    None => watcher.insert(Watcher::open(options).await?),
                };
                if let Some(by) = watcher.blockers_of(self.pid).await? {
                    self.was_named = true;
                    return Err(Error::HeldUp { slot: options.slot.clone(), by });
                }
            }
        }
    }
}
