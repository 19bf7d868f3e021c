//! Counts the retries of returned events, and decides when an event is unroutable. A node that is down, or a binding that is being made
//! again, can leave an event without a queue for a moment.

use super::send_queue::Entry;
use crate::event::{FeedId, Operation};
use std::collections::HashSet;

/// An event is unroutable after it was returned so often, with the send window's pauses between.
const TRIES_MAX: u32 = 5;

/// Identifies a routing key: events of the same feed and operation share one.
type RouteId = (FeedId, Operation);

/// The retries of the current event, and the routing keys known to be unroutable.
#[derive(Debug, Default)]
pub(super) struct UnroutableRetries {
    /// How often the current event was returned.
    tries: u32,
    unroutable: HashSet<RouteId>,
}

impl UnroutableRetries {
    /// Counts a return. Returns whether the event is unroutable by now. Dead letters go to another exchange and are counted apart.
    pub(super) fn returned(&mut self, entry: &Entry) -> bool {
        self.count_return(route(entry))
    }

    /// The event, or the dead letter, is stored: its routing key is routable again.
    pub(super) fn stored(&mut self, entry: &Entry) {
        self.clear(route(entry));
    }

    /// `route` is `None` for a dead letter.
    fn count_return(&mut self, route: Option<RouteId>) -> bool {
        if route.is_some_and(|route| self.unroutable.contains(&route)) {
            return true;
        }
        self.tries += 1;
        let is_unroutable = TRIES_MAX <= self.tries;
        if is_unroutable {
            self.tries = 0;
            self.unroutable.extend(route);
        }
        is_unroutable
    }

    fn clear(&mut self, route: Option<RouteId>) {
        self.tries = 0;
        if let Some(route) = route
            && !self.unroutable.is_empty()
        {
            self.unroutable.remove(&route);
        }
    }
}

fn route(entry: &Entry) -> Option<RouteId> {
    let head = entry.record().head;
    entry.dead_letter.is_none().then_some((head.feed, head.operation))
}

#[cfg(test)]
mod tests {
    use super::{RouteId, TRIES_MAX, UnroutableRetries};
    use crate::event::{FeedId, Operation};

    const INSERT: Option<RouteId> = Some((FeedId(0), Operation::Insert));
    const UPDATE: Option<RouteId> = Some((FeedId(0), Operation::Update));
    const DEAD_LETTER: Option<RouteId> = None;

    /// How often an event is returned until it is unroutable.
    fn tries(retries: &mut UnroutableRetries, route: Option<RouteId>) -> u32 {
        (1..=TRIES_MAX).find(|_| retries.count_return(route)).expect("the retries end")
    }

    #[test]
    fn the_first_event_of_a_routing_key_is_tried_several_times_and_later_ones_once() {
        let mut retries = UnroutableRetries::default();
        assert_eq!([INSERT, INSERT, UPDATE, UPDATE, INSERT].map(|route| tries(&mut retries, route)), [TRIES_MAX, 1, TRIES_MAX, 1, 1]);
    }

    #[test]
    fn each_dead_letter_is_tried_several_times() {
        let mut retries = UnroutableRetries::default();
        assert_eq!(
            [INSERT, DEAD_LETTER, DEAD_LETTER, INSERT].map(|route| tries(&mut retries, route)),
            [TRIES_MAX, TRIES_MAX, TRIES_MAX, 1]
        );
    }

    #[test]
    fn a_stored_event_makes_its_routing_key_routable_again() {
        let mut retries = UnroutableRetries::default();
        assert_eq!([INSERT, UPDATE].map(|route| tries(&mut retries, route)), [TRIES_MAX, TRIES_MAX]);
        retries.clear(INSERT);
        assert_eq!([UPDATE, INSERT].map(|route| tries(&mut retries, route)), [1, TRIES_MAX]);
        retries.count_return(DEAD_LETTER);
        retries.clear(DEAD_LETTER);
        assert_eq!([DEAD_LETTER, INSERT].map(|route| tries(&mut retries, route)), [TRIES_MAX, 1]);
    }
}
