//! The replication slot: reads its state, and checks that the log after the token is still there.

use super::error::Error;
use super::options::Options;
use super::quote::{identifier, literal};
use super::server_error::ServerError;
use super::session::Session;
use super::token::{Lsn, Token};
use super::version;
use std::time::Duration;

mod creation;

pub(super) use creation::SlotCreation;

/// How long the test read of a slot may take.
const TEST_READ: Duration = Duration::from_secs(5);

/// The slot as the server shows it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    name: String,
    plugin: String,
    database: String,
    pub(super) active_pid: Option<u32>,
    pub(super) confirmed_flush: Option<Lsn>,
    pub(super) wal_status: String,
    invalidation_reason: Option<String>,
}

impl Slot {
    /// Reads the slot; `None` if it does not exist.
    pub(super) async fn read(name: &str, session: &mut Session) -> Result<Option<Self>, Error> {
        let reason = if session.version().shows_invalidation_reason() { "invalidation_reason" } else { "NULL" };
        let rows = session
            .query(&format!(
                "SELECT plugin, database, active_pid, confirmed_flush_lsn, wal_status, {reason} \
                 FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
                literal(name)
            ))
            .await?;
        Ok(rows.first().map(|row| Self {
            name: name.to_owned(),
            plugin: row.text(0).to_owned(),
            database: row.text(1).to_owned(),
            active_pid: row.text(2).parse().ok(),
            confirmed_flush: row.text(3).parse().ok(),
            wal_status: row.text(4).to_owned(),
            invalidation_reason: row.get(5).map(str::to_owned),
        }))
    }

    /// Refuses a slot with another plugin or of another database.
    pub(super) fn check_ours(&self, options: &Options) -> Result<(), Error> {
        let what = if self.plugin != "pgoutput" {
            format!("replication slot {:?} has plugin {:?} and not pgoutput", self.name, self.plugin)
        } else if self.database != options.database {
            format!("replication slot {:?} belongs to database {:?}", self.name, self.database)
        } else {
            return Ok(());
        };
        Err(Error::SlotUnfit { what, remedy: "set source.slot to another name".to_owned() })
    }

    fn is_lost(&self) -> bool {
        self.wal_status == "lost" || self.invalidation_reason.is_some()
    }

    /// Refuses to start from a slot whose log is lost.
    pub(super) fn check_not_lost(&self) -> Result<(), Error> {
        if !self.is_lost() {
            return Ok(());
        }
        Err(Error::SlotUnfit {
            what: format!("replication slot {:?} has lost its log", self.name),
            remedy: format!("create it again, run: {}", recreate(&self.name)),
        })
    }

    /// Refuses to start from a slot that is older than the publication, if rows were written in between: the log cannot be read beyond the
    /// first of them. A test read, which consumes nothing, makes the server say so.
    pub(super) async fn check_published(&self, options: &Options, session: &mut Session) -> Result<(), Error> {
        if self.active_pid.is_some() {
            return Ok(());
        }
        let peeked = session
            .query(&format!(
                // The server runs statements that are sent together in one transaction, and ends it after an error too.
                "SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {}; SELECT pg_catalog.count(*) FROM \
                 pg_catalog.pg_logical_slot_peek_binary_changes({}, NULL, 1, 'proto_version', '1', 'publication_names', {})",
                TEST_READ.as_millis(),
                literal(&self.name),
                literal(&identifier(&options.publication)),
            ))
            .await;
        match peeked {
            Err(Error::Refused(error)) if error.is_publication_missing() || version::is_publication_skipped(&error) => {
                Err(Error::Publication { what: published_too_late(&error), remedy: recreate(&self.name) })
            }
            // Any other error, or a timeout, shows again when the log is read.
            _ => Ok(()),
        }
    }

    /// Where the log of a slot begins that somebody created again after a gap. Refuses the slot that was read before.
    pub(super) async fn start_after(&self, token: &Token, session: &mut Session) -> Result<Lsn, Error> {
        self.check_not_lost()?;
        self.check_free(session).await?;
        match self.confirmed_flush {
            Some(confirmed) if token.boundary < confirmed => Ok(confirmed),
            _ => Err(Error::SlotUnfit {
                what: format!("replication slot {:?} is still the old one, and source.manage is false", self.name),
                remedy: format!("create it again, run: {}", recreate(&self.name)),
            }),
        }
    }

    /// Refuses to resume if the server no longer holds the log after `token`. The server itself would silently skip what is missing.
    pub(super) fn check_holds(&self, token: &Token) -> Result<(), Error> {
        if self.is_lost() {
            let why = match self.invalidation_reason.as_deref() {
                None | Some("wal_removed") => "WAL removed, see max_slot_wal_keep_size".to_owned(),
                Some("idle_timeout") => "idle for too long, see idle_replication_slot_timeout".to_owned(),
                Some(reason) => format!("invalidation_reason = {reason}"),
            };
            return Err(Error::LogLost {
                what: format!("replication slot {:?} has lost its log after {} ({why})", self.name, token.boundary),
            });
        }
        match self.confirmed_flush {
            Some(confirmed) if token.boundary < confirmed => Err(Error::LogLost {
                what: format!(
                    "replication slot {:?} was advanced by somebody else from {} to {confirmed}{}",
                    self.name,
                    token.boundary,
                    self.active_pid.map(|pid| format!(", now in use by process {pid}")).unwrap_or_default()
                ),
            }),
            Some(_) => Ok(()),
            // A slot that is still being created cannot be read.
            None => Err(Error::Busy {
                slot: self.name.clone(),
                holder: self
                    .active_pid
                    .map_or_else(|| "the process that creates it".to_owned(), |pid| format!("process {pid}, which creates it")),
            }),
        }
    }

    /// Refuses a slot that another connection reads from, and names that connection.
    pub(super) async fn check_free(&self, session: &mut Session) -> Result<(), Error> {
        let Some(pid) = self.active_pid else { return Ok(()) };
        let rows = session
            .query(&format!(
                "SELECT pg_catalog.host(client_addr), application_name, usename FROM pg_catalog.pg_stat_activity WHERE pid = {pid}"
            ))
            .await?;
        let holder = match rows.first() {
            Some(row) => {
                format!("process {pid} of {} ({:?}, user {:?})", row.get(0).unwrap_or("the server's own machine"), row.text(1), row.text(2))
            }
            None => format!("process {pid}"),
        };
        Err(Error::Busy { slot: self.name.clone(), holder })
    }
}

/// The SQL that drops the slot and creates it again at the end of the log.
fn recreate(slot: &str) -> String {
    format!("SELECT pg_drop_replication_slot({0}); SELECT pg_create_logical_replication_slot({0}, 'pgoutput')", literal(slot))
}

/// The error when the publication did not exist at a position of the log: this slot cannot be read beyond it.
pub(super) fn publication_missing(error: &ServerError, options: &Options) -> Error {
    let dropped = format!("SELECT pg_drop_replication_slot({})", literal(&options.slot));
    let statements = if options.manage { dropped } else { recreate(&options.slot) };
    Error::Publication { what: published_too_late(error), remedy: format!("{statements}, then start with source.on_gap = \"prefeed\"") }
}

fn published_too_late(error: &ServerError) -> String {
    format!("{}: it was created later than the slot, or created again", error.message)
}

/// The error when the slot of a checkpoint does not exist.
pub(super) fn gone(options: &Options, token: &Token) -> Error {
    Error::LogLost {
        what: format!(
            "replication slot {:?} no longer exists; it was read up to {} (a failover does not keep slots)",
            options.slot, token.boundary
        ),
    }
}

/// The error when the slot does not exist and feedline must not create it.
pub(super) fn missing(options: &Options) -> Error {
    Error::SlotUnfit {
        what: format!("replication slot {:?} does not exist and source.manage is false", options.slot),
        remedy: format!("run: SELECT pg_create_logical_replication_slot({}, 'pgoutput')", literal(&options.slot)),
    }
}

/// Drops the slot; returns whether there was one.
pub(super) async fn drop(options: &Options, session: &mut Session) -> Result<bool, Error> {
    let Some(slot) = Slot::read(&options.slot, session).await? else { return Ok(false) };
    slot.check_ours(options)?;
    slot.check_free(session).await?;
    session.query(&format!("SELECT pg_catalog.pg_drop_replication_slot({})", literal(&options.slot))).await?;
    Ok(true)
}
