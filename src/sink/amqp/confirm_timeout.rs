//! How long a broker may be silent before its session is given up.

use super::error::{Error, Party};
use super::socket::Traffic;
use crate::status::metrics::SinkMetrics;
use lapin::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long the broker may leave everything unconfirmed from the last bytes on that went its way, unless it said that it takes no
/// more for now.
const CONFIRM_TIMEOUT: Duration = Duration::from_mins(1);
/// How often is looked whether bytes go.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// How often the timeout is doubled, at most.
const DOUBLINGS_MAX: u32 = 5;

/// How many sessions in a row were given up. What was given up is sent again from its beginning, so that each has twice the time of
/// the one before: the system and whatever lies between swallow bytes faster than a slow line carries them.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenUp(Arc<AtomicU32>);

impl GivenUp {
    fn timeout(&self) -> Duration {
        CONFIRM_TIMEOUT * (1 << self.0.load(Ordering::Relaxed).min(DOUBLINGS_MAX))
    }
}

/// How long the broker may still be silent.
pub(super) struct ConfirmTimeout {
    /// Whether it said that it takes nothing for now: then it may be silent for ever.
    is_blocked: bool,
    /// Whether it refuses events.
    is_refusing: bool,
    /// When it last confirmed or said anything, or had nothing to confirm.
    since: Instant,
    traffic: Traffic,
    /// What had gone over the connection when it was last looked at, and when that was seen to have grown.
    moved: (u64, Instant),
    given_up: GivenUp,
    pub(super) metrics: SinkMetrics,
    pub(super) party: Party,
}

impl ConfirmTimeout {
    pub(super) fn new(metrics: SinkMetrics, party: Party, traffic: Traffic, given_up: GivenUp) -> Self {
        let now = Instant::now();
        Self { is_blocked: false, is_refusing: false, since: now, moved: (traffic.bytes(), now), traffic, given_up, metrics, party }
    }

    pub(super) fn begin(&mut self) {
        self.since = Instant::now();
        self.moved = (self.traffic.bytes(), self.since);
    }

    /// The broker confirms.
    pub(super) fn confirmed(&mut self) {
        self.given_up.0.store(0, Ordering::Relaxed);
        self.begin();
    }

    /// What the broker says of the connection. Whatever it is, confirm_timeout begins anew.
    pub(super) fn note(&mut self, event: Option<Event>) -> Result<(), Error> {
        self.begin();
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                self.metrics.complain(Some(format!("the broker blocks publishers: {reason}")));
                tracing::warn!(reason, "the broker takes nothing for now; waiting until it does");
                self.set_blocked(true);
            }
            Some(Event::ConnectionUnblocked) => {
                self.metrics.complain(None);
                tracing::info!("the broker takes events again");
                self.set_blocked(false);
            }
            Some(Event::Error(error)) => return Err(Error::of_session(&error, &self.party)),
            None => return Err(Error::Unconfirmed { reason: "the connection ended".to_owned() }),
            Some(_) => {}
        }
        Ok(())
    }

    fn set_blocked(&mut self, is_blocked: bool) {
        self.is_blocked = is_blocked;
        self.show();
    }

    /// Whether the broker refuses events, which are sent to it again and again.
    pub(super) fn set_refusing(&mut self, is_refusing: bool) {
        if self.is_refusing != is_refusing {
            self.is_refusing = is_refusing;
            self.show();
        }
    }

    fn show(&self) {
        self.metrics.blocked.set((self.is_blocked || self.is_refusing).into());
    }

    /// Returns when it is over. Cancel safe.
    pub(super) async fn end(&mut self) -> Error {
        if self.is_blocked {
            return std::future::pending().await;
        }
        loop {
            let (seen, moved_at) = self.moved;
            // What took so long to be written takes as long to arrive, at most.
            let allowed = self.given_up.timeout().max(moved_at - self.since);
            sleep_until((moved_at + allowed).min(Instant::now() + LOOK_INTERVAL)).await;
            let bytes = self.traffic.bytes();
            if bytes != seen {
                self.moved = (bytes, Instant::now());
            } else if moved_at + allowed <= Instant::now() {
                self.given_up.0.fetch_add(1, Ordering::Relaxed);
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
    use super::{CONFIRM_TIMEOUT, ConfirmTimeout, GivenUp};
    use crate::fault::{Classify as _, Code, Fault};
    use crate::sink::amqp::error::Party;
    use crate::sink::amqp::socket::Traffic;
    use crate::status::metrics::{Metrics, SinkMetrics};
    use lapin::Event;
    use std::task::Poll;
    use std::time::Duration;
    use tokio::time::{Instant, advance, timeout};

    const DAY: Duration = Duration::from_hours(24);

    fn confirm_timeout() -> (ConfirmTimeout, SinkMetrics) {
        let metrics = Metrics::new("shop").sink;
        let text = String::new;
        let party = Party { address: text(), user: text(), vhost: text(), exchange: text(), lock: text(), grant: text() };
        (ConfirmTimeout::new(metrics.clone(), party, Traffic::default(), GivenUp::default()), metrics)
    }

    /// How long it takes until confirm_timeout ends, the clock being moved for it.
    async fn lasts(confirm_timeout: &mut ConfirmTimeout) -> Duration {
        let since = Instant::now();
        let error = timeout(DAY, confirm_timeout.end()).await.expect("confirm_timeout ends");
        assert_eq!((error.code(), error.fault()), (Code::RecordsUnconfirmed, Fault::Transient), "{error}");
        since.elapsed()
    }

    fn assert_lasts(lasted: Duration, expected: Duration) {
        // The clock of tokio counts whole milliseconds.
        assert!((expected..expected + Duration::from_millis(2)).contains(&lasted), "{lasted:?}, not {expected:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_broker_is_given_up_after_a_minute() {
        let (mut confirm_timeout, _) = confirm_timeout();
        assert_lasts(lasts(&mut confirm_timeout).await, CONFIRM_TIMEOUT);
        // What it confirms begins the minute anew.
        advance(Duration::from_secs(100)).await;
        confirm_timeout.confirmed();
        advance(Duration::from_secs(40)).await;
        assert_lasts(lasts(&mut confirm_timeout).await, Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_said_that_it_takes_nothing_is_waited_for_without_a_limit() {
        let (mut confirm_timeout, metrics) = confirm_timeout();
        confirm_timeout.note(Some(Event::ConnectionBlocked("low on memory".to_owned()))).unwrap();
        assert_eq!(metrics.blocked.get(), 1);
        assert!(timeout(DAY, confirm_timeout.end()).await.is_err(), "it was given up");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_its_way_over_a_slow_line_is_waited_for() {
        let (mut confirm_timeout, _) = confirm_timeout();
        let traffic = confirm_timeout.traffic.clone();
        let slow = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                traffic.note(&Poll::Ready(Ok(1_000)));
            }
            // A heartbeat is no progress.
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                traffic.note(&Poll::Ready(Ok(37)));
            }
        };
        let lasted = tokio::select! { lasted = lasts(&mut confirm_timeout) => lasted, () = slow => unreachable!("it never ends") };
        // As long again as it was written, since the system may hold all of it.
        assert!((Duration::from_secs(2_000)..Duration::from_secs(2_120)).contains(&lasted), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_session_that_is_given_up_leaves_the_next_more_time() {
        let (mut first, metrics) = confirm_timeout();
        for minutes in [1, 2, 4, 8, 16, 32, 32] {
            assert_lasts(lasts(&mut first).await, CONFIRM_TIMEOUT * minutes);
            first = ConfirmTimeout::new(metrics.clone(), first.party.clone(), Traffic::default(), first.given_up.clone());
        }
        first.confirmed();
        assert_lasts(lasts(&mut first).await, CONFIRM_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_begins_anew_when_the_broker_takes_events_again() {
        let (mut confirm_timeout, metrics) = confirm_timeout();
        confirm_timeout.note(Some(Event::ConnectionBlocked("low on disk".to_owned()))).unwrap();
        advance(DAY).await;
        confirm_timeout.note(Some(Event::ConnectionUnblocked)).unwrap();
        assert_eq!(metrics.blocked.get(), 0);
        assert_lasts(lasts(&mut confirm_timeout).await, CONFIRM_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_ends_while_it_is_blocked_leaves_no_sign_of_it() {
        let (mut confirm_timeout, metrics) = confirm_timeout();
        confirm_timeout.note(Some(Event::ConnectionBlocked("low on memory".to_owned()))).unwrap();
        let error = confirm_timeout.note(None).unwrap_err();
        assert_eq!((error.code(), error.fault()), (Code::RecordsUnconfirmed, Fault::Transient), "{error}");
        drop(confirm_timeout);
        assert_eq!(metrics.blocked.get(), 0);
    }
}
