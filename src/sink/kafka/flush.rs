//! Decides when the client sends the messages that it has gathered: as soon as nothing follows them.
//!
//! librdkafka 2.12.1 sends a partition's messages when they fill a request, or when the first of them has waited for `linger.ms`. One
//! request is on its way to a broker at a time (see `client_config`). While messages wait behind it for longer than `linger.ms`, the
//! broker's thread looks at them again and again without sleeping (`rd_kafka_msgq_allow_wakeup_at`), which takes a whole core. So
//! `linger.ms` is set so high that it never ends, and gathered messages are sent by `rd_kafka_flush` instead, called for a moment: when no
//! batch follows, and what was flushed before is confirmed. No message is handed over during a flush, since it would wait in the
//! way just described. A flush sends one request and prepares one behind it: with many partitions it is repeated as they are confirmed.

#![expect(unsafe_code, reason = "the crate's own flush ends before the brokers' threads have seen it")]

use super::context::Client;
use rdkafka::bindings::rd_kafka_flush;
use rdkafka::producer::Producer as _;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a flush lasts, in milliseconds: long enough for the brokers' threads to see it.
const FLUSH_MS: i32 = 1;
/// How long messages wait for others while many come: as in Java's producer since Kafka 4.0 (KIP-1030).
const BUSY_LINGER: Duration = Duration::from_millis(5);
/// How many messages between two flushes count as many.
const BUSY_MESSAGES: u64 = 16;
/// When a flush is first repeated: a thread of the client may not have run yet, and records for another broker may wait too.
const FIRST_REPEAT: Duration = Duration::from_millis(2);
/// The longest time until a flush is repeated.
const LONGEST_REPEAT: Duration = Duration::from_secs(1);

/// Nobody uses the client.
const IDLE: u8 = 0;
/// The session hands messages over.
const PRODUCING: u8 = 1;
/// The client's thread flushes.
const FLUSHING: u8 = 2;

/// Makes sure that the session does not hand over messages while the client's thread flushes.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: AtomicU8,
    flushed: Notify,
    /// How many messages were handed over so far.
    produced: AtomicU64,
}

impl Gate {
    /// Whether the session may hand messages over: between [`Self::open`] and [`Self::close`].
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Relaxed) == PRODUCING
    }

    /// Waits for the end of a flush, then lets the session hand messages over. Cancel safe.
    pub(super) async fn open(&self) {
        loop {
            let flushed = self.flushed.notified();
            match self.state.compare_exchange(IDLE, PRODUCING, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) | Err(PRODUCING) => return,
                Err(_) => flushed.await,
            }
        }
    }

    /// Counts a message that was handed over.
    pub(super) fn count(&self) {
        // No other thread writes it.
        self.produced.store(self.produced.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The session waits: what it has handed over may be flushed.
    pub(super) fn close(&self) {
        // A flush that is under way goes on.
        let _flushing = self.state.compare_exchange(PRODUCING, IDLE, Ordering::Release, Ordering::Relaxed);
    }

    fn begin_flush(&self) -> bool {
        self.state.compare_exchange(IDLE, FLUSHING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn end_flush(&self) {
        self.state.store(IDLE, Ordering::Release);
        self.flushed.notify_waiters();
    }
}

/// Flushes when it is time. Belongs to the client's thread.
pub(super) struct Flusher<'c> {
    client: &'c Client,
    gate: &'c Gate,
    timer: FlushTimer,
}

impl<'c> Flusher<'c> {
    /// `linger` is how long messages wait for others, as the operator configured it.
    pub(super) const fn new(client: &'c Client, gate: &'c Gate, linger: Duration) -> Self {
        Self { client, gate, timer: FlushTimer::new(linger) }
    }

    /// Flushes if it is time. Returns when to call again; `None` if another event will come first.
    pub(super) fn poll(&mut self) -> Option<Duration> {
        // Read in this order: a message that is handed over in between counts as unconfirmed.
        let produced = self.gate.produced.load(Ordering::Acquire);
        let unconfirmed = u64::try_from(self.client.in_flight_count()).unwrap_or_default();
        let connections = self.client.client().context().connection_count();
        let wait = self.timer.next_in(produced, unconfirmed, connections, Instant::now())?;
        if !wait.is_zero() {
            return Some(wait);
        }
        if !self.gate.begin_flush() {
            // The session wakes this thread when it closes the gate.
            return None;
        }
        self.timer.flushed(self.gate.produced.load(Ordering::Acquire), unconfirmed, Instant::now());
        // SAFETY: the client is alive. The return value says that messages are left, which is expected.
        let _left = unsafe { rd_kafka_flush(self.client.client().native_ptr(), FLUSH_MS) };
        self.gate.end_flush();
        Some(Duration::ZERO)
    }
}

/// Computes when the next flush is due.
struct FlushTimer {
    linger: Duration,
    /// The last flush, if there was one.
    last: Option<Flush>,
    /// Since when there are messages that were never flushed, while everything flushed before is confirmed.
    gathered_since: Option<Instant>,
    /// How long after a flush it is repeated if nothing is confirmed.
    repeat_after: Duration,
    /// How many connections there were at the last call.
    connections: u64,
}

#[derive(Clone, Copy)]
struct Flush {
    at: Instant,
    /// How many messages had been handed over.
    produced: u64,
    /// How many of them since the flush before.
    new_messages: u64,
    /// How many messages had been confirmed.
    confirmed: u64,
}

impl FlushTimer {
    const fn new(linger: Duration) -> Self {
        Self { linger, last: None, gathered_since: None, repeat_after: FIRST_REPEAT, connections: 0 }
    }

    /// How long to wait for the next flush; `None` if there is nothing to flush.
    fn next_in(&mut self, produced: u64, unconfirmed: u64, connections: u64, now: Instant) -> Option<Duration> {
        if unconfirmed == 0 {
            self.gathered_since = None;
            self.repeat_after = FIRST_REPEAT;
            return None;
        }
        if std::mem::replace(&mut self.connections, connections) != connections {
            self.repeat_after = FIRST_REPEAT;
        }
        let confirmed = produced.saturating_sub(unconfirmed);
        let due = match self.last {
            // Messages of other partitions may have waited for those that are confirmed now.
            Some(last) if confirmed < last.produced && last.confirmed < confirmed => now,
            Some(last) if confirmed < last.produced => last.at + self.repeat_after,
            last => {
                let is_busy = last.is_some_and(|last| BUSY_MESSAGES <= last.new_messages);
                let linger = if is_busy { self.linger.max(BUSY_LINGER) } else { self.linger };
                *self.gathered_since.get_or_insert(now) + linger
            }
        };
        Some(due.saturating_duration_since(now))
    }

    /// Records a flush.
    fn flushed(&mut self, produced: u64, unconfirmed: u64, now: Instant) {
        let confirmed = produced.saturating_sub(unconfirmed);
        let (produced_before, confirmed_before) = self.last.map_or((0, 0), |last| (last.produced, last.confirmed));
        let is_first = self.gathered_since.take().is_some();
        self.repeat_after =
            if is_first || confirmed_before < confirmed { FIRST_REPEAT } else { (self.repeat_after * 2).min(LONGEST_REPEAT) };
        self.last = Some(Flush { at: now, produced, new_messages: produced - produced_before, confirmed });
    }
}

#[cfg(test)]
mod tests {
    use super::{BUSY_LINGER, BUSY_MESSAGES, FIRST_REPEAT, FlushTimer, Gate, LONGEST_REPEAT};
    use std::time::{Duration, Instant};

    #[test]
    fn gathered_messages_are_flushed_when_those_before_are_confirmed() {
        let (mut timer, now) = (FlushTimer::new(Duration::ZERO), Instant::now());
        assert_eq!(timer.next_in(0, 0, 1, now), None, "there is nothing to flush");
        assert_eq!(timer.next_in(3, 3, 1, now), Some(Duration::ZERO));
        timer.flushed(3, 3, now);
        // Two more wait behind the three.
        assert_eq!(timer.next_in(5, 5, 1, now), Some(FIRST_REPEAT));
        assert_eq!(timer.next_in(5, 2, 1, now), Some(Duration::ZERO));
    }

    #[test]
    fn messages_behind_other_partitions_are_flushed_as_soon_as_those_are_confirmed() {
        let (mut timer, now) = (FlushTimer::new(Duration::ZERO), Instant::now());
        timer.next_in(20, 20, 1, now);
        timer.flushed(20, 20, now);
        for unconfirmed in [15, 10, 5] {
            assert_eq!(timer.next_in(20, unconfirmed, 1, now), Some(Duration::ZERO));
            timer.flushed(20, unconfirmed, now);
            assert_eq!(timer.next_in(20, unconfirmed, 1, now), Some(FIRST_REPEAT));
        }
    }

    #[test]
    fn a_flush_without_effect_is_repeated_less_and_less_often() {
        let (mut timer, mut now) = (FlushTimer::new(Duration::ZERO), Instant::now());
        timer.next_in(1, 1, 1, now);
        timer.flushed(1, 1, now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = timer.next_in(1, 1, 1, now).unwrap();
            waits.push(wait);
            now += wait;
            assert_eq!(timer.next_in(1, 1, 1, now), Some(Duration::ZERO));
            timer.flushed(1, 1, now);
        }
        assert_eq!(waits[..3], [FIRST_REPEAT, FIRST_REPEAT * 2, FIRST_REPEAT * 4]);
        assert_eq!(waits[11], LONGEST_REPEAT);
        // A new connection repeats it soon, and a confirmation ends it.
        assert_eq!(timer.next_in(1, 1, 2, now), Some(FIRST_REPEAT));
        assert_eq!(timer.next_in(1, 0, 2, now), None);
        assert_eq!(timer.next_in(2, 1, 2, now), Some(Duration::ZERO));
    }

    #[test]
    fn linger_makes_messages_wait_for_others() {
        let linger = Duration::from_millis(20);
        let (mut timer, now) = (FlushTimer::new(linger), Instant::now());
        assert_eq!(timer.next_in(1, 1, 1, now), Some(linger));
        assert_eq!(timer.next_in(9, 9, 1, now + linger / 2), Some(linger / 2));
        assert_eq!(timer.next_in(9, 9, 1, now + linger), Some(Duration::ZERO));
    }

    #[test]
    fn while_many_messages_come_they_wait_a_moment_for_others() {
        let (mut timer, now) = (FlushTimer::new(Duration::ZERO), Instant::now());
        assert_eq!(timer.next_in(BUSY_MESSAGES, BUSY_MESSAGES, 1, now), Some(Duration::ZERO));
        timer.flushed(BUSY_MESSAGES, BUSY_MESSAGES, now);
        assert_eq!(timer.next_in(BUSY_MESSAGES + 1, 1, 1, now), Some(BUSY_LINGER));
        assert_eq!(timer.next_in(BUSY_MESSAGES + 9, 9, 1, now + BUSY_LINGER), Some(Duration::ZERO));
        timer.flushed(BUSY_MESSAGES + 9, 9, now);
        assert_eq!(timer.next_in(BUSY_MESSAGES + 10, 1, 1, now), Some(Duration::ZERO), "fewer came this time");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_handed_over_during_a_flush() {
        let gate = Gate::default();
        gate.open().await;
        assert!(gate.is_open() && !gate.begin_flush());
        gate.close();
        assert!(!gate.is_open() && gate.begin_flush());
        gate.close();
        assert!(tokio::time::timeout(Duration::from_mins(1), gate.open()).await.is_err());
        tokio::join!(gate.open(), async { gate.end_flush() });
        assert!(gate.is_open());
    }
}
