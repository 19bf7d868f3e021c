//! The errors of the MySQL source, and how each is classified.

use super::server_error::ServerError;
use crate::event::RowError;
use crate::fault::{Classify, Code, Fault};
use crate::format;
use std::io;

/// Why a MySQL or MariaDB source could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A prefeed file.
    #[error(transparent)]
    Dataset(#[from] crate::source::file::Error),
    /// There is no connection, or it broke.
    #[error("connection to MySQL at {address} failed: {source}; check source.host and source.port, and that the server runs")]
    Connection {
        /// Host and port.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("MySQL at {address} did not answer for {seconds} s (waiting for {what}); check the server, and the network to it")]
    Silent {
        /// Host and port.
        address: String,
        /// How long was waited.
        seconds: u64,
        /// What was waited for.
        what: &'static str,
    },
    /// The server is not the one whose log is read.
    #[error("another server than before answers at {address}; set source.host to a name that always leads to the same server")]
    Elsewhere {
        /// Host and port.
        address: String,
    },
    /// The server refused the login.
    #[error("MySQL at {address} refused user {user:?}: {reason}; check source.user and source.password_file")]
    Authentication {
        /// Host and port.
        address: String,
        /// The configured user.
        user: String,
        /// What the server or the login said.
        reason: String,
    },
    /// The server asks for the password itself and has not proved who it is.
    #[error(
        "MySQL at {address} asks for the password in clear text and has not proved who it is; set source.tls = \"verify_full\", or accept it \
         with source.require_auth = \"password\""
    )]
    Unproven {
        /// Host and port.
        address: String,
    },
    /// TLS with the server failed.
    #[error("TLS with MySQL at {address} failed: {reason}")]
    Tls {
        /// Host and port.
        address: String,
        /// What failed and what to do about it.
        reason: String,
    },
    /// The server has no connection left, for now.
    #[error("MySQL at {address} takes no connection: {reason}; raise max_connections, or wait")]
    Full {
        /// Host and port.
        address: String,
        /// What the server said.
        reason: String,
    },
    /// The server cannot serve a changefeed in its current state.
    #[error("MySQL at {address} cannot serve a changefeed: {reason}")]
    Unsuitable {
        /// Host and port.
        address: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// The user lacks a privilege.
    #[error("{what}; run: {remedy}")]
    Privilege {
        /// What the user may not do.
        what: String,
        /// The statement that grants it.
        remedy: String,
    },
    /// A table has no usable key.
    #[error("table {table} cannot be followed by its key: {reason}; {remedy}")]
    Keyless {
        /// The feed's name.
        table: String,
        /// What is wrong with the key.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// A table cannot be followed.
    #[error("table {table} cannot be followed: {reason}")]
    Unfit {
        /// The feed's name.
        table: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// Another reader of the log has the number of this one.
    #[error("MySQL at {address}: {reason}; stop the other reader, or set another source.server_id")]
    Busy {
        /// Host and port.
        address: String,
        /// What the server said.
        reason: String,
    },
    /// The configured address leads to another server, which has not the transactions that were read.
    #[error("{what}; the checkpoint belongs to another server: connect to that one, or begin anew after `feedline checkpoint reset`")]
    Foreign {
        /// What differs.
        what: String,
    },
    /// The log was set back: it lacks transactions that were published.
    #[error(
        "{what}; published events may be gone from the server: restore its newer state, or read the tables again with source.on_gap = \"prefeed\""
    )]
    Rewound {
        /// What proves it.
        what: String,
    },
    /// The log does not hold what comes next.
    #[error("{what}; changes are missing from the log: read the tables again with source.on_gap = \"prefeed\"")]
    LogLost {
        /// What is missing, and why.
        what: String,
    },
    /// A crash of the server cut off an event at the end of a file of the log.
    #[error("the server cannot send what follows an event that a crash cut off ({what}); feedline goes on with the next file of the log")]
    CutOff {
        /// What the server said.
        what: String,
    },
    /// The definition of a table changed so that it cannot be followed any more.
    #[error("table {table} changed: {reason}")]
    TableChanged {
        /// The feed's name.
        table: String,
        /// What is wrong, and what to do about it.
        reason: String,
    },
    /// A row cannot be published.
    #[error("row of table {table} at {position}: {source}; correct the row, or leave the table out of the feeds")]
    Row {
        /// The feed's name.
        table: String,
        /// Its position.
        position: String,
        /// Why.
        source: RowError,
    },
    /// The format cannot write a table's events.
    #[error(transparent)]
    Format(#[from] format::Error),
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
    /// A token is not one of this source.
    #[error(
        "resume token {token:?} is not a position in a log of MySQL; use one that `feedline checkpoint show` printed, or restore the checkpoint"
    )]
    Token {
        /// The token.
        token: String,
    },
    /// The server refused a statement.
    #[error("MySQL refused a statement: {0}; look up the number in the server's manual")]
    Refused(ServerError),
    /// The server ended the log.
    #[error("MySQL at {address} closed the log: it shuts down, or another reader has taken the number of this one; see its error log")]
    LogClosed {
        /// Host and port.
        address: String,
    },
    /// The server does not speak the protocol.
    #[error("the server does not speak the MySQL protocol (in {what}); check source.host and source.port")]
    Protocol {
        /// What was wrong.
        what: &'static str,
    },
}

/// Errors that pass: too many connections, the server shuts down, a statement was interrupted, a deadlock, a lock that was waited for.
const PASSING: [u16; 8] = [1040, 1053, 1159, 1161, 1203, 1205, 1213, 1317];

impl Error {
    /// Classifies an error of the server.
    pub(super) fn from_server(error: ServerError, address: &str, user: &str) -> Self {
        let (address, user) = (address.to_owned(), user.to_owned());
        match error.number {
            // Too many connections, of all users or of this one.
            1040 | 1203 | 1226 => Self::Full { address, reason: error.to_string() },
            // Access denied; the host may not connect, or is blocked; no such authentication; the password has expired; the account is locked.
            1045 | 1044 | 1129 | 1130 | 1251 | 1698 | 1820 | 1862 | 3118 | 4151 => {
                Self::Authentication { address, user, reason: error.to_string() }
            }
            // Connections must be encrypted.
            3159 | 1277 => Self::Tls { address, reason: format!("{error}; set source.tls = \"verify_full\"") },
            _ => Self::Refused(error),
        }
    }
}

/// The server has no such log (`ER_MASTER_FATAL_ERROR_READING_BINLOG`). Its text says why.
const NO_SUCH_LOG: u16 = 1236;
/// Another reader has the same number (`ER_SLAVE_SAME_ID` of MariaDB).
const SAME_NUMBER: u16 = 4052;
/// Texts by which the server says that it lacks transactions that were read.
const SET_BACK: [&str; 3] = ["not in the master's binlog", "diverged", "more GTIDs than the"];

impl Error {
    /// Classifies an error with which the server ends the log.
    pub(super) fn of_log(error: ServerError, address: &str, user: &str) -> Self {
        let says = |text: &str| error.message.contains(text);
        if error.number == SAME_NUMBER || says("same server_uuid/server_id") {
            return Self::Busy { address: address.to_owned(), reason: error.message };
        }
        if error.number != NO_SUCH_LOG {
            return Self::from_server(error, address, user);
        }
        if says("exceeded max_allowed_packet") || says("max_allowed_packet on") {
            let reason = format!("{}; raise max_allowed_packet", error.message);
            return Self::Unsuitable { address: address.to_owned(), reason };
        }
        let what = error.message.clone();
        if says("truncated in the middle of event") {
            return Self::CutOff { what };
        }
        if SET_BACK.iter().any(|text| says(text)) { Self::Rewound { what } } else { Self::LogLost { what } }
    }
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Connection { .. }
            | Self::Silent { .. }
            | Self::Elsewhere { .. }
            | Self::Full { .. }
            | Self::Busy { .. }
            | Self::CutOff { .. }
            | Self::LogClosed { .. } => Fault::Transient,
            Self::Dataset(error) => error.fault(),
            Self::Format(error) => error.fault(),
            Self::Foreign { .. } | Self::Rewound { .. } | Self::LogLost { .. } => Fault::Gap,
            Self::Refused(error) if PASSING.contains(&error.number) => Fault::Transient,
            Self::Authentication { .. }
            | Self::Unproven { .. }
            | Self::Tls { .. }
            | Self::Unsuitable { .. }
            | Self::Privilege { .. }
            | Self::Keyless { .. }
            | Self::TableChanged { .. }
            | Self::Row { .. }
            | Self::Query { .. }
            | Self::Token { .. }
            | Self::Unfit { .. }
            | Self::Refused(_)
            | Self::Protocol { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Connection { .. } | Self::Silent { .. } | Self::Full { .. } | Self::LogClosed { .. } => Code::SourceUnreachable,
            Self::Busy { .. } => Code::SourceBusy,
            Self::Elsewhere { .. } | Self::Foreign { .. } => Code::SourceForeign,
            Self::Authentication { .. } | Self::Unproven { .. } => Code::SourceAuthentication,
            Self::Tls { .. } => Code::SourceTls,
            Self::Unsuitable { .. } => Code::MySqlUnsuitable,
            Self::Dataset(error) => error.code(),
            Self::Format(error) => error.code(),
            Self::Rewound { .. } => Code::SourceRewound,
            Self::LogLost { .. } | Self::CutOff { .. } => Code::SourceLogLost,
            Self::TableChanged { .. } => Code::TableChanged,
            Self::Query { .. } => Code::PrefeedQuery,
            Self::Row { .. } => Code::RowUnreadable,
            Self::Privilege { .. } => Code::SourcePrivilege,
            Self::Keyless { .. } => Code::TableKeyless,
            Self::Unfit { .. } => Code::MySqlTableUnfit,
            Self::Refused(_) => Code::MySqlRefused,
            Self::Protocol { .. } | Self::Token { .. } => Code::SourceProtocol,
        }
    }
}
