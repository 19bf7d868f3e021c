//! The confirm timeout: how long a broker may confirm nothing before the session is ended.

use super::error::{Error, Peer};
use super::socket::Traffic;
use crate::status::metrics::SinkMetrics;
use lapin::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The broker may confirm nothing for so long after the last bytes moved over the connection. A broker that blocks publishers
/// (`connection.blocked`) may be silent for ever.
const CONFIRM_TIMEOUT: Duration = Duration::from_mins(1);
/// How often the byte count of the connection is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// How often the timeout is doubled, at most.
const DOUBLINGS_MAX: u32 = 5;

/// How many sessions in a row timed out. The next session sends the same events again, so each gets twice the time of the one before:
/// buffers on the way accept bytes faster than a slow line carries them.
#[derive(Clone, Debug, Default)]
pub(super) struct TimedOutSessions(Arc<AtomicU32>);

impl TimedOutSessions {
    fn timeout(&self) -> Duration {
        CONFIRM_TIMEOUT * (1 << self.0.load(Ordering::Relaxed).min(DOUBLINGS_MAX))
    }
}

/// Tracks what the broker has sent, and when it times out.
pub(super) struct ConfirmTimeout {
    /// Whether the broker blocks publishers. Then there is no timeout.
    is_blocked: bool,
    /// Whether the broker refuses events.
    is_refusing: bool,
    /// When the broker last confirmed or sent anything, or had nothing to confirm.
    since: Instant,
    traffic: Traffic,
    /// The connection's byte count at the last check, and when it was seen to have grown.
    moved: (u64, Instant),
    timed_out: TimedOutSessions,
    pub(super) metrics: SinkMetrics,
    pub(super) peer: Peer,
}

impl ConfirmTimeout {
    pub(super) fn new(metrics: SinkMetrics, peer: Peer, traffic: Traffic, timed_out: TimedOutSessions) -> Self {
        let now = Instant::now();
        Self { is_blocked: false, is_refusing: false, since: now, moved: (traffic.bytes(), now), traffic, timed_out, metrics, peer }
    }

    /// Restarts the timeout.
    pub(super) fn restart(&mut self) {
        self.since = Instant::now();
        self.moved = (self.traffic.bytes(), self.since);
    }

    /// The broker confirmed something.
    pub(super) fn confirmed(&mut self) {
        self.timed_out.0.store(0, Ordering::Relaxed);
        self.restart();
    }

    /// Handles an event of the connection. Any event from the broker restarts the timeout.
    pub(super) fn handle(&mut self, event: Option<Event>) -> Result<(), Error> {
        self.restart();
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                self.metrics.complain(Some(format!("the broker blocks publishers: {reason}")));
                tracing::warn!(reason, "the broker blocks publishers; waiting until it takes events again");
                self.set_blocked(true);
            }
            Some(Event::ConnectionUnblocked) => {
                self.metrics.complain(None);
                tracing::info!("the broker takes events again");
                self.set_blocked(false);
            }
            Some(Event::Error(error)) => return Err(Error::of_session(&error, &self.peer)),
            None => return Err(Error::Unconfirmed { reason: "the connection ended".to_owned() }),
            Some(_) => {}
        }
        Ok(())
    }

    fn set_blocked(&mut self, is_blocked: bool) {
        self.is_blocked = is_blocked;
        self.update_metric();
    }

    /// Sets whether the broker refuses events, which are then sent again and again.
    pub(super) fn set_refusing(&mut self, is_refusing: bool) {
        if self.is_refusing != is_refusing {
            self.is_refusing = is_refusing;
            self.update_metric();
        }
    }

    fn update_metric(&self) {
        self.metrics.blocked.set((self.is_blocked || self.is_refusing).into());
    }

    /// Returns when the timeout is over. Cancel safe.
    pub(super) async fn expired(&mut self) -> Error {
        if self.is_blocked {
            return std::future::pending().await;
        }
        loop {
            let (bytes_before, moved_at) = self.moved;
            // Bytes that took so long to write may take as long to arrive.
            let allowed = self.timed_out.timeout().max(moved_at - self.since);
            sleep_until((moved_at + allowed).min(Instant::now() + CHECK_INTERVAL)).await;
            let bytes = self.traffic.bytes();
            if bytes != bytes_before {
                self.moved = (bytes, Instant::now());
            } else if moved_at + allowed <= Instant::now() {
                self.timed_out.0.fetch_add(1, Ordering::Relaxed);
                return Error::Unconfirmed { reason: format!("the broker confirmed nothing for {} s", allowed.as_secs()) };
            }
        }
    }
}

impl Drop for ConfirmTimeout {
    fn drop(&mut self) {
        self.metrics.blocked.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::{CONFIRM_TIMEOUT, ConfirmTimeout, TimedOutSessions};
    use crate::fault::{Classify as _, Code, Fault};
    use crate::sink::amqp::error::Peer;
    use crate::sink::amqp::socket::Traffic;
    use crate::status::metrics::{Metrics, SinkMetrics};
    use lapin::Event;
    use std::task::Poll;
    use std::time::Duration;
    use tokio::time::{Instant, advance, timeout};

    const DAY: Duration = Duration::from_hours(24);

    fn confirm_timeout() -> (ConfirmTimeout, SinkMetrics) {
        let metrics = Metrics::new("shop").sink;
        let empty = String::new;
        let peer = Peer { address: empty(), user: empty(), vhost: empty(), exchange: empty(), lock: empty(), grant: empty() };
        (ConfirmTimeout::new(metrics.clone(), peer, Traffic::default(), TimedOutSessions::default()), metrics)
    }

    /// How long the timeout lasts, in the paused clock's time.
    async fn lasts(confirm_timeout: &mut ConfirmTimeout) -> Duration {
        let since = Instant::now();
        let error = timeout(DAY, confirm_timeout.expired()).await.expect("the timeout expires");
        assert_eq!((error.code(), error.fault()), (Code::RecordsUnconfirmed, Fault::Transient), "{error}");
        since.elapsed()
    }

    fn assert_lasts(lasted: Duration, expected: Duration) {
        // Tokio's timers have a resolution of one millisecond.
        assert!((expected..expected + Duration::from_millis(2)).contains(&lasted), "{lasted:?}, not {expected:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_broker_times_out_after_a_minute() {
        let (mut confirm_timeout, _) = confirm_timeout();
        assert_lasts(lasts(&mut confirm_timeout).await, CONFIRM_TIMEOUT);
        // A confirm restarts the minute.
        advance(Duration::from_secs(100)).await;
        confirm_timeout.confirmed();
        advance(Duration::from_secs(40)).await;
        assert_lasts(lasts(&mut confirm_timeout).await, Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_blocks_publishers_never_times_out() {
        let (mut confirm_timeout, metrics) = confirm_timeout();
        confirm_timeout.handle(Some(Event::ConnectionBlocked("low on memory".to_owned()))).unwrap();
        assert_eq!(metrics.blocked.get(), 1);
        assert!(timeout(DAY, confirm_timeout.expired()).await.is_err(), "it timed out");
    }

    #[tokio::test(start_paused = true)]
    async fn events_on_a_slow_line_do_not_time_out() {
        let (mut confirm_timeout, _) = confirm_timeout();
        let traffic = confirm_timeout.traffic.clone();
        let slow = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                traffic.count(&Poll::Ready(Ok(1_000)));
            }
            // Heartbeats do not restart the timeout.
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                traffic.count(&Poll::Ready(Ok(37)));
            }
        };
        let lasted = tokio::select! { lasted = lasts(&mut confirm_timeout) => lasted, () = slow => unreachable!("it never ends") };
        // As long again as writing took, since the system may still buffer all of it.
        assert!((Duration::from_secs(2_000)..Duration::from_secs(2_120)).contains(&lasted), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_session_that_times_out_doubles_the_timeout_of_the_next() {
        let (mut first, metrics) = confirm_timeout();
        for minutes in [1, 2, 4, 8, 16, 32, 32] {
            assert_lasts(lasts(&mut first).await, CONFIRM_TIMEOUT * minutes);
            first = ConfirmTimeout::new(metrics.clone(), first.peer.clone(), Traffic::default(), first.timed_out.clone());
        }
        first.confirmed();
        assert_lasts(lasts(&mut first).await, CONFIRM_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_timeout_restarts_when_the_broker_takes_events_again() {
        let (mut confirm_timeout, metrics) = confirm_timeout();
        confirm_timeout.handle(Some(Event::ConnectionBlocked("low on disk".to_owned()))).unwrap();
        advance(DAY).await;
        confirm_timeout.handle(Some(Event::ConnectionUnblocked)).unwrap();
        assert_eq!(metrics.blocked.get(), 0);
        assert_lasts(lasts(&mut confirm_timeout).await, CONFIRM_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_ends_while_blocked_resets_the_metric() {
        let (mut confirm_timeout, metrics) = confirm_timeout();
        confirm_timeout.handle(Some(Event::ConnectionBlocked("low on memory".to_owned()))).unwrap();
        let error = confirm_timeout.handle(None).unwrap_err();
        assert_eq!((error.code(), error.fault()), (Code::RecordsUnconfirmed, Fault::Transient), "{error}");
        drop(confirm_timeout);
        assert_eq!(metrics.blocked.get(), 0);
    }
}
