//! Which connections are proven to lead to the known cluster, and what may not count before they are.
//!
//! librdkafka connects again by itself, inside a session, to whoever stands behind the address by then. So a confirmation counts
//! only where every connection that it may have come over was proven after it was made: the broker at its other end was asked over
//! it, and named the known cluster and the known topics. Until then confirmations are held back. A connection that ends unproven
//! can be proven no more: what may have come over it is lost, and sent again.
//!
//! A connection is told of before anything comes over it, in the same queue as the confirmations and ahead of them: librdkafka
//! sorts its log lines before delivery reports (`rd_kafka_log_buf`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The context of librdkafka's debug lines that tells of connections.
pub(super) const DEBUG: &str = "broker";

/// A broker, and the number of its connection among all of the session.
pub(super) type Connection = (i32, u64);

/// What became of a broker's connection, as a line of librdkafka's log tells it (`rd_kafka_broker_set_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may be used from now on.
    Up(i32),
    /// It ended.
    Down(i32),
}

impl Turn {
    /// Reads a line; brokers without a number carry no records: those to begin with, and coordinators.
    pub(super) fn read(message: &str) -> Option<Self> {
        let (name, states) = message.split_once(": Broker changed state ")?;
        let broker = name.rsplit_once('/')?.1.parse().ok()?;
        // A connection whose user is asked for again counts as another one.
        match states.trim().split_once(" -> ")? {
            (_, "UP") => Some(Self::Up(broker)),
            ("UP", _) => Some(Self::Down(broker)),
            _ => None,
        }
    }
}

/// The connections of one session, and the confirmations that wait for their proof.
#[derive(Debug)]
pub(super) struct Trust<H> {
    /// Whether nothing is unproven: the only thing that is looked at for each confirmation.
    is_whole: AtomicBool,
    state: Mutex<State<H>>,
}

#[derive(Debug)]
struct State<H> {
    /// Each broker's connection: its number, and whether it is proven.
    brokers: BTreeMap<i32, (u64, bool)>,
    newest: u64,
    /// A connection ended unproven, and what came over it may not have been polled.
    has_lost: bool,
    held: Vec<H>,
}

impl<H> Default for Trust<H> {
    fn default() -> Self {
        let state = State { brokers: BTreeMap::new(), newest: 0, has_lost: false, held: Vec::new() };
        Self { is_whole: AtomicBool::new(true), state: Mutex::new(state) }
    }
}

impl<H> Trust<H> {
    fn state(&self) -> MutexGuard<'_, State<H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles whether all is proven now, and gives what was held back where it is.
    fn settle(&self, state: &mut State<H>) -> Vec<H> {
        let is_whole = !state.has_lost && state.brokers.values().all(|(_, is_proven)| *is_proven);
        self.is_whole.store(is_whole, Ordering::Release);
        if is_whole { std::mem::take(&mut state.held) } else { Vec::new() }
    }

    /// A connection began or ended. Returns what need no longer be held back.
    pub(super) fn turned(&self, turn: Turn) -> Vec<H> {
        let state = &mut *self.state();
        let (Turn::Up(broker) | Turn::Down(broker)) = turn;
        if state.brokers.remove(&broker).is_some_and(|(_, is_proven)| !is_proven) {
            state.has_lost = true;
        }
        if let Turn::Up(broker) = turn {
            state.newest += 1;
            state.brokers.insert(broker, (state.newest, false));
        }
        self.settle(state)
    }

    /// Holds a confirmation back, where anything is unproven.
    pub(super) fn hold(&self, confirmation: H) -> Option<H> {
        if self.is_whole.load(Ordering::Acquire) {
            return Some(confirmation);
        }
        self.state().held.push(confirmation);
        None
    }

    /// How many confirmations are held back.
    pub(super) fn held(&self) -> usize {
        if self.is_whole.load(Ordering::Acquire) { 0 } else { self.state().held.len() }
    }

    /// The connections that are to be proven.
    pub(super) fn unproven(&self) -> Vec<Connection> {
        if self.is_whole.load(Ordering::Acquire) {
            return Vec::new();
        }
        let state = self.state();
        state.brokers.iter().filter(|(_, (_, is_proven))| !is_proven).map(|(broker, (number, _))| (*broker, *number)).collect()
    }

    /// Any connection, the next one behind this broker's.
    pub(super) fn any_after(&self, broker: i32) -> Option<Connection> {
        let state = self.state();
        let next = state.brokers.range(broker.saturating_add(1)..).next().or_else(|| state.brokers.iter().next());
        next.map(|(broker, (number, _))| (*broker, *number))
    }

    /// Whether this is still the broker's connection.
    pub(super) fn is_present(&self, (broker, number): Connection) -> bool {
        self.state().brokers.get(&broker).is_some_and(|(present, _)| *present == number)
    }

    /// The broker named the known cluster over this connection. Returns what need no longer be held back.
    pub(super) fn proven(&self, (broker, number): Connection) -> Vec<H> {
        let state = &mut *self.state();
        if let Some((present, is_proven)) = state.brokers.get_mut(&broker) {
            *is_proven |= *present == number;
        }
        self.settle(state)
    }

    /// Whether a connection ended unproven.
    pub(super) fn has_lost(&self) -> bool {
        !self.is_whole.load(Ordering::Acquire) && self.state().has_lost
    }

    /// All that came over connections that have ended is polled. Whether nothing of it was a confirmation; what need no longer be held back.
    pub(super) fn polled(&self) -> Option<Vec<H>> {
        let state = &mut *self.state();
        if !state.held.is_empty() {
            return None;
        }
        state.has_lost = false;
        Some(self.settle(state))
    }
}

#[cfg(test)]
mod tests {
    use super::{Trust, Turn};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn connections_are_read_from_the_log() {
        let read = |message: &str| Turn::read(message);
        assert_eq!(read("[thrd:127.0.0.1:9092/1]: 127.0.0.1:9092/1: Broker changed state APIVERSION_QUERY -> UP"), Some(Turn::Up(1)));
        assert_eq!(read("[thrd:x]: sasl_ssl://[::1]:9093/12: Broker changed state AUTH_REQ -> UP"), Some(Turn::Up(12)));
        assert_eq!(read("[thrd:x]: kafka:9092/3: Broker changed state UP -> DOWN"), Some(Turn::Down(3)));
        for other in [
            "[thrd:x]: kafka:9092/bootstrap: Broker changed state APIVERSION_QUERY -> UP",
            "[thrd:TxnCoordinator]: TxnCoordinator: Broker changed state APIVERSION_QUERY -> UP",
            "[thrd:x]: kafka:9092/3: Broker changed state DOWN -> INIT",
            "[thrd:x]: kafka:9092/3: Broker changed state CONNECT -> DOWN",
            "[thrd:x]: kafka:9092/3: Received CONNECT op",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_confirmation_waits_for_the_proof_of_the_connection_that_it_came_over() {
        let trust = Trust::default();
        assert_eq!(trust.hold(0), Some(0), "there is no connection, and nothing comes");
        assert!(trust.turned(Turn::Up(1)).is_empty());
        assert_eq!(trust.hold(1), None);
        let connection = trust.unproven()[0];
        assert_eq!(trust.proven(connection), [1]);
        assert_eq!((trust.hold(2), trust.unproven()), (Some(2), vec![]));
        // A proof of the connection before is none.
        assert!(trust.turned(Turn::Down(1)).is_empty() && trust.turned(Turn::Up(1)).is_empty());
        assert_eq!(trust.hold(3), None);
        assert!(trust.proven(connection).is_empty() && trust.held() == 1);
        assert_eq!(trust.proven(trust.unproven()[0]), [3]);
    }

    #[test]
    fn what_came_over_a_connection_that_ended_unproven_is_never_released() {
        let trust = Trust::default();
        trust.turned(Turn::Up(1));
        assert_eq!(trust.hold(1), None);
        assert!(trust.turned(Turn::Down(1)).is_empty() && trust.has_lost());
        assert_eq!(trust.polled(), None);
        trust.turned(Turn::Up(1));
        assert!(trust.proven(trust.unproven()[0]).is_empty());
        assert_eq!((trust.polled(), trust.held()), (None, 1));
        // Where nothing came over it, nothing is lost.
        let trust = Trust::<u8>::default();
        trust.turned(Turn::Up(1));
        trust.turned(Turn::Down(1));
        assert_eq!((trust.has_lost(), trust.polled(), trust.has_lost()), (true, Some(vec![]), false));
    }

    proptest! {
        /// Connections of three brokers come and go, some to a stranger; confirmations come over those that are there, proofs
        /// succeed where the stranger is not, and come late.
        #[test]
        fn nothing_that_a_stranger_confirmed_is_ever_released(turns in prop::collection::vec((0..3_i32, 0..5_u8, any::<bool>()), 1..60)) {
            let trust = Trust::default();
            let mut strangers: BTreeMap<i32, bool> = BTreeMap::new();
            let mut asked = None;
            for (broker, what, is_stranger) in turns {
                let released = match what {
                    0 => {
                        strangers.insert(broker, is_stranger);
                        trust.turned(Turn::Up(broker))
                    }
                    1 => {
                        strangers.remove(&broker);
                        trust.turned(Turn::Down(broker))
                    }
                    2 => match strangers.get(&broker) {
                        Some(is_stranger) => trust.hold(*is_stranger).into_iter().collect(),
                        None => continue,
                    },
                    3 => {
                        asked = trust.unproven().first().copied();
                        continue;
                    }
                    _ => match asked.take() {
                        // The answer that is heard now came over the connection that is there now.
                        Some((broker, number)) if strangers.get(&broker) == Some(&false) => trust.proven((broker, number)),
                        _ => continue,
                    },
                };
                prop_assert!(released.iter().all(|is_strangers| !is_strangers));
                if trust.has_lost() && trust.polled().is_none() {
                    // The session ends.
                    break;
                }
            }
        }
    }
}
