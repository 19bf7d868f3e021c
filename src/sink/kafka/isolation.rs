//! Finds the records that a topic refuses. A broker refuses a whole request, and does not always say which record is to blame.
//!
//! A session that meets a refusal ends, as after every delivery error. The next sessions send record by record through the batches that
//! may hold a refused record. Each of these sessions ends at the next refused record, and the session after it begins by sending that record
//! to the dead-letter topic. What has arrived before is remembered, so that neither records nor dead letters are sent twice for
//! this reason: each refused record costs one session, and no repeats.

use super::error::Error;
use crate::batch::Seq;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Identifies a record: its batch, and its index there. It is the same when the batch is sent again.
pub(super) type RecordIndex = (Seq, u32);

/// How a record is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Handling {
    /// As usual.
    Send,
    /// Alone: its confirmation is waited for before the next record is sent.
    SendAlone,
    /// To the dead-letter topic, because of this error.
    DeadLetter(Error),
    /// Not at all: it, or its dead letter, has arrived before.
    Skip,
}

/// What sessions have learnt about refused records. Shared by all sessions of a connector.
#[derive(Clone, Debug, Default)]
pub(super) struct Isolation(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    /// Batches up to this one are sent record by record.
    alone_through: Option<Seq>,
    /// The record that was sent alone and is not confirmed yet.
    alone: Option<RecordIndex>,
    /// The record that is known to be refused, and why. All records before it have arrived.
    refused: Option<(RecordIndex, Error)>,
    /// All records up to this one, or their dead letters, have arrived.
    arrived: Option<RecordIndex>,
    /// The newest batch that was submitted.
    newest: Option<Seq>,
    /// How often requests were made smaller.
    shrunk: u32,
}

impl Isolation {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called when a batch is about to be sent. Returns how each of its records is to be handled, by index, as known now.
    pub(super) fn plan(&self, seq: Seq) -> impl Fn(u32) -> Handling + use<> {
        let state = {
            let mut state = self.state();
            state.alone = None;
            state.newest = state.newest.max(Some(seq));
            state.clone()
        };
        move |index| match &state.refused {
            _ if Some((seq, index)) <= state.arrived => Handling::Skip,
            Some((refused, error)) if *refused == (seq, index) => Handling::DeadLetter(error.clone()),
            _ if Some(seq) <= state.alone_through => Handling::SendAlone,
            _ => Handling::Send,
        }
    }

    /// Called before a record is sent alone.
    pub(super) fn sending_alone(&self, record: RecordIndex) {
        self.state().alone = Some(record);
    }

    /// Called when no record is unconfirmed: all records up to this one have arrived.
    pub(super) fn arrived(&self, record: RecordIndex) {
        let state = &mut *self.state();
        state.alone = None;
        state.arrived = Some(record);
    }

    /// Called when a request was refused for its size. Returns whether the next requests are made smaller because of it; `false` if it held one
    /// record only, or if requests already hold no more than one.
    pub(super) fn shrink_requests(&self) -> bool {
        let state = &mut *self.state();
        if state.alone.is_some() || batch_bytes(state.shrunk) == 1 {
            return false;
        }
        state.shrunk += 1;
        true
    }

    /// How large a request of several records may be.
    pub(super) fn batch_bytes(&self) -> usize {
        batch_bytes(self.state().shrunk)
    }

    /// Called when the topics' size limits were read again.
    pub(super) fn reset_batch_bytes(&self) {
        self.state().shrunk = 0;
    }

    /// Called when a record was refused: the one that was sent alone, or any one of those submitted.
    pub(super) fn refused(&self, error: &Error) {
        let state = &mut *self.state();
        match state.alone {
            Some(record) => state.refused = Some((record, error.clone())),
            None => state.alone_through = state.newest,
        }
    }
}

/// The size of requests after so many refusals: as configured at first, then 256 KiB, then a quarter of that each time.
const fn batch_bytes(shrunk: u32) -> usize {
    const START: usize = 1 << 20;
    match shrunk {
        0 => usize::MAX,
        1..10 => START >> (2 * shrunk),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Handling, Isolation};
    use crate::batch::Seq;
    use proptest::prelude::*;

    /// Sends batches as a session does, until one meets a refusal. Returns whether all were sent.
    fn session(isolation: &Isolation, batches: &[Vec<bool>], sent: &mut Vec<(u64, u32)>, letters: &mut Vec<(u64, u32)>) -> bool {
        let error = Error::Refused { topic: "orders".to_owned(), reason: "old".to_owned() };
        let mut has_met_refusal = false;
        for (seq, batch) in (1..).zip(batches) {
            let handling = isolation.plan(Seq(seq));
            for (index, is_refused) in (0..).zip(batch) {
                let record = (Seq(seq), index);
                match handling(index) {
                    Handling::Skip => {}
                    Handling::DeadLetter(_) => {
                        assert!(*is_refused, "only a refused record becomes a dead letter");
                        letters.push((seq, index));
                        isolation.arrived(record);
                    }
                    Handling::SendAlone => {
                        isolation.sending_alone(record);
                        if *is_refused {
                            isolation.refused(&error);
                            return false;
                        }
                        sent.push((seq, index));
                        isolation.arrived(record);
                    }
                    Handling::Send if *is_refused => has_met_refusal = true,
                    Handling::Send => sent.push((seq, index)),
                }
            }
        }
        // Requests fail when everything was already handed to the client.
        if has_met_refusal {
            isolation.refused(&error);
            sent.clear();
        }
        !has_met_refusal
    }

    proptest! {
        #[test]
        fn each_refused_record_costs_one_session_and_no_record_is_repeated(batches in prop::collection::vec(prop::collection::vec(any::<bool>(), 1..5), 1..5)) {
            let (isolation, mut sent, mut letters) = (Isolation::default(), Vec::new(), Vec::new());
            let all = || (1_u64..).zip(&batches).flat_map(|(seq, batch)| (0_u32..).zip(batch).map(move |(index, refused)| ((seq, index), *refused)));
            let refused: Vec<_> = all().filter(|(_, refused)| *refused).map(|(record, _)| record).collect();
            let mut sessions = 1;
            while !session(&isolation, &batches, &mut sent, &mut letters) {
                sessions += 1;
                prop_assert!(sessions <= refused.len() + 2);
            }
            prop_assert_eq!(sessions, if refused.is_empty() { 1 } else { refused.len() + 2 });
            prop_assert_eq!(letters, refused);
            prop_assert!(sent.into_iter().eq(all().filter(|(_, refused)| !refused).map(|(record, _)| record)));
            let handling = isolation.plan(Seq(batches.len() as u64 + 1));
            prop_assert_eq!(handling(0), Handling::Send, "later batches are sent as usual");
        }
    }
}
