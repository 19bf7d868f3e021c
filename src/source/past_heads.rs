//! The heads that earlier probes have seen. A log to which others write all the time has moved on whenever it is looked at; but that what was
//! written before an earlier look is confirmed can be proved.

use std::collections::VecDeque;
use tokio::time::Instant;

/// How many heads are kept. A confirmed position that is further behind is compared with fewer of them.
const HEADS_MAX: usize = 64;

/// Heads of a log that the confirmed position has not reached yet. `P` is a position.
#[derive(Debug)]
pub struct PastHeads<P> {
    heads: VecDeque<(Instant, P)>,
    reached_at: Option<Instant>,
}

impl<P> Default for PastHeads<P> {
    fn default() -> Self {
        Self { heads: VecDeque::new(), reached_at: None }
    }
}

impl<P: PartialOrd> PastHeads<P> {
    /// Notes the head that a question has found which was asked at `asked_at`. Returns when the newest head was asked for that `confirmed` has
    /// reached: everything that was committed before is confirmed. `None` where it has reached none.
    pub fn note(&mut self, asked_at: Instant, head: P, confirmed: &P) -> Option<Instant> {
        if HEADS_MAX <= self.heads.len() {
            let mut keep = false;
            self.heads.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.heads.push_back((asked_at, head));
        while let Some((asked_at, _)) = self.heads.pop_front_if(|(_, head)| *head <= *confirmed) {
            self.reached_at = Some(asked_at);
        }
        self.reached_at
    }

    /// Whether `confirmed` has reached the head that the last probe saw.
    #[must_use]
    pub fn is_last_reached(&self, confirmed: &P) -> bool {
        match self.heads.back() {
            Some((_, head)) => head <= confirmed,
            None => self.reached_at.is_some(),
        }
    }

    /// Forgets all: another log goes on.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::{HEADS_MAX, PastHeads};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_head_that_moves_all_the_time_is_reached_a_moment_later() {
        let (mut heads, begun) = (PastHeads::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(heads.note(at(0), 10, &5), None);
        assert!(!heads.is_last_reached(&5) && heads.is_last_reached(&10));
        assert_eq!(heads.note(at(1), 20, &12), Some(at(0)));
        assert_eq!(heads.note(at(2), 30, &12), Some(at(0)));
        assert_eq!(heads.note(at(3), 40, &30), Some(at(2)));
        assert_eq!(heads.note(at(4), 40, &40), Some(at(4)));
        assert!(heads.is_last_reached(&40));
        heads.clear();
        assert!(!heads.is_last_reached(&40));
    }

    #[test]
    fn a_long_outage_keeps_some_of_the_heads() {
        let (mut heads, begun) = (PastHeads::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        for second in 0..10_000 {
            assert_eq!(heads.note(at(second), second, &0), Some(begun));
        }
        assert!(heads.heads.len() <= HEADS_MAX);
        let reached = heads.note(at(10_000), 10_000, &9_999).unwrap();
        assert!(at(9_900) < reached && reached < at(10_000), "{:?}", reached - begun);
    }
}
