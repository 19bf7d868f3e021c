//! Finding the records that a topic refuses: it refuses whole requests, and does not say of every one which record is to blame.
//!
//! A session that met a refusal ends, as after every delivery error. The next ones send record by record through the batches that
//! may hold one. Each of them ends at the next refused record, if there is one, and the one after it begins by sending that one
//! to the dead letters. What has arrived before is remembered, so that neither records nor letters are sent again for it: a
//! cluster of refused records costs one session each, and no repeats.

use super::error::Error;
use crate::batch::Seq;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a record lies: its batch, and its place there. It stays there when the batch is sent again.
pub(super) type RecordIndex = (Seq, u32);

/// What is to be done about a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// It is sent as usual.
    Send,
    /// It is sent, and waited for before the next.
    SendAlone,
    /// It goes to the dead letters, for this.
    Bury(Error),
    /// It has arrived before, or its letter has.
    Pass,
}

/// What the sessions learn of refused records; it outlives them.
#[derive(Clone, Debug, Default)]
pub(super) struct Isolation(Arc<Mutex<Learnt>>);

#[derive(Clone, Debug, Default)]
struct Learnt {
    /// Batches up to this one are sent record by record.
    alone_through: Option<Seq>,
    /// The record that is on its way alone.
    alone: Option<RecordIndex>,
    /// The record that is known to be refused, and why. All before it have arrived.
    refused: Option<(RecordIndex, Error)>,
    /// All records up to this one have arrived, they or their letters.
    arrived: Option<RecordIndex>,
    /// The newest batch that a session was given.
    newest: Option<Seq>,
    /// How often requests were made smaller.
    squeezed: u32,
}

impl Isolation {
    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch is about to be sent. Says of each of its records what is to be done, as known now.
    pub(super) fn advise(&self, seq: Seq) -> impl Fn(u32) -> Advice + use<> {
        let learnt = {
            let mut learnt = self.learnt();
            learnt.alone = None;
            learnt.newest = learnt.newest.max(Some(seq));
            learnt.clone()
        };
        move |index| match &learnt.refused {
            _ if Some((seq, index)) <= learnt.arrived => Advice::Pass,
            Some((record_index, refusal)) if *record_index == (seq, index) => Advice::Bury(refusal.clone()),
            _ if Some(seq) <= learnt.alone_through => Advice::SendAlone,
            _ => Advice::Send,
        }
    }

    /// From now on this record is the only one on its way.
    pub(super) fn sends_alone(&self, record_index: RecordIndex) {
        self.learnt().alone = Some(record_index);
    }

    /// Nothing is on its way: all records up to this one have arrived.
    pub(super) fn arrived(&self, record_index: RecordIndex) {
        let learnt = &mut *self.learnt();
        learnt.alone = None;
        learnt.arrived = Some(record_index);
    }

    /// A request was refused for its size. Whether the next ones are made smaller for that; not where it was one record's, or cannot
    /// have been of several any more.
    pub(super) fn squeeze(&self) -> bool {
        let learnt = &mut *self.learnt();
        if learnt.alone.is_some() || batch_bytes(learnt.squeezed) == 1 {
            return false;
        }
        learnt.squeezed += 1;
        true
    }

    /// How large a request of several records may be.
    pub(super) fn batch_bytes(&self) -> usize {
        batch_bytes(self.learnt().squeezed)
    }

    /// Topics say how much they take.
    pub(super) fn forget_batch_bytes(&self) {
        self.learnt().squeezed = 0;
    }

    /// A record was refused: the one that is on its way alone, or any of those that a session was given.
    pub(super) fn refused(&self, refusal: &Error) {
        let learnt = &mut *self.learnt();
        match learnt.alone {
            Some(record_index) => learnt.refused = Some((record_index, refusal.clone())),
            None => learnt.alone_through = learnt.newest,
        }
    }
}

/// As it is configured at first, and a quarter each time.
const fn batch_bytes(squeezed: u32) -> usize {
    const WHOLE: usize = 1 << 20;
    match squeezed {
        0 => usize::MAX,
        1..10 => WHOLE >> (2 * squeezed),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Advice, Isolation};
    use crate::batch::Seq;
    use crate::sink::kafka::Error;
    use proptest::prelude::*;

    /// Sends batches by the rules of a session until one meets a refusal; whether it came to the end.
    fn session(isolation: &Isolation, batches: &[Vec<bool>], sent: &mut Vec<(u64, u32)>, letters: &mut Vec<(u64, u32)>) -> bool {
        let refusal = Error::Refused { topic: "orders".to_owned(), reason: "old".to_owned() };
        let mut is_met = false;
        for (seq, batch) in (1..).zip(batches) {
            let advise = isolation.advise(Seq(seq));
            for (index, is_refused) in (0..).zip(batch) {
                let record_index = (Seq(seq), index);
                match advise(index) {
                    Advice::Pass => {}
                    Advice::Bury(_) => {
                        assert!(*is_refused, "one that the topic takes is buried");
                        letters.push((seq, index));
                        isolation.arrived(record_index);
                    }
                    Advice::SendAlone => {
                        isolation.sends_alone(record_index);
                        if *is_refused {
                            isolation.refused(&refusal);
                            return false;
                        }
                        sent.push((seq, index));
                        isolation.arrived(record_index);
                    }
                    Advice::Send if *is_refused => is_met = true,
                    Advice::Send => sent.push((seq, index)),
                }
            }
        }
        // Requests fail when all is with the client already.
        if is_met {
            isolation.refused(&refusal);
            sent.clear();
        }
        !is_met
    }

    proptest! {
        #[test]
        fn each_refused_record_costs_one_session_and_nothing_is_repeated(batches in prop::collection::vec(prop::collection::vec(any::<bool>(), 1..5), 1..5)) {
            let (isolation, mut sent, mut letters) = (Isolation::default(), Vec::new(), Vec::new());
            let all = || (1_u64..).zip(&batches).flat_map(|(seq, batch)| (0_u32..).zip(batch).map(move |(index, refused)| ((seq, index), *refused)));
            let refused: Vec<_> = all().filter(|(_, refused)| *refused).map(|(record_index, _)| record_index).collect();
            let mut sessions = 1;
            while !session(&isolation, &batches, &mut sent, &mut letters) {
                sessions += 1;
                prop_assert!(sessions <= refused.len() + 2);
            }
            prop_assert_eq!(sessions, if refused.is_empty() { 1 } else { refused.len() + 2 });
            prop_assert_eq!(letters, refused);
            prop_assert!(sent.into_iter().eq(all().filter(|(_, refused)| !refused).map(|(record_index, _)| record_index)));
            let advise = isolation.advise(Seq(batches.len() as u64 + 1));
            prop_assert_eq!(advise(0), Advice::Send, "the batches concerned are behind");
        }
    }
}
