//! What can go wrong with a PostgreSQL server, sorted by what can be done about it.

use super::server_error::ServerError;
use crate::event::{FeedId, RowError};
use crate::fault::{Classify, Code, Fault};
use std::io;

/// Why a PostgreSQL source could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A prefeed's file.
    #[error(transparent)]
    Dataset(#[from] crate::source::file::Error),
    /// No connection, or it broke.
    #[error("connection to PostgreSQL at {address} failed: {source}; check source.host and source.port, and that the server runs")]
    Connection {
        /// Host and port.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("PostgreSQL at {address} did not answer for {seconds} s: {what}; check the server, and the network to it")]
    Silent {
        /// Host and port.
        address: String,
        /// How long was waited.
        seconds: u64,
        /// What was waited for.
        what: &'static str,
    },
    /// Another server answers than the one whose log is read.
    #[error(
        "another server answers at {address} than the one that the pipeline reads from; let source.host lead to one server, the primary"
    )]
    Elsewhere {
        /// Host and port.
        address: String,
        /// Whether it follows a primary.
        is_standby: bool,
    },
    /// The server follows another one, or is not yet a primary.
    #[error("PostgreSQL at {address} is a standby; set source.host to the primary, or wait until it is promoted")]
    Standby {
        /// Host and port.
        address: String,
    },
    /// Commits of applications would wait for us.
    #[error("PostgreSQL at {address} is not read from: {reason}")]
    CommitsWait {
        /// Host and port.
        address: String,
        /// Which setting says so, and what to do about it.
        reason: String,
    },
    /// The user, the password or `pg_hba.conf` do not let us in.
    #[error("PostgreSQL at {address} refused user {user:?}: {reason}; check source.user, source.password_file and pg_hba.conf")]
    Authentication {
        /// Host and port.
        address: String,
        /// The configured user.
        user: String,
        /// What the server or the handshake said.
        reason: String,
    },
    /// The server has not proved who it is, and wants to know or to let us in without that.
    #[error(
        "PostgreSQL at {address} {what} and has not proved who it is; set source.tls = \"verify_full\", let the server use SCRAM, or accept it: \
         source.require_auth = \"{accepted_by}\""
    )]
    Unproven {
        /// Host and port.
        address: String,
        /// What it asks for.
        what: &'static str,
        /// The setting that accepts it.
        accepted_by: &'static str,
    },
    /// No encrypted connection to the server that was meant.
    #[error("TLS with PostgreSQL at {address} failed: {reason}")]
    Tls {
        /// Host and port.
        address: String,
        /// What failed and what to do about it.
        reason: String,
    },
    /// The database does not exist.
    #[error("database {database:?} does not exist on PostgreSQL at {address}; check source.database")]
    DatabaseMissing {
        /// Host and port.
        address: String,
        /// The configured database.
        database: String,
    },
    /// A privilege is missing.
    #[error("{what}; run: {remedy}")]
    Privilege {
        /// What is not allowed.
        what: String,
        /// The SQL that allows it.
        remedy: String,
    },
    /// The server cannot serve a changefeed as it is.
    #[error("PostgreSQL at {address} cannot serve a changefeed: {reason}")]
    Unsuitable {
        /// Host and port.
        address: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// The publication is not as the feeds need it.
    #[error("{what}; run: {remedy}")]
    Publication {
        /// What is missing.
        what: String,
        /// The SQL that mends it.
        remedy: String,
    },
    /// The publication leaves out what the feeds need, and no statement alone mends it.
    #[error("{what}; {remedy}")]
    PublicationUnfit {
        /// What is left out.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The slot cannot serve this pipeline.
    #[error("{what}; {remedy}")]
    SlotUnfit {
        /// What does not fit.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// Something of ours exists although no checkpoint does.
    #[error(
        "{what} exists already, but there is no checkpoint: where to resume is unknown; restore the checkpoint, or remove it with `feedline detach` and start from nothing: every row is sent again then, and readers begin with empty tables"
    )]
    Claimed {
        /// What exists.
        what: String,
    },
    /// No free slot or walsender.
    #[error("PostgreSQL has no {what} left; {} and restart the server, or remove what is unused", raise(setting, *wanted))]
    Exhausted {
        /// What is used up.
        what: &'static str,
        /// The setting that bounds it.
        setting: &'static str,
        /// The least with which it goes on, as far as is known.
        wanted: Option<u32>,
    },
    /// Another connection reads from the slot.
    #[error(
        "replication slot {slot:?} is in use by {holder}; stop that, or wait until it is gone (pipeline.takeover_timeout), or set another source.slot"
    )]
    Busy {
        /// The slot.
        slot: String,
        /// Process, address and name of who holds it, as far as the server tells.
        holder: String,
    },
    /// Transactions that are running hold up the making of the slot, which goes on.
    #[error("replication slot {slot:?} is made as soon as these end: {by}; end them, or wait")]
    HeldUp {
        /// The slot.
        slot: String,
        /// Which transactions.
        by: String,
    },
    /// Another database stands behind the configured name.
    #[error(
        "{what}; the checkpoint belongs to another database: connect to the right one, or begin from nothing with this one after `feedline checkpoint reset` and `feedline detach`: every row is sent again then, at positions that may be lower than before, and readers and topics begin anew"
    )]
    Foreign {
        /// What differs.
        what: String,
    },
    /// The log was rewound below what was published.
    #[error(
        "{what}; events may have been published that the database no longer holds: restore the newer state, or read the tables again, with source.on_gap = \"prefeed\" \
         or after `feedline checkpoint reset` and `feedline detach`"
    )]
    Rewound {
        /// What proves it.
        what: String,
    },
    /// The log no longer holds what comes next.
    #[error("{what}; changes in that range are lost to the log: read the tables again, with source.on_gap = \"prefeed\"")]
    LogLost {
        /// Which range, and why.
        what: String,
    },
    /// A table cannot be followed for want of a key.
    #[error("table {table} cannot be followed: {reason}; {remedy}")]
    Keyless {
        /// The table.
        table: String,
        /// Why not.
        reason: String,
        /// What to do about it, mostly the SQL to run.
        remedy: String,
    },
    /// The log does not say which rows of a table were changed, or by which key.
    #[error(
        "the log does not tell which rows of table {table} were changed: {reason}; run: {remedy}, then read the table again, with source.on_gap = \"prefeed\""
    )]
    KeyUnknown {
        /// The feed of the table.
        feed: FeedId,
        /// The table.
        table: String,
        /// Why, and at which place in the log.
        reason: String,
        /// The SQL after which it will.
        remedy: String,
    },
    /// A feed's query cannot stand for its rows.
    #[error(
        "the query of feeds.prefeed for table {table} is refused: {reason}; it must be one SELECT that writes nothing, with the key's columns, unique and not null, and \
         tables named with their schema"
    )]
    Query {
        /// The table.
        table: String,
        /// Why, as the server or we say.
        reason: String,
    },
    /// A table's definition changed so that its rows have no key any more.
    #[error("table {table} changed: {reason}")]
    TableChanged {
        /// The table.
        table: String,
        /// What is wrong now.
        reason: String,
    },
    /// A row could not be written down.
    #[error("row of table {table} at {position}: {source}; correct the row, or leave the table out of the feeds")]
    Row {
        /// The table.
        table: String,
        /// Where in the log.
        position: String,
        /// Why.
        source: RowError,
    },
    /// A row that the server cannot show as UTF-8.
    #[error("a row of table {table} cannot be shown as UTF-8: {reason}; correct the row, or leave the table out of the feeds")]
    Unconvertible {
        /// The table.
        table: String,
        /// Which bytes, as the server says.
        reason: String,
    },
    /// The server sent what the protocol does not allow.
    #[error(
        "PostgreSQL sent what the protocol does not allow: {what}; connect to the server itself, without a proxy between, and report it if it stays"
    )]
    Protocol {
        /// What was expected.
        what: &'static str,
    },
    /// A token in the checkpoint is not one of ours.
    #[error(
        "resume token {token:?} is not a place in a PostgreSQL log; name one that `feedline checkpoint show` printed, with `feedline checkpoint rewind --token`, or restore the checkpoint; without either, begin from nothing after `feedline checkpoint reset --yes` and `feedline detach --yes`"
    )]
    Token {
        /// The token.
        token: String,
    },
    /// The server ends connections for a reason that passes.
    #[error("PostgreSQL is not available: {0}")]
    Unavailable(ServerError),
    /// The server refused a command.
    #[error("PostgreSQL refused: {0}")]
    Refused(ServerError),
}

impl Error {
    /// Sorts what the server said by its SQLSTATE (PostgreSQL documentation, appendix A).
    pub(super) fn from_server(error: ServerError, address: &str, user: &str, database: &str) -> Self {
        match error.sqlstate.as_str() {
            "28P01" | "28000" => Self::Authentication { address: address.to_owned(), user: user.to_owned(), reason: error.message },
            "3D000" => Self::DatabaseMissing { address: address.to_owned(), database: database.to_owned() },
            "42501" => Self::Privilege { what: error.to_string(), remedy: format!("GRANT the privilege that is named here TO \"{user}\"") },
            "55006" => Self::Busy { slot: quoted_in(&error.message), holder: error.message },
            "42704" if error.message.contains("idle_session_timeout") => {
                Self::Unsuitable { address: address.to_owned(), reason: "it is older than version 14; upgrade it".to_owned() }
            }
            // A pooler between us and the server: it shares sessions out, and knows neither our settings nor replication.
            "08P01" if error.message.contains("unsupported startup parameter") => Self::pooler(address, &error.message),
            "53400" if error.message.contains("replication slots") => {
                Self::Exhausted { what: "replication slot", setting: "max_replication_slots", wanted: None }
            }
            "53300" if error.message.contains("wal senders") || error.message.contains("max_wal_senders") => {
                Self::Exhausted { what: "walsender", setting: "max_wal_senders", wanted: None }
            }
            // A server that says that the slot's WAL is gone or that the slot was invalidated.
            "55000" | "58P01" if is_log_loss(&error) => Self::LogLost { what: error.to_string() },
            // A failover is under way: what answers is still, or again, a standby.
            _ if error.message.contains("in recovery") => Self::Unavailable(error),
            state if state.starts_with("08") || state.starts_with("53") || state.starts_with("57") || state.starts_with("40") => {
                Self::Unavailable(error)
            }
            _ => Self::Refused(error),
        }
    }

    /// A pooler stands between us and the server; it shares sessions out, and keeps neither their settings nor a snapshot.
    pub(super) fn pooler(address: &str, sign: &str) -> Self {
        Self::Unsuitable {
            address: address.to_owned(),
            reason: format!(
                "it is a connection pooler such as PgBouncer ({sign}), which cannot carry replication; set source.host and source.port to the server itself"
            ),
        }
    }
}

fn is_log_loss(error: &ServerError) -> bool {
    ["cannot read from logical replication slot", "can no longer get changes", "has already been removed", "invalidated"]
        .iter()
        .any(|sign| error.message.contains(sign) || error.detail.contains(sign))
}

fn raise(setting: &str, wanted: Option<u32>) -> String {
    wanted.map_or_else(|| format!("raise {setting}"), |wanted| format!("run: ALTER SYSTEM SET {setting} = {wanted}"))
}

fn quoted_in(message: &str) -> String {
    message.split('"').nth(1).unwrap_or_default().to_owned()
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Dataset(error) => error.fault(),
            Self::Connection { .. }
            | Self::Silent { .. }
            | Self::Elsewhere { .. }
            | Self::Standby { .. }
            | Self::CommitsWait { .. }
            | Self::Busy { .. }
            | Self::HeldUp { .. }
            // By the server itself, at this moment: others, and sessions of ours that are ending, come and go.
            | Self::Exhausted { wanted: None, .. }
            | Self::Unavailable(_) => Fault::Transient,
            Self::Foreign { .. } | Self::Rewound { .. } | Self::LogLost { .. } | Self::KeyUnknown { .. } => Fault::Gap,
            Self::Refused(error) => refusal(error),
            _ => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Dataset(error) => error.code(),
            Self::Connection { .. } | Self::Silent { .. } | Self::Elsewhere { .. } | Self::Standby { .. } | Self::Unavailable(_) => {
                Code::SourceUnreachable
            }
            Self::Authentication { .. } => Code::SourceAuthentication,
            Self::Tls { .. } | Self::Unproven { .. } => Code::SourceTls,
            Self::DatabaseMissing { .. } => Code::PostgresDatabaseMissing,
            Self::Privilege { .. } => Code::SourcePrivilege,
            Self::Unsuitable { .. } | Self::CommitsWait { .. } => Code::PostgresUnsuitable,
            Self::Publication { .. } | Self::PublicationUnfit { .. } => Code::PostgresPublication,
            Self::SlotUnfit { .. } => Code::PostgresSlotUnfit,
            Self::Claimed { .. } => Code::SourceClaimed,
            Self::Exhausted { .. } => Code::PostgresSlotsExhausted,
            Self::Busy { .. } => Code::SourceBusy,
            Self::HeldUp { .. } => Code::PostgresHeldUp,
            Self::Foreign { .. } => Code::SourceForeign,
            Self::Rewound { .. } => Code::SourceRewound,
            Self::LogLost { .. } | Self::KeyUnknown { .. } => Code::SourceLogLost,
            Self::Keyless { .. } => Code::TableKeyless,
            Self::Query { .. } => Code::PrefeedQuery,
            Self::TableChanged { .. } => Code::TableChanged,
            Self::Row { .. } | Self::Unconvertible { .. } => Code::RowUnreadable,
            Self::Protocol { .. } | Self::Token { .. } => Code::SourceProtocol,
            Self::Refused(_) => Code::PostgresRefused,
        }
    }
}

/// Errors of syntax, access, data and settings (classes 22, 42, 0A, 55000), and those that somebody's trigger raises (P0), come again with
/// every attempt; all others may pass.
fn refusal(error: &ServerError) -> Fault {
    if ["22", "42", "0A", "55000", "P0"].iter().any(|class| error.sqlstate.starts_with(class)) { Fault::Fatal } else { Fault::Transient }
}
