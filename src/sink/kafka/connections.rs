//! Tracks which connections are verified to lead to the known cluster, and holds back confirmations until they are.
//!
//! librdkafka reconnects by itself, inside a session, to whatever answers at the address by then. So a confirmation counts only
//! if every connection that it may have come over was verified after it was made: the broker at its other end was asked over this
//! connection, and returned the ids of the known cluster and topics. Until then confirmations are held back. A connection that
//! ends unverified can never be verified: confirmations that may have come over it are lost, and their records are sent again.
//!
//! A new connection is reported before anything comes over it, in the same queue as the confirmations and ahead of them: librdkafka
//! sorts its log lines before delivery reports (`rd_kafka_log_buf`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The debug context of librdkafka whose log lines report connections.
pub(super) const DEBUG_CONTEXT: &str = "broker";

/// A broker, and the number of its connection among all of the session.
pub(super) type Connection = (i32, u64);

/// A change of a broker's connection, read from librdkafka's log (`rd_kafka_broker_set_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateChange {
    /// The connection to this broker can be used.
    Up(i32),
    /// The connection to this broker ended.
    Down(i32),
}

impl StateChange {
    /// Parses a log line. Bootstrap connections and coordinators have no broker number and carry no records: they are ignored.
    pub(super) fn parse(message: &str) -> Option<Self> {
        let (name, states) = message.split_once(": Broker changed state ")?;
        let broker = name.rsplit_once('/')?.1.parse().ok()?;
        // Reauthentication leaves and enters the state UP: it counts as a new connection.
        match states.trim().split_once(" -> ")? {
            (_, "UP") => Some(Self::Up(broker)),
            ("UP", _) => Some(Self::Down(broker)),
            _ => None,
        }
    }
}

/// The connections of one session, and the confirmations that are held back.
#[derive(Debug)]
pub(super) struct Connections<H> {
    /// Whether every connection is verified and none was lost: the only thing that is read for each confirmation.
    are_verified: AtomicBool,
    state: Mutex<State<H>>,
}

#[derive(Debug)]
struct State<H> {
    /// Each broker's connection: its number, and whether it is verified.
    brokers: BTreeMap<i32, (u64, bool)>,
    newest: u64,
    /// Whether a connection ended unverified, and confirmations that came over it may not have been polled yet.
    has_lost: bool,
    held: Vec<H>,
}

impl<H> Default for Connections<H> {
    fn default() -> Self {
        let state = State { brokers: BTreeMap::new(), newest: 0, has_lost: false, held: Vec::new() };
        Self { are_verified: AtomicBool::new(true), state: Mutex::new(state) }
    }
}

impl<H> Connections<H> {
    fn state(&self) -> MutexGuard<'_, State<H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Updates `are_verified`, and returns the confirmations to release.
    fn update(&self, state: &mut State<H>) -> Vec<H> {
        let are_verified = !state.has_lost && state.brokers.values().all(|(_, is_verified)| *is_verified);
        self.are_verified.store(are_verified, Ordering::Release);
        if are_verified { std::mem::take(&mut state.held) } else { Vec::new() }
    }

    /// Records that a connection was made or ended. Returns the confirmations to release.
    #[must_use]
    pub(super) fn changed(&self, change: StateChange) -> Vec<H> {
        let state = &mut *self.state();
        let (StateChange::Up(broker) | StateChange::Down(broker)) = change;
        if state.brokers.remove(&broker).is_some_and(|(_, is_verified)| !is_verified) {
            state.has_lost = true;
        }
        if let StateChange::Up(broker) = change {
            state.newest += 1;
            state.brokers.insert(broker, (state.newest, false));
        }
        self.update(state)
    }

    /// Returns the confirmation if it counts now; holds it back otherwise.
    pub(super) fn accept_or_hold(&self, confirmation: H) -> Option<H> {
        if self.are_verified.load(Ordering::Acquire) {
            return Some(confirmation);
        }
        self.state().held.push(confirmation);
        None
    }

    /// How many confirmations are held back.
    pub(super) fn held_count(&self) -> usize {
        if self.are_verified.load(Ordering::Acquire) { 0 } else { self.state().held.len() }
    }

    /// The connections to verify.
    pub(super) fn unverified(&self) -> Vec<Connection> {
        if self.are_verified.load(Ordering::Acquire) {
            return Vec::new();
        }
        let state = self.state();
        state.brokers.iter().filter(|(_, (_, is_verified))| !is_verified).map(|(broker, (number, _))| (*broker, *number)).collect()
    }

    /// The connection of the next broker behind this one, in a circle.
    pub(super) fn next_after(&self, broker: i32) -> Option<Connection> {
        let state = self.state();
        let next = state.brokers.range(broker.saturating_add(1)..).next().or_else(|| state.brokers.iter().next());
        next.map(|(broker, (number, _))| (*broker, *number))
    }

    /// Whether this is still the broker's connection.
    pub(super) fn is_current(&self, (broker, number): Connection) -> bool {
        self.state().brokers.get(&broker).is_some_and(|(current, _)| *current == number)
    }

    /// Records that the broker returned the ids of the known cluster over this connection. Returns the confirmations to release.
    #[must_use]
    pub(super) fn verified(&self, (broker, number): Connection) -> Vec<H> {
        let state = &mut *self.state();
        if let Some((current, is_verified)) = state.brokers.get_mut(&broker) {
            *is_verified |= *current == number;
        }
        self.update(state)
    }

    /// Whether a connection ended unverified, since [`Self::forget_lost`] was last called with success.
    pub(super) fn has_lost(&self) -> bool {
        !self.are_verified.load(Ordering::Acquire) && self.state().has_lost
    }

    /// Forgets the lost connections, called when everything that came over them is polled. Returns the confirmations to release; `None`
    /// if confirmations are held back, of which some may have come over a lost connection.
    pub(super) fn forget_lost(&self) -> Option<Vec<H>> {
        let state = &mut *self.state();
        if !state.held.is_empty() {
            return None;
        }
        state.has_lost = false;
        Some(self.update(state))
    }
}

#[cfg(test)]
mod tests {
    use super::{Connections, StateChange};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn connections_are_read_from_the_log() {
        assert_eq!(
            StateChange::parse("[thrd:127.0.0.1:9092/1]: 127.0.0.1:9092/1: Broker changed state APIVERSION_QUERY -> UP"),
            Some(StateChange::Up(1))
        );
        assert_eq!(
            StateChange::parse("[thrd:x]: sasl_ssl://[::1]:9093/12: Broker changed state AUTH_REQ -> UP"),
            Some(StateChange::Up(12))
        );
        assert_eq!(StateChange::parse("[thrd:x]: kafka:9092/3: Broker changed state UP -> DOWN"), Some(StateChange::Down(3)));
        for other in [
            "[thrd:x]: kafka:9092/bootstrap: Broker changed state APIVERSION_QUERY -> UP",
            "[thrd:TxnCoordinator]: TxnCoordinator: Broker changed state APIVERSION_QUERY -> UP",
            "[thrd:x]: kafka:9092/3: Broker changed state DOWN -> INIT",
            "[thrd:x]: kafka:9092/3: Broker changed state CONNECT -> DOWN",
            "[thrd:x]: kafka:9092/3: Received CONNECT op",
        ] {
            assert_eq!(StateChange::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_confirmation_waits_until_its_connection_is_verified() {
        let connections = Connections::default();
        assert_eq!(connections.accept_or_hold(0), Some(0), "without a connection nothing can be wrong");
        assert!(connections.changed(StateChange::Up(1)).is_empty());
        assert_eq!(connections.accept_or_hold(1), None);
        let connection = connections.unverified()[0];
        assert_eq!(connections.verified(connection), [1]);
        assert_eq!((connections.accept_or_hold(2), connections.unverified()), (Some(2), vec![]));
        // An answer over the connection before does not count.
        assert!(connections.changed(StateChange::Down(1)).is_empty() && connections.changed(StateChange::Up(1)).is_empty());
        assert_eq!(connections.accept_or_hold(3), None);
        assert!(connections.verified(connection).is_empty() && connections.held_count() == 1);
        assert_eq!(connections.verified(connections.unverified()[0]), [3]);
    }

    #[test]
    fn confirmations_of_a_connection_that_ended_unverified_are_never_released() {
        let connections = Connections::default();
        assert!(connections.changed(StateChange::Up(1)).is_empty());
        assert_eq!(connections.accept_or_hold(1), None);
        assert!(connections.changed(StateChange::Down(1)).is_empty() && connections.has_lost());
        assert_eq!(connections.forget_lost(), None);
        assert!(connections.changed(StateChange::Up(1)).is_empty());
        assert!(connections.verified(connections.unverified()[0]).is_empty());
        assert_eq!((connections.forget_lost(), connections.held_count()), (None, 1));
        // If nothing came over it, nothing is lost.
        let connections = Connections::<u8>::default();
        assert!(connections.changed(StateChange::Up(1)).is_empty() && connections.changed(StateChange::Down(1)).is_empty());
        assert_eq!((connections.has_lost(), connections.forget_lost(), connections.has_lost()), (true, Some(vec![]), false));
    }

    proptest! {
        /// Connections of three brokers come and go, some to another cluster; confirmations come over those that exist. Answers
        /// come late, and count only if they are of the known cluster.
        #[test]
        fn no_confirmation_of_another_cluster_is_ever_released(steps in prop::collection::vec((0..3_i32, 0..5_u8, any::<bool>()), 1..60)) {
            let connections = Connections::default();
            let mut foreign: BTreeMap<i32, bool> = BTreeMap::new();
            let mut asked = None;
            for (broker, step, is_foreign) in steps {
                let released = match step {
                    0 => {
                        foreign.insert(broker, is_foreign);
                        connections.changed(StateChange::Up(broker))
                    }
                    1 => {
                        foreign.remove(&broker);
                        connections.changed(StateChange::Down(broker))
                    }
                    2 => match foreign.get(&broker) {
                        Some(is_foreign) => connections.accept_or_hold(*is_foreign).into_iter().collect(),
                        None => continue,
                    },
                    3 => {
                        asked = connections.unverified().first().copied();
                        continue;
                    }
                    _ => match asked.take() {
                        // The answer came over the present connection.
                        Some((broker, number)) if foreign.get(&broker) == Some(&false) => connections.verified((broker, number)),
                        _ => continue,
                    },
                };
                prop_assert!(released.iter().all(|is_foreign| !is_foreign));
                if connections.has_lost() && connections.forget_lost().is_none() {
                    // The session ends.
                    break;
                }
            }
        }
    }
}
