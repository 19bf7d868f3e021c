//! Counts rows and transactions between two reports, so that no metric is touched per row.

use crate::event::Operation;
use crate::status::metrics::SourceMetrics;

#[derive(Debug, Default)]
pub(super) struct Tally {
    events: [u64; Operation::ALL.len()],
    pub(super) filtered: u64,
    pub(super) transactions: u64,
    pub(super) schema_changes: u64,
}

impl Tally {
    #[inline]
    pub(super) const fn add(&mut self, operation: Operation) {
        self.events[operation as usize] += 1;
    }

    pub(super) fn report(&mut self, metrics: &SourceMetrics) {
        let tally = std::mem::take(self);
        for (operation, count) in Operation::ALL.into_iter().zip(tally.events) {
            if 0 < count {
                metrics.add_events(operation, count);
            }
        }
        metrics.filtered_operations.inc_by(tally.filtered);
        metrics.transactions.inc_by(tally.transactions);
        metrics.schema_changes.inc_by(tally.schema_changes);
    }
}
