//! The errors of the RethinkDB source, and how each is classified.

use super::feed_end::FeedEnd;
use super::handshake::HandshakeError;
use super::server_error::ServerError;
use crate::event::RowError;
use crate::fault::{Classify, Code, Fault};
use crate::format;
use crate::net::ScramError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a RethinkDB source could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A prefeed file.
    #[error(transparent)]
    Dataset(#[from] crate::source::file::Error),
    /// The format cannot write a table's events.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// There is no connection, or it broke.
    #[error("connection to RethinkDB at {address} failed: {source}; check source.host and source.port, and that the server runs")]
    Connection {
        /// Host and port.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("RethinkDB at {address} did not answer for {seconds} s (waiting for {what}); check the server, source.tls and the network")]
    Silent {
        /// Host and port.
        address: String,
        /// How long was waited.
        seconds: u64,
        /// What was waited for.
        what: &'static str,
    },
    /// TLS with the server failed.
    #[error("TLS with RethinkDB at {address} failed: {reason}")]
    Tls {
        /// Host and port.
        address: String,
        /// What failed and what to do about it.
        reason: String,
    },
    /// The server refused the login, or did not prove that it knows the password.
    #[error("RethinkDB at {address} and user {user:?}: {reason}; check source.user and source.password_file")]
    Authentication {
        /// Host and port.
        address: String,
        /// The configured user.
        user: String,
        /// What the server said, or what is wrong with its proof.
        reason: String,
    },
    /// What answers is no RethinkDB, or none that speaks this protocol.
    #[error("{address} is no RethinkDB server of version 2.3 or later: {reason}; check source.host and source.port")]
    NotRethinkDb {
        /// Host and port.
        address: String,
        /// What it said.
        reason: String,
    },
    /// The server does not speak the protocol.
    #[error("the server does not speak RethinkDB's protocol (in {what}); connect to it without a proxy")]
    Protocol {
        /// What was wrong.
        what: &'static str,
    },
    /// The user lacks a permission.
    #[error("user {user:?} may not read: {reason}; run r.db(\"{database}\").grant(\"{user}\", {{read: true}}) as admin")]
    Privilege {
        /// The configured user.
        user: String,
        /// The configured database.
        database: String,
        /// What the server said.
        reason: String,
    },
    /// The server refused a query.
    #[error("RethinkDB refused a query: {0}")]
    Refused(ServerError),
    /// The configured address leads to another database than the one that was read.
    #[error(
        "{address} has another database {database:?} than the checkpoint's: {what}; connect to that one, or run `feedline checkpoint reset`"
    )]
    Foreign {
        /// Host and port.
        address: String,
        /// The configured database.
        database: String,
        /// What differs.
        what: String,
    },
    /// A table is gone.
    #[error("table {table} is gone: it was dropped or renamed; correct the feed, or bring the table back")]
    TableGone {
        /// The feed's name.
        table: String,
    },
    /// The primary key of a table has another name than before: the table was made anew.
    #[error("table {table} was made anew with another primary key; start once without the table in the feeds, then with it")]
    KeyChanged {
        /// The feed's name.
        table: String,
    },
    /// A feed has another key than the primary key.
    #[error("table {table} can only be followed by its primary key {primary_key:?}; remove `key` from its feed")]
    Key {
        /// The feed's name.
        table: String,
        /// The primary key.
        primary_key: String,
    },
    /// A feed ended, stalled, or left changes out.
    #[error("a changefeed of RethinkDB at {address} ended: {reason}; the table is read again and compared")]
    FeedEnded {
        /// Host and port.
        address: String,
        /// Why.
        reason: FeedEnd,
    },
    /// A document cannot be published.
    #[error("document {key} of table {table}: {source}; correct it, and start once without the table in the feeds, then with it")]
    Row {
        /// The feed's name.
        table: String,
        /// Its primary key, perhaps cut.
        key: String,
        /// Why.
        source: RowError,
    },
    /// A token is not one of this source.
    #[error("resume token {token:?} is no position in a store of RethinkDB; use one that `feedline checkpoint show` printed")]
    Token {
        /// The token.
        token: String,
    },
    /// The local store cannot be used.
    #[error("cannot {action} the local store {}: {source}; check source.store and its disk", path.display())]
    Store {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of SQLite.
        source: rusqlite::Error,
    },
    /// The file of the local store holds something else.
    #[error("{} is not the local store of this pipeline: {what}; correct source.store, or remove the file", path.display())]
    StoreForeign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// The local store is gone, and with it what readers have.
    #[error("the local store {} is missing or empty; restore it, or read the tables again with source.on_gap = \"prefeed\"", path.display())]
    StoreLost {
        /// The file.
        path: PathBuf,
    },
    /// The local store is older than the checkpoint.
    #[error("the local store {} is an old copy: {what}; restore the newer one, or set source.on_gap = \"prefeed\"", path.display())]
    StoreRewound {
        /// The file.
        path: PathBuf,
        /// How it shows.
        what: String,
    },
    /// There is a store, but no checkpoint.
    #[error("{} is the store of a pipeline without a checkpoint; restore the checkpoint, or run `feedline detach`", path.display())]
    Claimed {
        /// The file.
        path: PathBuf,
    },
    /// No snapshot is open.
    #[error("no snapshot is open, since the last call was cancelled or failed; the slice begins again")]
    NoSnapshot,
    /// A thread of the source ended early.
    #[error("a thread or task of the RethinkDB source ended; it is started again")]
    Ended,
}

impl Error {
    /// Classifies an error of the server.
    pub(super) fn from_server(error: ServerError, user: &str, database: &str) -> Self {
        if error.is_permission() {
            return Self::Privilege { user: user.to_owned(), database: database.to_owned(), reason: error.text };
        }
        Self::Refused(error)
    }

    /// Classifies a handshake that failed.
    pub(super) fn of_handshake(error: &HandshakeError, address: &str, user: &str) -> Self {
        let (address, user) = (address.to_owned(), user.to_owned());
        match error {
            HandshakeError::NotSpoken { .. } => Self::NotRethinkDb { address, reason: error.to_string() },
            HandshakeError::Refused { code, .. } if *code < 10 => Self::NotRethinkDb { address, reason: error.to_string() },
            HandshakeError::Scram(ScramError::Library(_)) => Self::Tls { address, reason: error.to_string() },
            HandshakeError::Refused { .. } | HandshakeError::Scram(_) => Self::Authentication { address, user, reason: error.to_string() },
        }
    }

    /// An error of the local store.
    pub(super) fn store(action: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        Self::Store { action, path: path.to_owned(), source }
    }
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Dataset(error) => error.fault(),
            Self::Format(error) => error.fault(),
            Self::Connection { .. } | Self::Silent { .. } | Self::FeedEnded { .. } | Self::NoSnapshot | Self::Ended => Fault::Transient,
            Self::Refused(error) if error.is_passing() => Fault::Transient,
            Self::Store { source, .. } if is_passing(source) => Fault::Transient,
            Self::Foreign { .. } | Self::StoreLost { .. } | Self::StoreRewound { .. } | Self::Claimed { .. } => Fault::Gap,
            Self::Tls { .. }
            | Self::Authentication { .. }
            | Self::NotRethinkDb { .. }
            | Self::Protocol { .. }
            | Self::Privilege { .. }
            | Self::Refused(_)
            | Self::TableGone { .. }
            | Self::KeyChanged { .. }
            | Self::Key { .. }
            | Self::Row { .. }
            | Self::Token { .. }
            | Self::Store { .. }
            | Self::StoreForeign { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Dataset(error) => error.code(),
            Self::Format(error) => error.code(),
            Self::Connection { .. } | Self::Silent { .. } | Self::NoSnapshot | Self::Ended => Code::SourceUnreachable,
            Self::Tls { .. } => Code::SourceTls,
            Self::Authentication { .. } => Code::SourceAuthentication,
            Self::NotRethinkDb { .. } | Self::Protocol { .. } | Self::Token { .. } => Code::SourceProtocol,
            Self::Privilege { .. } => Code::SourcePrivilege,
            Self::Refused(_) => Code::RethinkDbRefused,
            Self::Foreign { .. } => Code::SourceForeign,
            Self::TableGone { .. } | Self::KeyChanged { .. } => Code::TableChanged,
            Self::Key { .. } => Code::TableKeyless,
            Self::FeedEnded { .. } => Code::RethinkDbFeedEnded,
            Self::Row { .. } => Code::RowUnreadable,
            Self::Store { .. } | Self::StoreForeign { .. } => Code::RethinkDbStore,
            Self::StoreLost { .. } => Code::SourceLogLost,
            Self::StoreRewound { .. } => Code::SourceRewound,
            Self::Claimed { .. } => Code::SourceClaimed,
        }
    }
}

/// Whether an error of SQLite may pass by itself: a lock, or a disk that is full or fails.
fn is_passing(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, OperationInterrupted, SystemIoFailure};
    let passing = [DatabaseBusy, DatabaseLocked, DiskFull, OperationInterrupted, SystemIoFailure];
    error.sqlite_error_code().is_some_and(|code| passing.contains(&code))
}
