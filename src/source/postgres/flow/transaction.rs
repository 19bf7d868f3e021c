//! The transaction that is being read.

use crate::event::Timestamp;
use crate::source::postgres::pgoutput::{Begin, EPOCH_MICROSECONDS};
use crate::source::postgres::token::{Inside, LogRow, Lsn, Token};
use crate::source::{Emission, Emitter, HandedOver, Inside as InTransaction, position_prefix};

/// Distance between the ordinals of two rows. The insert of a key change takes the ordinal after its delete.
const ORDINAL_STEP: u64 = 10;

#[derive(Debug)]
pub(super) struct Transaction {
    commit: Lsn,
    /// Ordinal of the current row.
    ordinal: u64,
}

impl Transaction {
    /// A transaction that begins. Everything before `from` has been handed over.
    pub(super) fn begin(begin: &Begin, timeline: u32, from: &Token, out: &mut Emitter<'_, Token>) -> Self {
        let commit = Lsn(begin.commit_lsn);
        let handed_over = match from.inside {
            // Compared by order, never for equality: a commit that begins exactly at the boundary is new.
            _ if commit < from.boundary => HandedOver::All,
            Some(inside) if commit < inside.commit => HandedOver::All,
            Some(Inside { commit: at, ordinal, index }) if at == commit => HandedOver::Until(InTransaction { ordinal, index }),
            _ => HandedOver::Nothing,
        };
        let committed_at = Timestamp(begin.committed_at.saturating_add(EPOCH_MICROSECONDS));
        out.begin(&position_prefix(timeline, commit.0), committed_at, itoa::Buffer::new().format(begin.xid), handed_over);
        Self { commit, ordinal: 0 }
    }

    /// Where to resume inside the transaction after its last closed record; `None` at its start.
    pub(super) fn resume_at(&self, written: &Emission<Token>) -> Option<Inside> {
        let InTransaction { ordinal, index } = written.inside(self.ordinal)?;
        Some(Inside { commit: self.commit, ordinal, index })
    }

    pub(super) const fn commit(&self) -> Lsn {
        self.commit
    }

    /// The current row.
    pub(super) const fn row(&self) -> LogRow {
        LogRow { commit: self.commit, ordinal: self.ordinal }
    }

    pub(super) const fn next_row(&mut self) {
        self.ordinal += ORDINAL_STEP;
    }
}
