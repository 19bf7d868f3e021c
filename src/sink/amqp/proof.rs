//! When an event counts as unroutable: a node that is down, or a binding that is made anew, may leave it without a queue for a moment.

use super::supply::Entry;
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
    /// The event was returned: whether that is proof enough by now. What is proven of events says nothing of dead letters.
    pub(super) fn returned(&mut self, entry: &Entry) -> bool {
        let is_letter = entry.letter.is_some();
        if !is_letter && self.proven.contains(&kind(entry)) {
            return true;
        }
        self.tries += 1;
        let is_proven = TRIES <= self.tries;
        if is_proven {
            self.tries = 0;
            if !is_letter {
                self.proven.insert(kind(entry));
            }
        }
        is_proven
    }

    /// A queue took the event, or the dead letter.
    pub(super) fn taken(&mut self, entry: &Entry) {
        self.tries = 0;
        if entry.letter.is_none() && !self.proven.is_empty() {
            self.proven.remove(&kind(entry));
        }
    }
}

fn kind(entry: &Entry) -> (FeedId, Operation) {
    let head = entry.record().head;
    (head.feed, head.operation)
}
