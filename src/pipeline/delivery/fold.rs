//! Folds confirmed batches into the checkpoint, and counts them.

use super::ledger::Ledger;
use super::saver::Durable;
use crate::batch::{Batch, Seq};
use crate::checkpoint::{Checkpoint, LastExit};
use crate::event::{Operation, Timestamp};
use crate::status::Publisher;
use crate::status::metrics::Metrics;

/// The checkpoint that follows the ledger.
#[derive(Debug)]
pub(super) struct Fold {
    checkpoint: Checkpoint,
    /// The newest batch in it.
    newest: Seq,
    metrics: Metrics,
    status: Publisher,
}

impl Fold {
    pub(super) const fn new(checkpoint: Checkpoint, metrics: Metrics, status: Publisher) -> Self {
        Self { checkpoint, newest: Seq(0), metrics, status }
    }

    /// The newest batch in the checkpoint.
    pub(super) const fn newest(&self) -> Seq {
        self.newest
    }

    /// Takes the confirmed prefix out of the ledger, and gives its memory back (I2). Returns whether something waits until it is durable.
    pub(super) fn take_confirmed(&mut self, ledger: &mut Ledger) -> bool {
        let mut is_urgent = false;
        while let Some(batch) = ledger.pop_confirmed() {
            let newest = batch.newest_live();
            self.checkpoint.advance(batch.progress(), newest);
            self.newest = batch.seq();
            is_urgent |= batch.progress().urgent;
            self.count(&batch, newest);
        }
        is_urgent
    }

    fn count(&self, batch: &Batch, newest: Option<Timestamp>) {
        let age = self.status.note(|status| status.confirmed(&batch.progress().token.0, newest));
        self.metrics.sink_events.inc_by(batch.len() as u64);
        self.metrics.sink_bytes.inc_by(batch.size_bytes() as u64);
        if !batch.progress().marks.is_empty() {
            let rows = batch.records().filter(|record| record.head.operation == Operation::Read).count();
            self.metrics.prefeed_rows.inc_by(rows as u64);
        }
        if let Some(age) = age {
            self.metrics.event_age_seconds.observe(age);
        }
    }

    /// Notes how the run ended.
    pub(super) const fn set_exit(&mut self, exit: LastExit) {
        self.checkpoint.last_exit = exit;
    }

    /// The checkpoint to be saved, and what it makes durable; `None` while it has no token, because nothing has been read.
    pub(super) fn image(&mut self) -> Option<(Checkpoint, Durable)> {
        let token = self.checkpoint.token.clone()?;
        self.checkpoint.restarts = self.metrics.restarts();
        self.checkpoint.caught_up_at = self.status.read().caught_up_at();
        Some((self.checkpoint.clone(), Durable { seq: self.newest, token }))
    }

    /// Whether the checkpoint has a token.
    pub(super) const fn has_token(&self) -> bool {
        self.checkpoint.token.is_some()
    }
}
