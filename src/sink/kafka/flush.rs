//! Has the client send what it has gathered, as soon as nothing follows.
//!
//! librdkafka 2.12.1 sends a partition's messages when they fill a request, or when the first of them has waited for `linger.ms`. One
//! request is on its way to a broker, see `properties`. While messages wait behind it for longer than `linger.ms`, the broker's thread
//! looks after them again and again without sleeping (`rd_kafka_msgq_allow_wakeup_at`), which takes a core. So `linger.ms` never ends
//! here. What is gathered leaves by `rd_kafka_flush`, which lasts a moment: when no batch follows, and what was flushed before has been
//! confirmed. Nothing is handed over during a flush, since it would wait in that very way. A flush sends one request, and makes one
//! behind it: with many partitions it is repeated as they are confirmed.

#![expect(unsafe_code, reason = "the crate's own flush ends before the brokers' threads have seen it")]

use super::context::Client;
use rdkafka::bindings::rd_kafka_flush;
use rdkafka::producer::Producer as _;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a flush lasts, in milliseconds: long enough for the brokers' threads to see it.
const FLUSH_MS: i32 = 1;
/// How long records wait for others while many come: what Java's producer waits for since Kafka 4.0 (KIP-1030).
const BUSY: Duration = Duration::from_millis(5);
/// Many are so many between two flushes.
const MANY: u64 = 16;
/// When the first flush is repeated: a thread of the client may have been kept from running, and another broker's records wait too.
const FIRST: Duration = Duration::from_millis(2);
/// The same at most.
const LONGEST: Duration = Duration::from_secs(1);

/// Nobody uses the client.
const RESTING: u8 = 0;
/// The session hands messages over.
const HANDING_OVER: u8 = 1;
/// The client's thread flushes.
const FLUSHING: u8 = 2;

/// What a session and the client's thread tell each other: they never hand over and flush at once.
#[derive(Debug, Default)]
pub(super) struct Gate {
    turn: AtomicU8,
    flushed: Notify,
    /// How many messages the client was given.
    handed: AtomicU64,
}

impl Gate {
    /// Whether the session may hand over: between [`Self::open`] and [`Self::rest`].
    pub(super) fn is_open(&self) -> bool {
        self.turn.load(Ordering::Relaxed) == HANDING_OVER
    }

    /// Waits for the end of a flush; then the session may hand over. Cancel safe.
    pub(super) async fn open(&self) {
        loop {
            let flushed = self.flushed.notified();
            match self.turn.compare_exchange(RESTING, HANDING_OVER, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) | Err(HANDING_OVER) => return,
                Err(_) => flushed.await,
            }
        }
    }

    /// A message was handed over.
    pub(super) fn count(&self) {
        // Nobody else writes it.
        self.handed.store(self.handed.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The session waits: what it has handed over may leave.
    pub(super) fn rest(&self) {
        // A flush goes on.
        let _flushing = self.turn.compare_exchange(HANDING_OVER, RESTING, Ordering::Release, Ordering::Relaxed);
    }

    fn begin_flush(&self) -> bool {
        self.turn.compare_exchange(RESTING, FLUSHING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn end_flush(&self) {
        self.turn.store(RESTING, Ordering::Release);
        self.flushed.notify_waiters();
    }
}

/// Decides when to flush; belongs to the client's thread.
pub(super) struct Flusher<'c> {
    client: &'c Client,
    gate: &'c Gate,
    rule: Rule,
}

impl<'c> Flusher<'c> {
    /// Records wait so long for others behind them, where a person wants that.
    pub(super) const fn new(client: &'c Client, gate: &'c Gate, linger: Duration) -> Self {
        Self { client, gate, rule: Rule::new(linger) }
    }

    /// Flushes where it is time. Returns when to look again; `None` where something else will happen first.
    pub(super) fn turn(&mut self) -> Option<Duration> {
        // In this order: what is handed over in between counts as on its way.
        let handed = self.gate.handed.load(Ordering::Acquire);
        let outstanding = u64::try_from(self.client.in_flight_count()).unwrap_or_default();
        let connections = self.client.client().context().connections();
        let wait = self.rule.wait(handed, outstanding, connections, Instant::now())?;
        if !wait.is_zero() {
            return Some(wait);
        }
        if !self.gate.begin_flush() {
            // The session says when it rests.
            return None;
        }
        self.rule.flushes(self.gate.handed.load(Ordering::Acquire), outstanding, Instant::now());
        // SAFETY: the client is alive. Its answer, that messages are left, is known.
        let _left = unsafe { rd_kafka_flush(self.client.client().native_ptr(), FLUSH_MS) };
        self.gate.end_flush();
        Some(Duration::ZERO)
    }
}

/// When it is time for a flush.
struct Rule {
    linger: Duration,
    /// The last flush, where there was one.
    last: Option<Flush>,
    /// Since when there are messages that were never flushed, and nothing is on its way.
    gathered_since: Option<Instant>,
    /// After which time a flush is repeated of which nothing is confirmed.
    again: Duration,
    /// How many connections there were by then.
    connections: u64,
}

#[derive(Clone, Copy)]
struct Flush {
    at: Instant,
    /// How many messages had been handed over, and how many of them since the flush before.
    handed: u64,
    carried: u64,
    /// How many messages had been confirmed.
    confirmed: u64,
}

impl Rule {
    const fn new(linger: Duration) -> Self {
        Self { linger, last: None, gathered_since: None, again: FIRST, connections: 0 }
    }

    /// How long to wait for the next flush; `None` where there is nothing to be flushed.
    fn wait(&mut self, handed: u64, outstanding: u64, connections: u64, now: Instant) -> Option<Duration> {
        if outstanding == 0 {
            self.gathered_since = None;
            self.again = FIRST;
            return None;
        }
        if std::mem::replace(&mut self.connections, connections) != connections {
            self.again = FIRST;
        }
        let confirmed = handed.saturating_sub(outstanding);
        let due = match self.last {
            // Other partitions' messages may have waited for those that are confirmed now.
            Some(last) if confirmed < last.handed && last.confirmed < confirmed => now,
            Some(last) if confirmed < last.handed => last.at + self.again,
            last => {
                let is_busy = last.is_some_and(|last| MANY <= last.carried);
                let linger = if is_busy { self.linger.max(BUSY) } else { self.linger };
                *self.gathered_since.get_or_insert(now) + linger
            }
        };
        Some(due.saturating_duration_since(now))
    }

    fn flushes(&mut self, handed: u64, outstanding: u64, now: Instant) {
        let confirmed = handed.saturating_sub(outstanding);
        let before = self.last.map_or((0, 0), |last| (last.handed, last.confirmed));
        let is_first = self.gathered_since.take().is_some();
        self.again = if is_first || before.1 < confirmed { FIRST } else { (self.again * 2).min(LONGEST) };
        self.last = Some(Flush { at: now, handed, carried: handed - before.0, confirmed });
    }
}

#[cfg(test)]
mod tests {
    use super::{BUSY, FIRST, Gate, LONGEST, MANY, Rule};
    use std::time::{Duration, Instant};

    #[test]
    fn what_is_gathered_is_flushed_when_what_was_flushed_before_is_confirmed() {
        let (mut rule, now) = (Rule::new(Duration::ZERO), Instant::now());
        assert_eq!(rule.wait(0, 0, 1, now), None, "there is nothing");
        assert_eq!(rule.wait(3, 3, 1, now), Some(Duration::ZERO));
        rule.flushes(3, 3, now);
        // Two more wait behind the three.
        assert_eq!(rule.wait(5, 5, 1, now), Some(FIRST));
        assert_eq!(rule.wait(5, 2, 1, now), Some(Duration::ZERO));
    }

    #[test]
    fn what_waits_behind_other_partitions_is_flushed_as_soon_as_they_are_confirmed() {
        let (mut rule, now) = (Rule::new(Duration::ZERO), Instant::now());
        rule.wait(20, 20, 1, now);
        rule.flushes(20, 20, now);
        for outstanding in [15, 10, 5] {
            assert_eq!(rule.wait(20, outstanding, 1, now), Some(Duration::ZERO));
            rule.flushes(20, outstanding, now);
            assert_eq!(rule.wait(20, outstanding, 1, now), Some(FIRST));
        }
    }

    #[test]
    fn a_flush_that_brings_nothing_is_repeated_ever_more_rarely() {
        let (mut rule, mut now) = (Rule::new(Duration::ZERO), Instant::now());
        rule.wait(1, 1, 1, now);
        rule.flushes(1, 1, now);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = rule.wait(1, 1, 1, now).unwrap();
            waits.push(wait);
            now += wait;
            assert_eq!(rule.wait(1, 1, 1, now), Some(Duration::ZERO));
            rule.flushes(1, 1, now);
        }
        assert_eq!(waits[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert_eq!(waits[11], LONGEST);
        // A new connection is worth a try, and a confirmation ends it.
        assert_eq!(rule.wait(1, 1, 2, now), Some(FIRST));
        assert_eq!(rule.wait(1, 0, 2, now), None);
        assert_eq!(rule.wait(2, 1, 2, now), Some(Duration::ZERO));
    }

    #[test]
    fn a_person_may_have_records_wait_for_others() {
        let linger = Duration::from_millis(20);
        let (mut rule, now) = (Rule::new(linger), Instant::now());
        assert_eq!(rule.wait(1, 1, 1, now), Some(linger));
        assert_eq!(rule.wait(9, 9, 1, now + linger / 2), Some(linger / 2));
        assert_eq!(rule.wait(9, 9, 1, now + linger), Some(Duration::ZERO));
    }

    #[test]
    fn while_many_records_come_they_wait_a_moment_for_others() {
        let (mut rule, now) = (Rule::new(Duration::ZERO), Instant::now());
        assert_eq!(rule.wait(MANY, MANY, 1, now), Some(Duration::ZERO));
        rule.flushes(MANY, MANY, now);
        assert_eq!(rule.wait(MANY + 1, 1, 1, now), Some(BUSY));
        assert_eq!(rule.wait(MANY + 9, 9, 1, now + BUSY), Some(Duration::ZERO));
        rule.flushes(MANY + 9, 9, now);
        assert_eq!(rule.wait(MANY + 10, 1, 1, now), Some(Duration::ZERO), "fewer came this time");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_handed_over_during_a_flush() {
        let gate = Gate::default();
        gate.open().await;
        assert!(gate.is_open() && !gate.begin_flush());
        gate.rest();
        assert!(!gate.is_open() && gate.begin_flush());
        gate.rest();
        assert!(tokio::time::timeout(Duration::from_mins(1), gate.open()).await.is_err());
        tokio::join!(gate.open(), async { gate.end_flush() });
        assert!(gate.is_open());
    }
}
