//! The transaction that is being read.

use crate::source::mysql::binlog::Header;
use crate::source::mysql::token::Token;
use crate::source::mysql::token::{Change, Inside, Last, LastName, LogFile, Place};
use crate::source::mysql::transaction_id::{Gtids, TransactionId};
use crate::source::{Emission, Inside as InTransaction};

/// Distance between the ordinals of two rows. The insert of a key change takes the ordinal after its delete.
const ORDINAL_STEP: u64 = 10;

#[derive(Debug)]
pub(super) struct Transaction {
    /// Where it begins.
    pub(super) place: Place,
    /// Its name.
    pub(super) id: Option<TransactionId>,
    /// Seconds since 1970, by its first event.
    began_at: u32,
    pub(super) stage: Stage,
    /// Ordinal of the next row.
    ordinal: u64,
    /// Whether it has rows of feeds.
    pub(super) is_published: bool,
}

/// What a transaction may consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The next statement is all of it, unless it begins more.
    Announced,
    /// The next statement is all of it, and has no effect: an `ALTER TABLE` that begins, or that is given up.
    Without,
    /// Its end is not in the log: it never happened.
    CutOff,
    /// It goes on to an event that ends it.
    Open,
    /// As `Open`, but its rows count only if it is committed, which its end or another transaction says.
    Xa,
    /// The rows of an XA transaction that it commits are read: those behind its beginning.
    Replay { has_begun: bool },
    /// They were read.
    Replayed,
}

impl Transaction {
    pub(super) const fn begin(header: &Header, place: Place, id: Option<TransactionId>, stage: Stage) -> Self {
        Self { place, id, began_at: header.timestamp, stage, ordinal: 0, is_published: false }
    }

    /// The current row.
    pub(super) const fn row(&self) -> Change {
        Change { place: self.place, id: self.id, ordinal: self.ordinal }
    }

    pub(super) const fn next_row(&mut self) {
        self.ordinal += ORDINAL_STEP;
    }

    /// Goes on to the rows of the XA transaction that it commits.
    pub(super) const fn begin_replay(&mut self) {
        (self.ordinal, self.stage) = (0, Stage::Replay { has_begun: false });
    }

    /// Where to resume inside it after its last closed record; `None` at its start.
    pub(super) fn resume_at(&self, written: &Emission<Token>) -> Option<Inside> {
        written.inside(self.ordinal).map(|at: InTransaction| Inside { at, id: self.id })
    }

    /// What remains of it once it has been read. `before` is what was read before, `file` the file of its place.
    pub(super) fn into_last(self, before: &Gtids, file: &LogFile) -> Last {
        let name = match self.id {
            Some(id) => LastName::Named { id, previous: before.previous(&id), offset: self.place.offset },
            None => LastName::Unnamed { file: file.clone(), offset: self.place.offset },
        };
        Last { name, began_at: self.began_at }
    }
}
