//! Checks that a log is still the one that was read. The numbers of its rows alone do not prove it: a restored copy that is written to
//! counts on.
//!
//! The last row that was read is the proof: its number, and a checksum of its operation, clock and values. The trimmer keeps the newest
//! durable row, so that every position from which reading may resume can be checked. That row also keeps the numbers from going back where
//! somebody empties `sqlite_sequence`.

use crate::checkpoint::Identity;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::identity::{self, Origin};
use crate::source::sqlite::layout::Layout;
use crate::source::sqlite::log_query::{self, Width};
use crate::source::sqlite::log_row::Anchor;
use crate::source::sqlite::names::Names;
use crate::source::sqlite::operation;
use crate::source::sqlite::page::Page;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::LogPosition;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state of the open log when it was last checked, shared with the probe and the prefeed: what they read from another log is of no use.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckedLog(Arc<Mutex<Option<LogState>>>);

#[derive(Clone, Debug)]
struct LogState {
    uuid: String,
    next: i64,
    last: Option<Anchor>,
}

impl CheckedLog {
    fn state(&self) -> MutexGuard<'_, Option<LogState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log of this origin was opened.
    pub(super) fn opened(&self, origin: &Origin, position: LogPosition) {
        *self.state() = Some(LogState { uuid: origin.uuid.clone(), next: position.next, last: position.last });
    }

    /// It was read further.
    pub(super) fn moved(&self, next: i64, last: Option<Anchor>) {
        if let Some(state) = self.state().as_mut() {
            (state.next, state.last) = (next, last);
        }
    }

    /// Refuses another log than the one that was opened; returns its head.
    pub(super) fn check(&self, history: &History<'_>, next: i64, last: Option<Anchor>) -> Result<i64, Error> {
        let uuid = history.origin()?.uuid;
        match self.state().as_ref() {
            Some(state) if state.uuid != uuid => Err(Error::Foreign { path: history.path.to_owned(), what: format!("its uuid is {uuid}") }),
            _ => history.check_read(next, last),
        }
    }

    /// As [`Self::check`], for callers that have not read the log themselves.
    pub(super) fn check_newest(&self, history: &History<'_>) -> Result<i64, Error> {
        let (next, last) = self.state().as_ref().map_or((1, None), |state| (state.next, state.last));
        match self.check(history, next, last) {
            // The row became durable and was trimmed between the two reads.
            Err(Error::Rewound { .. }) if last.is_some_and(|last| history.has_trimmed(last)) => self.check(history, next, None),
            checked => checked,
        }
    }
}

/// One log, read on one connection.
#[derive(Clone, Copy)]
pub(super) struct History<'a> {
    pub(super) connection: &'a Connection,
    pub(super) names: &'a Names,
    pub(super) path: &'a Path,
}

impl History<'_> {
    fn failed(&self, source: rusqlite::Error) -> Error {
        Error::sqlite("read the change log's last row", self.path, source)
    }

    /// What the log says of itself, where there must be a log.
    pub(super) fn origin(&self) -> Result<Origin, Error> {
        Origin::read(self.connection, self.names, self.path)?.ok_or_else(|| Error::LogMissing { path: self.path.to_owned() })
    }

    /// The row with this number as it is now.
    fn at(&self, seq: i64) -> Result<Option<Anchor>, Error> {
        let width = Width::read(self.connection, self.names).map_err(|source| self.failed(source))?;
        let sql = format!("{} LIMIT 1", log_query::select(self.names, width));
        let mut statement = self.connection.prepare_cached(&sql).map_err(|source| self.failed(source))?;
        let mut rows = statement.query([seq]).map_err(|source| self.failed(source))?;
        let Some(row) = rows.next().map_err(|source| self.failed(source))? else { return Ok(None) };
        let heading = log_query::heading(row).map_err(|source| self.failed(source))?;
        if heading.seq != seq {
            return Ok(None);
        }
        let sql = format!("SELECT layout FROM main.{} WHERE tid = ?1", quoted(&self.names.tables));
        let layout: Option<String> =
            self.connection.query_row(&sql, [heading.tid], |row| row.get(0)).optional().map_err(|source| self.failed(source))?;
        let layout = layout.map(|text| Layout::parse(heading.tid, &text)).transpose()?;
        let mut page = Page::default();
        log_query::push(&mut page, row, heading, layout.as_ref(), width).map_err(|source| self.failed(source))?;
        Ok(page.newest())
    }

    /// The newest row before a number.
    pub(super) fn before(&self, next: i64) -> Result<Option<Anchor>, Error> {
        let sql = format!("SELECT max(seq) FROM main.{} WHERE seq < ?1", quoted(&self.names.log));
        let seq: Option<i64> = self.connection.query_row(&sql, [next], |row| row.get(0)).map_err(|source| self.failed(source))?;
        seq.map_or(Ok(None), |seq| self.at(seq))
    }

    /// Refuses a log in which the rows below `next` are not as they were read; returns its head.
    pub(super) fn check_read(&self, next: i64, last: Option<Anchor>) -> Result<i64, Error> {
        let rewound = |what: String| Error::Rewound { path: self.path.to_owned(), what };
        let head = identity::head(self.connection, self.names).map_err(|source| self.failed(source))?;
        if head < next {
            return Err(rewound(format!("its change log ends before {head}, but changes up to {next} were read")));
        }
        match last {
            Some(last) if self.at(last.seq)? != Some(last) => {
                Err(rewound(format!("change {} of its log is not the one that was read", last.seq)))
            }
            None if 1 < next && self.is_renewed(next)? => Err(rewound(format!("its change log was begun anew behind {next}"))),
            _ => Ok(head),
        }
    }

    fn has_trimmed(&self, row: Anchor) -> bool {
        self.origin().is_ok_and(|origin| row.seq <= origin.trimmed)
    }

    /// Whether the log was begun anew behind a position without a proof of its own.
    fn is_renewed(&self, next: i64) -> Result<bool, Error> {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{} WHERE seq >= ?1 AND op = {})", quoted(&self.names.log), operation::MARK);
        self.connection.query_row(&sql, [next], |row| row.get(0)).map_err(|source| self.failed(source))
    }

    /// Refuses a log that is not the known one, or that does not hold a position (G6); returns its head.
    pub(super) fn check(&self, known: &Identity, position: LogPosition) -> Result<i64, Error> {
        let origin = self.origin()?;
        origin.check(known, position, self.path)?;
        if position.next <= origin.trimmed {
            return Err(Error::LogLost { trimmed: origin.trimmed, token: position.next });
        }
        self.check_read(position.next, position.last)
    }

    /// Begins the log anew behind every number that can have been published, in a transaction of the caller's: numbers that were taken
    /// back are not given out again.
    pub(super) fn begin_anew(&self, lost: LogPosition) -> Result<LogPosition, Error> {
        /// Far more numbers than a pipeline can have sent since its last checkpoint.
        const SPAN_BITS: u32 = 32;
        let origin = self.origin()?;
        let head = identity::head(self.connection, self.names).map_err(|source| self.failed(source))?;
        let seq = ((head.max(lost.next) >> SPAN_BITS) + 2) << SPAN_BITS;
        let sql = format!("INSERT INTO main.{}(seq, tid, op, at) VALUES (?1, 0, {}, random())", quoted(&self.names.log), operation::MARK);
        self.connection.execute(&sql, params![seq]).map_err(|source| self.failed(source))?;
        Ok(LogPosition { epoch: origin.epoch, next: seq + 1, last: self.at(seq)? })
    }
}
