//! Whether a log is still the one that was read: numbers alone do not tell, since a restored copy that was written to counts on.
//!
//! The last row that was read is the proof: its number, and a checksum of its operation, its clock and its values. The trimmer
//! keeps the newest durable row, so that each place that anybody goes on from can be looked at; it also keeps the numbers from
//! falling back where somebody empties `sqlite_sequence`.

use crate::checkpoint::Identity;
use crate::source::sqlite::capture::{self, Names, parse_layout};
use crate::source::sqlite::identity::{self, Origin};
use crate::source::sqlite::page::{Heading, Page};
use crate::source::sqlite::schema::Layout;
use crate::source::sqlite::sql::{numbered, quoted};
use crate::source::sqlite::token::LogPosition;
use crate::source::sqlite::trigger::op;
use crate::source::sqlite::{Error, error};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A row of the log as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    /// Its number.
    pub(super) seq: i64,
    /// Of all that it holds.
    pub(super) checksum: u32,
}

impl Anchor {
    /// `values` are as they lie in a page.
    pub(super) fn of(heading: &Heading, values: &[u8]) -> Self {
        let mut checksum = 0;
        for number in [heading.tid, heading.op, heading.at] {
            checksum = crc32c::crc32c_append(checksum, &number.to_le_bytes());
        }
        Self { seq: heading.seq, checksum: crc32c::crc32c_append(checksum, values) }
    }
}

/// What the open log was last seen to be, for everybody else who opens the same path: what they read is of no use where it is
/// another one.
#[derive(Clone, Debug, Default)]
pub(super) struct Proved(Arc<Mutex<Option<Seen>>>);

#[derive(Clone, Debug)]
struct Seen {
    uuid: String,
    next: i64,
    last: Option<Anchor>,
}

impl Proved {
    fn seen(&self) -> MutexGuard<'_, Option<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log of this origin was opened.
    pub(super) fn opened(&self, origin: &Origin, place: LogPosition) {
        *self.seen() = Some(Seen { uuid: origin.uuid.clone(), next: place.next, last: place.last });
    }

    /// It was read on.
    pub(super) fn moved(&self, next: i64, last: Option<Anchor>) {
        if let Some(seen) = self.seen().as_mut() {
            (seen.next, seen.last) = (next, last);
        }
    }

    /// Refuses another log than the one that was opened; returns its head.
    pub(super) fn check(&self, history: &History<'_>, next: i64, last: Option<Anchor>) -> Result<i64, Error> {
        let uuid = history.origin()?.uuid;
        match self.seen().as_ref() {
            Some(seen) if seen.uuid != uuid => Err(Error::Foreign { path: history.path.to_owned(), what: format!("its uuid is {uuid}") }),
            _ => history.proved(next, last),
        }
    }

    /// The same for who has read nothing of the log.
    pub(super) fn check_newest(&self, history: &History<'_>) -> Result<i64, Error> {
        let (next, last) = self.seen().as_ref().map_or((1, None), |seen| (seen.next, seen.last));
        match self.check(history, next, last) {
            // It was durable and removed between the two looks.
            Err(Error::Rewound { .. }) if last.is_some_and(|last| history.has_trimmed(last)) => self.check(history, next, None),
            checked => checked,
        }
    }
}

/// How many key and value columns the log has.
pub(super) type Width = (usize, usize);

pub(super) fn width(connection: &Connection, names: &Names) -> rusqlite::Result<Width> {
    Ok((capture::width(connection, &names.log, 'k')?, capture::width(connection, &names.log, 'v')?))
}

/// Appends a row of the log to a page: its number, version, operation and clock come first, then keys, then values.
pub(super) fn push(page: &mut Page, row: &Row<'_>, heading: Heading, layout: Option<&Layout>, width: Width) -> rusqlite::Result<()> {
    let holds = capture::holds(heading.op);
    let (old, new) = match (layout, holds) {
        (Some(layout), Some(holds)) => {
            (if holds.old_key { layout.key_len() } else { 0 }, if holds.values { layout.columns.len() } else { 0 })
        }
        _ => (0, 0),
    };
    page.push(heading, |cells| {
        for index in (4..4 + old).chain(4 + width.0..4 + width.0 + new) {
            cells.push(row.get_ref(index)?);
        }
        Ok(())
    })
}

/// Reads the log's rows from a number on.
pub(super) fn select(names: &Names, width: Width) -> String {
    let (keys, values) = (numbered("k", width.0), numbered("v", width.1));
    format!("SELECT seq, tid, op, at{keys}{values} FROM main.{} WHERE seq >= ?1 ORDER BY seq", quoted(&names.log))
}

/// One log, looked at on one connection.
#[derive(Clone, Copy)]
pub(super) struct History<'a> {
    pub(super) connection: &'a Connection,
    pub(super) names: &'a Names,
    pub(super) path: &'a Path,
}

impl History<'_> {
    fn failed(&self, source: rusqlite::Error) -> Error {
        error::Error::sqlite("look at the change log's last row", self.path, source)
    }

    /// The log's account of itself, where there must be one.
    pub(super) fn origin(&self) -> Result<Origin, Error> {
        Origin::read(self.connection, self.names, self.path)?.ok_or_else(|| Error::LogMissing { path: self.path.to_owned() })
    }

    /// The row with this number as it is now.
    fn at(&self, seq: i64) -> Result<Option<Anchor>, Error> {
        let width = width(self.connection, self.names).map_err(|source| self.failed(source))?;
        let sql = format!("{} LIMIT 1", select(self.names, width));
        let mut statement = self.connection.prepare_cached(&sql).map_err(|source| self.failed(source))?;
        let mut rows = statement.query([seq]).map_err(|source| self.failed(source))?;
        let Some(row) = rows.next().map_err(|source| self.failed(source))? else { return Ok(None) };
        let number = |index: usize| row.get::<_, i64>(index).map_err(|source| self.failed(source));
        let heading = Heading { seq: number(0)?, tid: number(1)?, op: number(2)?, at: number(3)? };
        if heading.seq != seq {
            return Ok(None);
        }
        let sql = format!("SELECT layout FROM main.{} WHERE tid = ?1", quoted(&self.names.tables));
        let layout: Option<String> =
            self.connection.query_row(&sql, [heading.tid], |row| row.get(0)).optional().map_err(|source| self.failed(source))?;
        let layout = layout.map(|text| parse_layout(heading.tid, &text)).transpose()?;
        let mut page = Page::default();
        push(&mut page, row, heading, layout.as_ref(), width).map_err(|source| self.failed(source))?;
        Ok(page.newest())
    }

    /// The newest row before a number.
    pub(super) fn before(&self, next: i64) -> Result<Option<Anchor>, Error> {
        let sql = format!("SELECT max(seq) FROM main.{} WHERE seq < ?1", quoted(&self.names.log));
        let seq: Option<i64> = self.connection.query_row(&sql, [next], |row| row.get(0)).map_err(|source| self.failed(source))?;
        seq.map_or(Ok(None), |seq| self.at(seq))
    }

    /// Refuses a log in which what was read up to `next` is not there as it was read; returns its head.
    pub(super) fn proved(&self, next: i64, last: Option<Anchor>) -> Result<i64, Error> {
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

    /// Whether a gap was made good behind a place that has no proof of its own.
    fn is_renewed(&self, next: i64) -> Result<bool, Error> {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{} WHERE seq >= ?1 AND op = {})", quoted(&self.names.log), op::MARK);
        self.connection.query_row(&sql, [next], |row| row.get(0)).map_err(|source| self.failed(source))
    }

    /// Refuses a log that is not the known one, or in which a place is not to be found (G6); returns its head.
    pub(super) fn check(&self, known: &Identity, place: LogPosition) -> Result<i64, Error> {
        let origin = self.origin()?;
        origin.check(known, place, self.path)?;
        if place.next <= origin.trimmed {
            return Err(Error::LogLost { trimmed: origin.trimmed, token: place.next });
        }
        self.proved(place.next, place.last)
    }

    /// Begins the log anew behind all that can have been published of it, in a transaction of the caller's: numbers that
    /// somebody took back are not given out twice.
    pub(super) fn begin_anew(&self, lost: LogPosition) -> Result<LogPosition, Error> {
        /// Far more numbers than a pipeline can have sent since its last checkpoint.
        const SPAN_BITS: u32 = 32;
        let origin = self.origin()?;
        let head = identity::head(self.connection, self.names).map_err(|source| self.failed(source))?;
        let seq = ((head.max(lost.next) >> SPAN_BITS) + 2) << SPAN_BITS;
        let sql = format!("INSERT INTO main.{}(seq, tid, op, at) VALUES (?1, 0, {}, random())", quoted(&self.names.log), op::MARK);
        self.connection.execute(&sql, params![seq]).map_err(|source| self.failed(source))?;
        Ok(LogPosition { epoch: origin.epoch, next: seq + 1, last: self.at(seq)? })
    }
}
