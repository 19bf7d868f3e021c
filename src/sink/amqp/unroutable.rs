//! When an event counts as unroutable: a node that is down, or a binding that is made anew, may leave it without a queue for a moment.

use super::send_queue::Entry;
use crate::event::{FeedId, Operation};
use std::collections::HashSet;

/// So often an event is returned before no queue is known to take it, with the pauses of a refusal between.
const TRIES: u32 = 5;

/// What shares a routing key; dead letters have none.
type Kind = (FeedId, Operation);

/// Which events no queue takes.
#[derive(Debug, Default)]
pub(super) struct UnroutableEvents {
    /// How often the event at hand was returned.
    tries: u32,
    proven: HashSet<Kind>,
}

impl UnroutableEvents {
    /// The event was returned: whether that is unroutable enough by now. What is proven of events says nothing of dead letters.
    pub(super) fn returned(&mut self, entry: &Entry) -> bool {
        self.try_of(kind(entry))
    }

    /// A queue took the event, or the dead letter.
    pub(super) fn taken(&mut self, entry: &Entry) {
        self.end_of(kind(entry));
    }

    fn try_of(&mut self, kind: Option<Kind>) -> bool {
        if kind.is_some_and(|kind| self.proven.contains(&kind)) {
            return true;
        }
        self.tries += 1;
        let is_proven = TRIES <= self.tries;
        if is_proven {
            self.tries = 0;
            self.proven.extend(kind);
        }
        is_proven
    }

    fn end_of(&mut self, kind: Option<Kind>) {
        self.tries = 0;
        if let Some(kind) = kind
            && !self.proven.is_empty()
        {
            self.proven.remove(&kind);
        }
    }
}

fn kind(entry: &Entry) -> Option<Kind> {
    let head = entry.record().head;
    entry.letter.is_none().then_some((head.feed, head.operation))
}

#[cfg(test)]
mod tests {
    use super::{Kind, TRIES, UnroutableEvents};
    use crate::event::{FeedId, Operation};

    const INSERT: Option<Kind> = Some((FeedId(0), Operation::Insert));
    const UPDATE: Option<Kind> = Some((FeedId(0), Operation::Update));
    const LETTER: Option<Kind> = None;

    /// How often it is returned until that is unroutable.
    fn tries(unroutable: &mut UnroutableEvents, kind: Option<Kind>) -> u32 {
        (1..=TRIES).find(|_| unroutable.try_of(kind)).expect("it ends")
    }

    #[test]
    fn an_event_is_tried_some_times_and_those_like_it_once() {
        let mut unroutable = UnroutableEvents::default();
        assert_eq!([INSERT, INSERT, UPDATE, UPDATE, INSERT].map(|kind| tries(&mut unroutable, kind)), [TRIES, 1, TRIES, 1, 1]);
    }

    #[test]
    fn each_dead_letter_is_tried_some_times() {
        let mut unroutable = UnroutableEvents::default();
        assert_eq!([INSERT, LETTER, LETTER, INSERT].map(|kind| tries(&mut unroutable, kind)), [TRIES, TRIES, TRIES, 1]);
    }

    #[test]
    fn an_event_that_is_taken_ends_what_was_proven_of_its_kind() {
        let mut unroutable = UnroutableEvents::default();
        assert_eq!([INSERT, UPDATE].map(|kind| tries(&mut unroutable, kind)), [TRIES, TRIES]);
        unroutable.end_of(INSERT);
        assert_eq!([UPDATE, INSERT].map(|kind| tries(&mut unroutable, kind)), [1, TRIES]);
        unroutable.try_of(LETTER);
        unroutable.end_of(LETTER);
        assert_eq!([LETTER, INSERT].map(|kind| tries(&mut unroutable, kind)), [TRIES, 1]);
    }
}
