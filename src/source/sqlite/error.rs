//! Errors of the SQLite source, and how they are classified.

use super::lock_holder::holder;
use crate::event::RowError;
use crate::fault::{Classify, Code, Fault};
use crate::format;
use rusqlite::ErrorCode;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the SQLite source could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of a prefeed's file.
    #[error(transparent)]
    Dataset(#[from] crate::source::file::Error),
    /// The file cannot be opened now.
    #[error("{} cannot be opened; check source.path, and that its directory can be reached", path.display())]
    Unreachable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a SQLite database, or is damaged.
    #[error("{} is not a SQLite database, or is damaged; check source.path, or run `PRAGMA integrity_check`", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// The error of SQLite.
        #[source]
        source: rusqlite::Error,
    },
    /// The database is not in WAL mode: readers and writers would block each other.
    #[error("{} is in journal mode `{mode}`; run `PRAGMA journal_mode = WAL` on it once", path.display())]
    JournalMode {
        /// The file.
        path: PathBuf,
        /// The mode it is in.
        mode: String,
    },
    /// The file cannot be written.
    #[error("cannot {action} in {}: access is denied; grant feedline write access to the file and its directory", path.display())]
    Privilege {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of SQLite.
        #[source]
        source: rusqlite::Error,
    },
    /// The database has no change log of this pipeline.
    #[error(
        "{} has no change log of this pipeline; correct source.path, or after a detach run `feedline checkpoint reset --yes`: every row is sent again",
        path.display()
    )]
    LogMissing {
        /// The file.
        path: PathBuf,
    },
    /// The database is not the one of the checkpoint.
    #[error(
        "{} is not the database of the checkpoint: {what}; restore the right file, or correct source.path",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// The database was restored from an older copy.
    #[error(
        "{} was rewound: {what}; restore the newer file, or read the tables again with source.on_gap = \"prefeed\"",
        path.display()
    )]
    Rewound {
        /// The file.
        path: PathBuf,
        /// How it shows.
        what: String,
    },
    /// The checkpoint is older than what the log keeps.
    #[error(
        "the change log keeps nothing up to {trimmed}, but the checkpoint goes on at {token}; read the tables again with source.on_gap = \"prefeed\""
    )]
    LogLost {
        /// The last number that was removed.
        trimmed: i64,
        /// The number at which the checkpoint goes on.
        token: i64,
    },
    /// Changes may have been made without triggers.
    #[error(
        "triggers on table `{table}` are gone or changed, and changes since are unknown; read the table again with source.on_gap = \"prefeed\""
    )]
    CaptureLost {
        /// The table.
        table: Arc<str>,
    },
    /// A table has no usable key.
    #[error("table `{table}` has no usable key: {what}; declare a primary key, or set its feed's `key` to unique NOT NULL columns")]
    Keyless {
        /// The table.
        table: Arc<str>,
        /// What is missing.
        what: String,
    },
    /// A key column holds NULL.
    #[error("a row of table `{table}` has NULL in its key; correct the row, and declare the key's columns NOT NULL")]
    NullKey {
        /// The table.
        table: Arc<str>,
    },
    /// A published table does not exist any more.
    #[error("table `{table}` is gone: it was dropped or renamed; correct the feed, or bring the table back")]
    TableGone {
        /// The table.
        table: Arc<str>,
    },
    /// A table has more columns than the log can have.
    #[error(
        "table `{table}` has {columns} columns (with its key twice), the change log can hold {max}; leave the table out of the feeds, or split it"
    )]
    TooWide {
        /// The table.
        table: Arc<str>,
        /// How many it has, with its key twice: the log holds old keys too.
        columns: usize,
        /// How many the log can hold.
        max: usize,
    },
    /// The definition of a unique index cannot be parsed.
    #[error(
        "unique index `{index}` of table `{table}` cannot be parsed, so rows that REPLACE deletes would be missed; simplify it, or leave the table out of the feeds"
    )]
    Index {
        /// The table.
        table: Arc<str>,
        /// The index.
        index: String,
    },
    /// A row cannot be encoded.
    #[error("a row of table `{table}` cannot be encoded; correct the row, or leave the table out of the feeds")]
    Row {
        /// The table.
        table: Arc<str>,
        /// Why.
        #[source]
        source: RowError,
    },
    /// The format cannot write a table's events.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// Our own tables do not hold what was written there.
    #[error("{what} cannot be read: somebody changed it, or a newer version of feedline wrote it; run that version")]
    Malformed {
        /// What cannot be read.
        what: String,
    },
    /// A resume token that is not one of this change log.
    #[error("resume token {token:?} {what}; run `feedline checkpoint rewind --token` with one that `feedline checkpoint show` printed")]
    Token {
        /// The token.
        token: String,
        /// Why it cannot be used.
        what: &'static str,
    },
    /// The path leads to another file than the open one.
    #[error("{} was replaced while it was open; it is opened and checked again", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// There is a change log, but no checkpoint.
    #[error(
        "{} has a change log of this pipeline, but there is no checkpoint; restore it, or run `feedline detach` and begin anew: every row is sent again",
        path.display()
    )]
    Claimed {
        /// The database.
        path: PathBuf,
    },
    /// SQLite refuses a statement, and will refuse it again.
    #[error("cannot {action} in {}: SQLite refuses it; correct what it names, or leave the table out of the feeds", path.display())]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of SQLite.
        #[source]
        source: rusqlite::Error,
    },
    /// No snapshot is open: the call that lent its connection to a thread was cancelled or failed.
    #[error("no snapshot is open, since the last call was cancelled or failed; the slice begins again")]
    NoSnapshot,
    /// A thread of the source ended early.
    #[error("a thread that reads SQLite ended; it is started again")]
    Ended,
    /// A write transaction of another connection lasts longer than feedline waits at a time.
    #[error("cannot {action} in {} while {by} writes to it; end that transaction, or wait", path.display())]
    Locked {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Who holds the lock.
        by: String,
    },
    /// Any other error of SQLite: full, interrupted.
    #[error("cannot {action} in {}", path.display())]
    Sqlite {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of SQLite.
        #[source]
        source: rusqlite::Error,
    },
}

impl Error {
    /// Classifies an error of SQLite by what can be done about it.
    pub(super) fn sqlite(action: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::NotADatabase { path, source },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
                Self::Privilege { action, path, source }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                let by = holder(&path).unwrap_or_else(|| "another connection".to_owned());
                Self::Locked { action, path, by }
            }
            // A plain error is about the statement or the schema. What is no failure of SQLite itself is about a value.
            Some(ErrorCode::Unknown) | None => Self::Refused { action, path, source },
            _ => Self::Sqlite { action, path, source },
        }
    }

    /// Whether another attempt a moment later may succeed.
    pub(super) const fn is_busy(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Dataset(error) => error.fault(),
            Self::Format(error) => error.fault(),
            Self::Unreachable { .. }
            | Self::Replaced { .. }
            | Self::NoSnapshot
            | Self::Ended
            | Self::Locked { .. }
            | Self::Sqlite { .. } => Fault::Transient,
            Self::Claimed { .. }
            | Self::LogMissing { .. }
            | Self::Foreign { .. }
            | Self::Rewound { .. }
            | Self::LogLost { .. }
            | Self::CaptureLost { .. } => Fault::Gap,
            Self::NotADatabase { .. }
            | Self::JournalMode { .. }
            | Self::Privilege { .. }
            | Self::Keyless { .. }
            | Self::NullKey { .. }
            | Self::TableGone { .. }
            | Self::TooWide { .. }
            | Self::Index { .. }
            | Self::Row { .. }
            | Self::Refused { .. }
            | Self::Malformed { .. }
            | Self::Token { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Dataset(error) => error.code(),
            Self::Format(error) => error.code(),
            Self::Unreachable { .. } | Self::Replaced { .. } | Self::NoSnapshot | Self::Ended | Self::Sqlite { .. } => {
                Code::SourceUnreachable
            }
            Self::Locked { .. } => Code::SqliteLocked,
            Self::NotADatabase { .. } => Code::SqliteFile,
            Self::JournalMode { .. } => Code::SqliteJournalMode,
            Self::Privilege { .. } => Code::SourcePrivilege,
            Self::Claimed { .. } => Code::SourceClaimed,
            Self::LogMissing { .. } | Self::Foreign { .. } => Code::SourceForeign,
            Self::Rewound { .. } => Code::SourceRewound,
            Self::LogLost { .. } | Self::CaptureLost { .. } => Code::SourceLogLost,
            Self::Keyless { .. } | Self::NullKey { .. } => Code::TableKeyless,
            Self::TableGone { .. } => Code::TableChanged,
            Self::TooWide { .. } => Code::SqliteTooWide,
            Self::Index { .. } => Code::SqliteIndex,
            Self::Refused { .. } => Code::SqliteRefused,
            Self::Row { .. } => Code::RowUnreadable,
            Self::Malformed { .. } | Self::Token { .. } => Code::SourceProtocol,
        }
    }
}
