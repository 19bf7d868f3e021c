//! The errors of the MongoDB source, and how each is classified.

use super::bson::Malformed;
use super::server_error::{ErrorKind, ServerError};
use crate::event::RowError;
use crate::fault::{Classify, Code, Fault};
use crate::format;
use std::io;

/// Why a MongoDB source could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A prefeed file.
    #[error(transparent)]
    Dataset(#[from] crate::source::file::Error),
    /// The format cannot write a collection's events.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// There is no connection, or it broke.
    #[error("connection to MongoDB at {address} failed: {source}; check source.host and source.port, and that the server runs")]
    Connection {
        /// Host and port.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("MongoDB at {address} did not answer for {seconds} s (waiting for {what}); check the server, source.tls and the network")]
    Silent {
        /// Host and port.
        address: String,
        /// How long was waited.
        seconds: u64,
        /// What was waited for.
        what: &'static str,
    },
    /// The members that answer know no primary.
    #[error("no primary at {addresses}: {reason}; wait for an election, or name more members in source.members")]
    NoPrimary {
        /// The hosts that were asked.
        addresses: String,
        /// What the last one said.
        reason: String,
    },
    /// TLS with the server failed.
    #[error("TLS with MongoDB at {address} failed: {reason}")]
    Tls {
        /// Host and port.
        address: String,
        /// What failed and what to do about it.
        reason: String,
    },
    /// The server refused the login, or did not prove that it knows the password.
    #[error("MongoDB at {address} and user {user:?}: {reason}; check source.user, source.password_file and source.auth_database")]
    Authentication {
        /// Host and port.
        address: String,
        /// The configured user.
        user: String,
        /// What the server said, or what is wrong with its proof.
        reason: String,
    },
    /// The server does not speak the protocol.
    #[error("the server does not speak MongoDB's wire protocol (in {what}); check source.host and source.port")]
    Protocol {
        /// What was wrong.
        what: &'static str,
    },
    /// The server cannot serve a changefeed.
    #[error("MongoDB at {address} cannot serve a changefeed: {reason}")]
    Unsuitable {
        /// Host and port.
        address: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// The user lacks a privilege.
    #[error("user {user:?} may not {action}; run db.getSiblingDB({auth_database:?}).grantRolesToUser({user:?}, [{role}])")]
    Privilege {
        /// The configured user.
        user: String,
        /// What it may not do.
        action: &'static str,
        /// The database that holds the user.
        auth_database: String,
        /// The role that allows it.
        role: String,
    },
    /// The server refused a command.
    #[error("MongoDB refused to {action}: {error}")]
    Refused {
        /// What was asked for.
        action: &'static str,
        /// What the server said.
        error: ServerError,
    },
    /// The configured address leads to another cluster than the one that was read.
    #[error("another cluster answers at {address}: {what}; connect to the checkpoint's, or run `feedline checkpoint reset`")]
    Foreign {
        /// Host and port.
        address: String,
        /// What differs.
        what: String,
    },
    /// The log no longer holds what comes next.
    #[error("the oplog no longer holds what follows the checkpoint: {what}; enlarge it, and set source.on_gap = \"prefeed\" once")]
    LogLost {
        /// What the server said.
        what: String,
    },
    /// The cluster has less than was published: it was restored from a backup.
    #[error("the cluster was set back: it ends at {head}, and the checkpoint is at {position}; set source.on_gap = \"prefeed\" once")]
    Rewound {
        /// The cluster's newest time.
        head: String,
        /// The checkpoint's.
        position: String,
    },
    /// The change stream ended, because its database was dropped or its cursor is gone.
    #[error("the change stream of database {database} ended: {reason}; it is opened again")]
    StreamEnded {
        /// The configured database.
        database: String,
        /// Why.
        reason: &'static str,
    },
    /// A collection cannot be followed.
    #[error("collection {table} cannot be followed: {reason}")]
    Unfit {
        /// The feed's name.
        table: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// A feed has another key than `_id`.
    #[error("collection {table} can only be followed by its key \"_id\"; remove `key` from its feed")]
    Key {
        /// The feed's name.
        table: String,
    },
    /// A query is no filter of MongoDB.
    #[error("the prefeed query of collection {table} is no filter: {reason}; write one as Extended JSON, like {{\"status\": \"open\"}}")]
    Query {
        /// The feed's name.
        table: String,
        /// Why.
        reason: String,
    },
    /// A document cannot be published.
    #[error("document {key} of collection {table}: {source}; correct it, or leave the collection out of the feeds")]
    Row {
        /// The feed's name.
        table: String,
        /// Its `_id`, perhaps cut.
        key: String,
        /// Why.
        source: RowError,
    },
    /// An event of the change stream is not as MongoDB documents it.
    #[error("an event of the change stream cannot be read: {what}; report it with the version of the server")]
    Event {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A token is not one of this source.
    #[error("resume token {token:?} is no position in a change stream; use one that `feedline checkpoint show` printed")]
    Token {
        /// The token.
        token: String,
    },
    /// No snapshot is open.
    #[error("no snapshot is open, since the last call was cancelled or failed; the slice begins again")]
    NoSnapshot,
}

impl From<Malformed> for Error {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Event { what }
    }
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Dataset(error) => error.fault(),
            Self::Format(error) => error.fault(),
            Self::Connection { .. } | Self::Silent { .. } | Self::NoPrimary { .. } | Self::StreamEnded { .. } | Self::NoSnapshot => {
                Fault::Transient
            }
            Self::Refused { error, .. } if error.kind == ErrorKind::Passing => Fault::Transient,
            Self::Foreign { .. } | Self::LogLost { .. } | Self::Rewound { .. } => Fault::Gap,
            Self::Tls { .. }
            | Self::Authentication { .. }
            | Self::Protocol { .. }
            | Self::Unsuitable { .. }
            | Self::Privilege { .. }
            | Self::Refused { .. }
            | Self::Unfit { .. }
            | Self::Key { .. }
            | Self::Query { .. }
            | Self::Row { .. }
            | Self::Event { .. }
            | Self::Token { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Dataset(error) => error.code(),
            Self::Format(error) => error.code(),
            Self::Connection { .. } | Self::Silent { .. } | Self::NoPrimary { .. } | Self::NoSnapshot => Code::SourceUnreachable,
            Self::Tls { .. } => Code::SourceTls,
            Self::Authentication { .. } => Code::SourceAuthentication,
            Self::Protocol { .. } | Self::Token { .. } | Self::Event { .. } => Code::SourceProtocol,
            Self::Privilege { .. } => Code::SourcePrivilege,
            Self::Unsuitable { .. } => Code::MongoDbUnsuitable,
            Self::Refused { .. } => Code::MongoDbRefused,
            Self::StreamEnded { .. } => Code::MongoDbStreamEnded,
            Self::Unfit { .. } => Code::MongoDbUnfit,
            Self::Foreign { .. } => Code::SourceForeign,
            Self::LogLost { .. } => Code::SourceLogLost,
            Self::Rewound { .. } => Code::SourceRewound,
            Self::Key { .. } => Code::TableKeyless,
            Self::Query { .. } => Code::PrefeedQuery,
            Self::Row { .. } => Code::RowUnreadable,
        }
    }
}
