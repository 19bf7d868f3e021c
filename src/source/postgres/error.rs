//! The errors of the PostgreSQL source, and how each is classified.

use super::server_error::ServerError;
use crate::event::{FeedId, RowError};
use crate::fault::{Classify, Code, Fault};
use crate::format;
use std::io;

/// Why a PostgreSQL source could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A prefeed file.
    #[error(transparent)]
    Dataset(#[from] crate::source::file::Error),
    /// There is no connection, or it broke.
    #[error("connection to PostgreSQL at {address} failed: {source}; check source.host and source.port, and that the server runs")]
    Connection {
        /// Host and port.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("PostgreSQL at {address} did not answer for {seconds} s (waiting for {what}); check the server, and the network to it")]
    Silent {
        /// Host and port.
        address: String,
        /// How long was waited.
        seconds: u64,
        /// What was waited for.
        what: &'static str,
    },
    /// The server is not the one whose log is read.
    #[error("another server than before answers at {address}; set source.host to a name that always leads to the primary")]
    Elsewhere {
        /// Host and port.
        address: String,
        /// Whether it is a standby.
        is_standby: bool,
    },
    /// The server is a standby, or not yet promoted.
    #[error("PostgreSQL at {address} is a standby; set source.host to the primary, or wait until it is promoted")]
    Standby {
        /// Host and port.
        address: String,
    },
    /// Commits of applications would wait for feedline.
    #[error("PostgreSQL at {address} is not read: {reason}")]
    CommitsWait {
        /// Host and port.
        address: String,
        /// Which setting says so, and what to do about it.
        reason: String,
    },
    /// The server refused the login.
    #[error("PostgreSQL at {address} refused user {user:?}: {reason}; check source.user, source.password_file and pg_hba.conf")]
    Authentication {
        /// Host and port.
        address: String,
        /// The configured user.
        user: String,
        /// What the server or the handshake said.
        reason: String,
    },
    /// The server asks for a login method that does not prove its own identity.
    #[error(
        "PostgreSQL at {address} {what} and has not proved who it is; set source.tls = \"verify_full\", or accept it with \
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
    /// TLS with the server failed.
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
    /// The server cannot serve a changefeed in its current state.
    #[error("PostgreSQL at {address} cannot serve a changefeed: {reason}")]
    Unsuitable {
        /// Host and port.
        address: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// The publication is not as the feeds need it; SQL repairs it.
    #[error("{what}; run: {remedy}")]
    Publication {
        /// What is missing.
        what: String,
        /// The SQL that repairs it.
        remedy: String,
    },
    /// The publication leaves out what the feeds need, and SQL alone does not repair it.
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
    /// The slot or the publication exists, but no checkpoint does.
    #[error(
        "{what} exists already, but there is no checkpoint; restore the checkpoint, or run `feedline detach` and start from nothing: every row is sent again"
    )]
    Claimed {
        /// What exists.
        what: String,
    },
    /// All slots or walsenders are in use.
    #[error("PostgreSQL has no {what} left; {} and restart the server, or remove what is unused", raise(setting, *wanted))]
    Exhausted {
        /// What is used up.
        what: &'static str,
        /// The setting that limits it.
        setting: &'static str,
        /// The smallest sufficient value, if known.
        wanted: Option<u32>,
    },
    /// Another connection reads from the slot.
    #[error("replication slot {slot:?} is in use by {holder}; stop it, or wait (pipeline.takeover_timeout), or set another source.slot")]
    Busy {
        /// The slot.
        slot: String,
        /// Process, address and application name of the connection, as far as the server shows them.
        holder: String,
    },
    /// Running transactions delay what a start needs.
    #[error("{what} once these transactions end: {by}; end them, or wait")]
    HeldUp {
        /// What waits for them.
        what: String,
        /// The transactions.
        by: String,
    },
    /// The configured address leads to another database.
    #[error(
        "{what}; the checkpoint belongs to another database: connect to that one, or begin anew after `feedline checkpoint reset` and `feedline detach`"
    )]
    Foreign {
        /// What differs.
        what: String,
    },
    /// The log was rewound below what was published.
    #[error(
        "{what}; published events may be gone from the database: restore its newer state, or read the tables again with source.on_gap = \"prefeed\""
    )]
    Rewound {
        /// What proves it.
        what: String,
    },
    /// The log no longer holds what comes next.
    #[error("{what}; changes are missing from the log: read the tables again with source.on_gap = \"prefeed\"")]
    LogLost {
        /// What is missing, and why.
        what: String,
    },
    /// A table cannot be followed by its key.
    #[error("table {table} cannot be followed: {reason}; {remedy}")]
    Keyless {
        /// The table.
        table: String,
        /// Why not.
        reason: String,
        /// What to do about it, usually SQL to run.
        remedy: String,
    },
    /// The log does not identify the changed rows of a table.
    #[error(
        "the log does not identify the changed rows of table {table}: {reason}; run: {remedy}, then start with source.on_gap = \"prefeed\""
    )]
    KeyUnknown {
        /// The feed of the table.
        feed: FeedId,
        /// The table.
        table: String,
        /// Why, and at which position.
        reason: String,
        /// The SQL after which it does.
        remedy: String,
    },
    /// A feed's prefeed query cannot be used.
    #[error(
        "the query of feeds.prefeed for table {table} is refused: {reason}; it must be one SELECT that writes nothing, with the key's columns, unique and not null"
    )]
    Query {
        /// The table.
        table: String,
        /// Why.
        reason: String,
    },
    /// The definition of a table changed so that it cannot be followed any more.
    #[error("table {table} changed: {reason}")]
    TableChanged {
        /// The table.
        table: String,
        /// What is wrong now.
        reason: String,
    },
    /// A row cannot be published.
    #[error("row of table {table} at {position}: {source}; correct the row, or leave the table out of the feeds")]
    Row {
        /// The table.
        table: String,
        /// Its position.
        position: String,
        /// Why.
        source: RowError,
    },
    /// The format cannot write a table's events.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// The server cannot convert a row to UTF-8.
    #[error("a row of table {table} cannot be converted to UTF-8: {reason}; correct the row, or leave the table out of the feeds")]
    Unconvertible {
        /// The table.
        table: String,
        /// Which bytes, as the server says.
        reason: String,
    },
    /// The server sent something that the protocol does not allow.
    #[error(
        "PostgreSQL sent something that the protocol does not allow: {what}; connect directly, without a proxy, and report it if it stays"
    )]
    Protocol {
        /// What was expected, or what was wrong.
        what: &'static str,
    },
    /// A token in the checkpoint is not one of this source.
    #[error(
        "resume token {token:?} is not a position in a PostgreSQL log; use one that `feedline checkpoint show` printed, or restore the checkpoint"
    )]
    Token {
        /// The token.
        token: String,
    },
    /// The server is temporarily unavailable.
    #[error("PostgreSQL is not available: {0}")]
    Unavailable(ServerError),
    /// The server refused a command.
    #[error("PostgreSQL refused: {0}")]
    Refused(ServerError),
}

impl Error {
    /// Classifies an error of the server by its SQLSTATE (PostgreSQL documentation, appendix A).
    pub(super) fn from_server(error: ServerError, address: &str, user: &str, database: &str) -> Self {
        match error.sqlstate.as_str() {
            "28P01" | "28000" => Self::Authentication { address: address.to_owned(), user: user.to_owned(), reason: error.message },
            "3D000" => Self::DatabaseMissing { address: address.to_owned(), database: database.to_owned() },
            "42501" => Self::Privilege { what: error.to_string(), remedy: format!("GRANT the privilege that is named here TO \"{user}\"") },
            "55006" => Self::Busy { slot: quoted_in(&error.message), holder: error.message },
            "42704" if error.message.contains("idle_session_timeout") => {
                Self::Unsuitable { address: address.to_owned(), reason: "it is older than version 14; upgrade it".to_owned() }
            }
            // A connection pooler, which knows neither the start-up parameters nor replication.
            "08P01" if error.message.contains("unsupported startup parameter") => Self::pooler(address, &error.message),
            "53400" if error.message.contains("replication slots") => {
                Self::Exhausted { what: "replication slot", setting: "max_replication_slots", wanted: None }
            }
            "53300" if error.message.contains("wal senders") || error.message.contains("max_wal_senders") => {
                Self::Exhausted { what: "walsender", setting: "max_wal_senders", wanted: None }
            }
            // The slot's WAL is gone, or the slot was invalidated.
            "55000" | "58P01" if is_log_loss(&error) => Self::LogLost { what: error.to_string() },
            // During a failover, while the server is still a standby.
            _ if error.message.contains("in recovery") => Self::Unavailable(error),
            state if state.starts_with("08") || state.starts_with("53") || state.starts_with("57") || state.starts_with("40") => {
                Self::Unavailable(error)
            }
            _ => Self::Refused(error),
        }
    }

    /// The error for a connection pooler: it shares sessions between clients, and keeps neither their settings nor a snapshot.
    pub(super) fn pooler(address: &str, sign: &str) -> Self {
        Self::Unsuitable {
            address: address.to_owned(),
            reason: format!(
                "it is a connection pooler such as PgBouncer ({sign}), which cannot carry replication; set source.host and source.port to the server itself"
            ),
        }
    }

    /// Whether the host name leads to another primary now. Then the log is read from a server that was replaced. A standby behind the same name
    /// does not show that.
    pub(super) const fn is_other_primary(&self) -> bool {
        matches!(self, Self::Elsewhere { is_standby: false, .. })
    }
}

/// Whether an error of this SQLSTATE says that the log of the slot is lost.
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
            Self::Format(error) => error.fault(),
            Self::Connection { .. }
            | Self::Silent { .. }
            | Self::Elsewhere { .. }
            | Self::Standby { .. }
            | Self::CommitsWait { .. }
            | Self::Busy { .. }
            | Self::HeldUp { .. }
            // Reported by the server at this moment: other clients, and ending sessions of this one, come and go.
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
            Self::Format(error) => error.code(),
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

/// Errors of syntax, access, data and settings (classes 22, 42, 0A, 55000), and those that a trigger raises (P0), come again with every attempt.
/// All others may pass.
fn refusal(error: &ServerError) -> Fault {
    if ["22", "42", "0A", "55000", "P0"].iter().any(|class| error.sqlstate.starts_with(class)) { Fault::Fatal } else { Fault::Transient }
}
