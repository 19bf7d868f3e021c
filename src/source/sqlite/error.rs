//! Why a SQLite source could not go on.

use crate::event::RowError;
use crate::fault::{Classify, Code, Fault};
use rusqlite::ErrorCode;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a SQLite source could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A prefeed's file.
    #[error(transparent)]
    Dataset(#[from] crate::source::file::Error),
    /// The file cannot be opened now.
    #[error("open {}: check that the path is right and that the file's directory is reachable", path.display())]
    Unreachable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{} is not a SQLite database, or is damaged; check source.path, and the file with `PRAGMA integrity_check`", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// Readers and writers would block each other.
    #[error("{} is in journal mode `{mode}`; run `PRAGMA journal_mode = WAL` on it once (the mode is kept in the file)", path.display())]
    JournalMode {
        /// The file.
        path: PathBuf,
        /// The mode it is in.
        mode: String,
    },
    /// The file may not be written.
    #[error("{action} in {}: feedline needs to write there (its log and triggers); grant write access to the file and its directory", path.display())]
    Privilege {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// A database without our log stands at the path.
    #[error(
        "{} has no change log of this pipeline: it is another file than that of the checkpoint, or `feedline detach` removed the log; set source.path to the right file, or where the log was removed begin anew with `feedline checkpoint reset --yes`: every row is sent again then, and readers begin with empty tables",
        path.display()
    )]
    LogMissing {
        /// The file.
        path: PathBuf,
    },
    /// Another database stands at the path.
    #[error(
        "{} is not the database of the checkpoint: {what}; restore the right file, or begin from nothing after `feedline checkpoint reset` and `feedline detach`: every row is sent again then, and readers begin with empty tables",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// In which way.
        what: String,
    },
    /// The database was restored from an older copy.
    #[error(
        "{} was rewound: {what}; restore the newer file, or have the tables read again behind a reset, with source.on_gap = \"prefeed\"",
        path.display()
    )]
    Rewound {
        /// The file.
        path: PathBuf,
        /// How that shows.
        what: String,
    },
    /// The checkpoint is older than what the log keeps.
    #[error(
        "the change log keeps nothing up to {trimmed}, but the checkpoint goes on at {token}: an old checkpoint was restored; read the tables again, with source.on_gap = \"prefeed\""
    )]
    LogLost {
        /// The last number that was removed.
        trimmed: i64,
        /// The next number that the checkpoint asks for.
        token: i64,
    },
    /// Changes were made while no trigger watched.
    #[error(
        "the triggers on table `{table}` are gone or changed (it was built anew, or somebody removed them): changes since are unknown; read it again, with source.on_gap = \"prefeed\""
    )]
    CaptureLost {
        /// The table.
        table: Arc<str>,
    },
    /// A table cannot be followed for lack of a key.
    #[error(
        "table `{table}` has no usable key: {what}; declare a primary key, or name unique columns that are NOT NULL as `key` of its feed"
    )]
    Keyless {
        /// The table.
        table: Arc<str>,
        /// What is missing.
        what: String,
    },
    /// A key column holds NULL.
    #[error(
        "a row of table `{table}` has NULL in its key, which SQLite allows where the column is not declared NOT NULL; correct the row and declare the column so"
    )]
    NullKey {
        /// The table.
        table: Arc<str>,
    },
    /// A selected table does not exist.
    #[error("table `{table}` is gone: it was dropped or renamed; correct the feed, or bring the table back")]
    TableGone {
        /// The table.
        table: Arc<str>,
    },
    /// A table is wider than the log may become.
    #[error("table `{table}` has {columns} columns, the change log holds {max}; leave the table out of the feeds, or split it")]
    TooWide {
        /// The table.
        table: Arc<str>,
        /// How many it has.
        columns: usize,
        /// How many the log holds.
        max: usize,
    },
    /// A unique index could not be understood.
    #[error(
        "the definition of unique index `{index}` on table `{table}` cannot be read; without it rows that REPLACE removes would go unnoticed; define it simpler, or leave the table out of the feeds"
    )]
    Index {
        /// The table.
        table: Arc<str>,
        /// The index.
        index: String,
    },
    /// A row could not be written down.
    #[error("a row of table `{table}` cannot be written down; correct the row, or leave the table out of the feeds")]
    Row {
        /// The table.
        table: Arc<str>,
        /// Why.
        #[source]
        source: RowError,
    },
    /// What our own tables hold is not what was written there.
    #[error("{what} cannot be read; it was changed by somebody else or by a newer version")]
    Malformed {
        /// Which part.
        what: String,
    },
    /// A resume token that is of no use here.
    #[error(
        "resume token {token:?} {what}; name one that `feedline checkpoint show` printed, with `feedline checkpoint rewind --token`, or restore the checkpoint; without either, begin from nothing after `feedline checkpoint reset --yes` and `feedline detach --yes`"
    )]
    Token {
        /// The token.
        token: String,
        /// Why it is of none.
        what: &'static str,
    },
    /// The file at the path is another one than the open one.
    #[error("{} was replaced while it was open; it is opened anew and judged", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// A change log without a checkpoint.
    #[error(
        "{} holds the change log of this pipeline, but there is no checkpoint: which changes were sent is unknown; restore the checkpoint, or run `feedline detach` and begin anew: every row is sent again then, and readers begin with empty tables",
        path.display()
    )]
    Claimed {
        /// The database.
        path: PathBuf,
    },
    /// SQLite does not take a statement, and never will.
    #[error("{action} in {}: SQLite refuses that; correct what it names, or leave the table out of the feeds", path.display())]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The snapshot of a prefeed is not open.
    #[error("no snapshot is open: the last call was cancelled or failed; the slice begins again")]
    NoSnapshot,
    /// A thread of ours ended early.
    #[error("the reading thread ended")]
    Ended,
    /// Anything else that SQLite says: locked, full, interrupted.
    #[error("{action} in {}", path.display())]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

impl Error {
    /// Sorts an answer of SQLite by what can be done about it.
    pub(super) fn sqlite(action: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::NotADatabase { path, source },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
                Self::Privilege { action, path, source }
            }
            // A plain error is one of the statement or of the schema; and what is no failure of SQLite's is one of a value.
            Some(ErrorCode::Unknown) | None => Self::Refused { action, path, source },
            _ => Self::Sqlite { action, path, source },
        }
    }

    /// Whether another try a moment later may do.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. }
            if matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)))
    }
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Dataset(error) => error.fault(),
            Self::Unreachable { .. } | Self::Replaced { .. } | Self::NoSnapshot | Self::Ended | Self::Sqlite { .. } => Fault::Transient,
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
            Self::Unreachable { .. } | Self::Replaced { .. } | Self::NoSnapshot | Self::Ended | Self::Sqlite { .. } => {
                Code::SourceUnreachable
            }
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
