//! Turns events of the log into changes: follows transactions, definitions and the place in the log.

use super::binlog::{self, Alter, GroupEnd, Header, MariaGtid, Message, MySqlGtid, Xa};
use super::charset::Charsets;
use super::error::Error;
use super::kind::Space;
use super::layout::Hints;
use super::lookup::Lookup;
use super::token::{Inside, Last, LogFile, Place, Token};
use super::transaction_id::{Gtids, TransactionId};
use super::xa::Prepared;
use crate::event::Timestamp;
use crate::feed::Feeds;
use crate::source::{Emission, Emitter, HandedOver, TableChange};
use crate::status::metrics::SourceMetrics;
use std::fmt::Write as _;
use std::sync::Arc;

mod alteration;
mod cursor;
mod cut_off;
mod definitions;
mod effects;
mod ends;
mod logged_change;
mod query;
mod rows;
mod statement;
mod text;
mod transaction;
mod words;
mod xa;

use cursor::Cursor;
use definitions::Definitions;
use ends::Ends;
use transaction::{Stage, Transaction};

/// The state between two events.
#[derive(Debug)]
pub(super) struct Flow {
    feeds: Arc<Feeds>,
    definitions: Definitions,
    cursor: Cursor,
    ends: Ends,
    /// The transactions that have been read, by name.
    gtids: Gtids,
    last: Option<Last>,
    /// How much of a transaction that comes next an earlier session has read.
    skip: Option<Inside>,
    /// The XA transactions that were prepared.
    prepared: Prepared,
    transaction: Option<Transaction>,
    /// How many rows of the current event have been read.
    rows_read: usize,
    table_changes: Vec<TableChange>,
    /// Tables that match the feeds' patterns and were made after the start.
    /// Whether a transaction was read that an earlier session had not.
    has_begun: bool,
    /// Whether the boundary advanced since progress was last reported.
    has_advanced: bool,
    /// Whether the server keeps names of tables in lower case.
    folds_names: bool,
    space: Space,
    unpacked: Vec<u8>,
    /// The name of the current transaction.
    name: String,
}

/// What the server and the checkpoint say of the feeds' tables.
pub(super) struct Known {
    pub(super) charsets: Charsets,
    /// By feed.
    pub(super) hints: Vec<Hints>,
    pub(super) folds_names: bool,
    /// Tables of which nothing was remembered.
    pub(super) table_changes: Vec<TableChange>,
    /// The last file of MariaDB's log.
    pub(super) head: Option<LogFile>,
}

/// How far an event was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// All of it.
    Whole,
    /// The batch is full: the rest of the same event comes next.
    Part,
    /// Nothing: the rows of an XA transaction must be given first, which begin at this place of a file with this number.
    Replay(u32, u64),
}

/// How far an event of an XA transaction was read, which is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replayed {
    /// All of it.
    Whole,
    /// As [`Applied::Part`].
    Part,
    /// The transaction ends here.
    End,
}

impl Flow {
    pub(super) fn new(feeds: Arc<Feeds>, known: Known, from: Token, metrics: SourceMetrics) -> Self {
        Self {
            definitions: Definitions::new(Arc::clone(&feeds), known.charsets, known.hints, metrics),
            feeds,
            cursor: Cursor::new(&from),
            ends: Ends::new(known.head),
            gtids: from.gtids,
            last: from.last,
            skip: from.inside,
            prepared: from.prepared,
            transaction: None,
            rows_read: 0,
            table_changes: known.table_changes,
            has_begun: false,
            has_advanced: false,
            folds_names: known.folds_names,
            space: Space::default(),
            unpacked: Vec::new(),
            name: String::new(),
        }
    }

    /// Where to resume after the last closed record.
    pub(super) fn token(&self, written: &Emission<Token>) -> Token {
        let inside = self.transaction.as_ref().and_then(|transaction| transaction.resume_at(written)).or(self.skip);
        let (file, offset) = self.cursor.boundary();
        Token {
            inside,
            prepared: self.prepared.clone(),
            last: self.last.clone(),
            ..Token::at(self.cursor.log(), file, *offset, self.gtids.clone())
        }
    }

    /// All transactions before this place have been read.
    pub(super) const fn place(&self) -> Place {
        self.cursor.place()
    }

    pub(super) const fn is_inside(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether the boundary advanced since [`Self::reset_advanced`].
    pub(super) const fn has_advanced(&self) -> bool {
        self.has_advanced
    }

    pub(super) const fn reset_advanced(&mut self) {
        self.has_advanced = false;
    }

    /// What was found changed since the last call.
    pub(super) fn take_table_changes(&mut self) -> Vec<TableChange> {
        std::mem::take(&mut self.table_changes)
    }

    /// Where the transaction begins that this event announces; `None` for another event.
    pub(super) fn begins_at(&self, header: &Header, message: &Message<'_>) -> Result<Option<Place>, Error> {
        matches!(message, Message::MariaGtid(_) | Message::MySqlGtid(_)).then(|| self.cursor.start_of(header)).transpose()
    }

    /// Notes that nothing comes before this place that has not been read.
    pub(super) fn caught_up_to(&mut self, until: &Token) {
        self.cursor.advance_to(&until.file, until.offset);
    }

    /// Passes over an event that was applied, or a compressed transaction whose events were.
    pub(super) fn pass(&mut self, header: &Header) -> Result<(), Error> {
        self.cursor.pass(header, self.transaction.is_some())?;
        if self.transaction.is_none() {
            let before = self.cursor.place();
            self.cursor.advance();
            self.has_advanced |= before < self.cursor.place();
        }
        Ok(())
    }

    /// Applies an event; its rows as far as the batch takes them. Cancel safe: repeating it gives the same result.
    pub(super) async fn apply(
        &mut self,
        header: &Header,
        message: &Message<'_>,
        lookup: &mut Lookup,
        out: &mut Emitter<'_, Token>,
    ) -> Result<Applied, Error> {
        match message {
            Message::Rows(rows) => return self.rows(rows, out),
            Message::TableMap(map) => self.definitions.learn(map, out).await?,
            Message::MariaGtid(begin) => self.begin_maria(header, begin, out)?,
            Message::MySqlGtid(begin) => self.begin_mysql(header, begin, out)?,
            Message::Query(query) => return self.query(query, lookup, out).await,
            Message::Xid(_) => self.end(out)?,
            Message::XaPrepare(prepare) => return self.end_xa(prepare, out),
            Message::Rotate(rotate) => self.rotate(rotate, lookup, out).await?,
            Message::Heartbeat(heartbeat) if self.transaction.is_none() => self.cursor.rest_at(heartbeat)?,
            Message::Incident => return Err(self.lost("the server says itself that its log lacks changes", out)),
            Message::LoadedFile => return Err(self.lost("rows were loaded by a statement, and the log does not say which", out)),
            Message::Payload(_) => return Err(Error::Protocol { what: "a compressed transaction inside another one" }),
            Message::Heartbeat(_) | Message::FormatDescription(_) | Message::MariaGtidList(_) | Message::Nothing => {}
        }
        Ok(Applied::Whole)
    }

    fn begin_maria(&mut self, header: &Header, begin: &MariaGtid, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        let stage = match (begin.ends, begin.xa) {
            _ if self.ends.cut_off(&begin.gtid) => Stage::CutOff,
            (GroupEnd::Standalone, _) if matches!(begin.alter, Alter::Start | Alter::Rollback) => Stage::Without,
            (GroupEnd::Standalone, _) => Stage::Announced,
            (GroupEnd::Commit, Xa::Prepare) => Stage::Xa,
            (GroupEnd::Commit, Xa::None | Xa::Complete) => Stage::Open,
        };
        let committed_at = Timestamp(i64::from(header.timestamp) * 1_000_000);
        self.begin(header, Some(TransactionId::Maria(begin.gtid)), stage, committed_at, out)
    }

    fn begin_mysql(&mut self, header: &Header, begin: &MySqlGtid<'_>, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        let seconds = i64::from(header.timestamp) * 1_000_000;
        let committed_at = begin.committed_at.and_then(|micros| i64::try_from(micros).ok()).unwrap_or(seconds);
        self.begin(header, begin.gtid.map(TransactionId::from), Stage::Announced, Timestamp(committed_at), out)
    }

    fn begin(
        &mut self,
        header: &Header,
        id: Option<TransactionId>,
        stage: Stage,
        committed_at: Timestamp,
        out: &mut Emitter<'_, Token>,
    ) -> Result<(), Error> {
        if self.transaction.is_some() {
            return Err(Error::Protocol { what: "the end of a transaction before the next begins" });
        }
        let place = self.cursor.start_of(header)?;
        let is_read = self.was_read(place, id.as_ref())?;
        self.has_begun |= !is_read;
        let handed_over = match self.skip {
            _ if is_read => HandedOver::All,
            // A transaction without a name is the next one.
            Some(inside) if inside.id == id => HandedOver::Until(inside.at),
            _ => HandedOver::Nothing,
        };
        self.cursor.pass_to(place.offset);
        if !is_read {
            self.cursor.advance();
        }
        self.name.clear();
        // Writing to a string cannot fail.
        let _written: std::fmt::Result = match id {
            Some(id) => write!(self.name, "{id}"),
            None => write!(self.name, "{}:{}", self.cursor.boundary().0, place.offset),
        };
        out.begin(&place.position_prefix(), committed_at, &self.name, handed_over);
        self.definitions.forget_many();
        self.transaction = Some(Transaction::begin(header, place, id, stage));
        Ok(())
    }

    /// Whether an earlier session has read a transaction.
    fn was_read(&self, place: Place, id: Option<&TransactionId>) -> Result<bool, Error> {
        if id.is_some_and(|id| self.gtids.contains(id)) {
            return Ok(true);
        }
        let is_before = place < self.cursor.place();
        // The names that MySQL gives for the end of its log may lack the newest ones before it.
        if is_before && (self.has_begun || !matches!(self.gtids, Gtids::MySql(_))) {
            return Err(Error::Protocol { what: "a transaction that lies in the log before one that was read" });
        }
        Ok(is_before)
    }

    /// Ends the transaction.
    fn end(&mut self, out: &mut Emitter<'_, Token>) -> Result<(), Error> {
        self.refuse_end_of_cut_off()?;
        let transaction = self.transaction.take().ok_or(Error::Protocol { what: "a transaction before its end" })?;
        out.commit();
        if self.skip.is_some_and(|inside| inside.id == transaction.id) {
            self.skip = None;
        }
        let id = transaction.id;
        if id.is_none_or(|id| !self.gtids.contains(&id)) {
            self.last = Some(transaction.into_last(&self.gtids, &self.cursor.boundary().0));
            // Only a new one: on MariaDB an older one would set the domain back.
            if let Some(id) = id {
                self.gtids.add(&id);
            }
        }
        Ok(())
    }

    /// The error for changes that the log does not show.
    fn lost(&self, what: &str, out: &mut Emitter<'_, Token>) -> Error {
        let ordinal = self.transaction.as_ref().map_or(0, |transaction| transaction.row().ordinal);
        Error::LogLost { what: format!("{what}, at {:?}", out.position(ordinal)) }
    }
}

impl From<binlog::Malformed> for Error {
    fn from(malformed: binlog::Malformed) -> Self {
        Self::Protocol { what: malformed.0 }
    }
}
