//! When an event counts as unroutable: a node that is down, or a binding that is made anew, may leave it without a queue for a moment.

use crate::batch::Record;
use crate::change::{FeedId, Operation};
use std::collections::HashSet;

/// So often an event is returned before no queue is known to take it, with the pauses of a refusal between.
const TRIES: u32 = 5;

/// Which events no queue takes, by feed and operation, which share a routing key.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// How often the event at hand was returned.
    tries: u32,
    proven: HashSet<(FeedId, Operation)>,
}

impl Proof {
    /// The event was returned: whether that is proof enough by now.
    pub(super) fn returned(&mut self, record: &Record<'_>) -> bool {
        let kind = (record.head.feed, record.head.operation);
        if self.proven.contains(&kind) {
            return true;
        }
        self.tries += 1;
        let is_proven = TRIES <= self.tries;
        if is_proven {
            self.tries = 0;
            self.proven.insert(kind);
        }
        is_proven
    }

    /// The event was taken by a queue.
    pub(super) fn taken(&mut self, record: &Record<'_>) {
        self.tries = 0;
        if !self.proven.is_empty() {
            self.proven.remove(&(record.head.feed, record.head.operation));
        }
    }
}
