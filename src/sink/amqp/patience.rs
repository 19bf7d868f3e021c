//! How long a broker may be silent before its session is given up.

use super::error::{Error, Party};
use crate::metrics::SinkMetrics;
use lapin::Event;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long the broker may leave everything unconfirmed, unless it said that it takes no more for now.
const CONFIRM_TIMEOUT: Duration = Duration::from_mins(1);

/// How long the broker may still be silent.
pub(super) struct Patience {
    /// Whether it said that it takes nothing for now: then it may be silent for ever.
    is_blocked: bool,
    /// When it last confirmed or said anything, or had nothing to confirm.
    since: Instant,
    pub(super) metrics: SinkMetrics,
    pub(super) party: Party,
}

impl Patience {
    pub(super) fn new(metrics: SinkMetrics, party: Party) -> Self {
        Self { is_blocked: false, since: Instant::now(), metrics, party }
    }

    pub(super) fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// What the broker says of the connection. Whatever it is, patience begins anew.
    pub(super) fn note(&mut self, event: Option<Event>) -> Result<(), Error> {
        self.begin();
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(reason, "the broker takes nothing for now; waiting until it does");
                self.set_blocked(true);
            }
            Some(Event::ConnectionUnblocked) => {
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
        self.metrics.blocked.set(is_blocked.into());
    }

    /// Returns when it is over.
    pub(super) async fn end(&self) -> Error {
        if self.is_blocked {
            return std::future::pending().await;
        }
        sleep_until(self.since + CONFIRM_TIMEOUT).await;
        Error::Unconfirmed { reason: format!("the broker confirmed nothing for {} s", CONFIRM_TIMEOUT.as_secs()) }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.metrics.blocked.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::{CONFIRM_TIMEOUT, Patience};
    use crate::fault::{Classify as _, Code, Fault};
    use crate::metrics::{Metrics, SinkMetrics};
    use crate::sink::amqp::error::Party;
    use lapin::Event;
    use std::time::Duration;
    use tokio::time::{Instant, advance, timeout};

    const DAY: Duration = Duration::from_hours(24);

    fn patience() -> (Patience, SinkMetrics) {
        let metrics = Metrics::new("shop").sink;
        let text = String::new;
        let party = Party { address: text(), user: text(), vhost: text(), exchange: text(), lock: text() };
        (Patience::new(metrics.clone(), party), metrics)
    }

    /// How long it takes until patience ends, the clock being moved for it.
    async fn lasts(patience: &Patience) -> Duration {
        let since = Instant::now();
        let error = timeout(DAY, patience.end()).await.expect("patience ends");
        assert_eq!((error.code(), error.fault()), (Code::RecordsUnconfirmed, Fault::Transient), "{error}");
        assert!(error.to_string().contains("60 s"), "{error}");
        since.elapsed()
    }

    fn assert_lasts(lasted: Duration, expected: Duration) {
        // The clock of tokio counts whole milliseconds.
        assert!((expected..expected + Duration::from_millis(2)).contains(&lasted), "{lasted:?}, not {expected:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_broker_is_given_up_after_a_minute() {
        let (mut patience, _) = patience();
        assert_lasts(lasts(&patience).await, CONFIRM_TIMEOUT);
        // What it confirms begins the minute anew.
        advance(Duration::from_secs(100)).await;
        patience.begin();
        advance(Duration::from_secs(40)).await;
        assert_lasts(lasts(&patience).await, Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_said_that_it_takes_nothing_is_waited_for_without_a_limit() {
        let (mut patience, metrics) = patience();
        patience.note(Some(Event::ConnectionBlocked("low on memory".to_owned()))).unwrap();
        assert_eq!(metrics.blocked.get(), 1);
        assert!(timeout(DAY, patience.end()).await.is_err(), "it was given up");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_begins_anew_when_the_broker_takes_events_again() {
        let (mut patience, metrics) = patience();
        patience.note(Some(Event::ConnectionBlocked("low on disk".to_owned()))).unwrap();
        advance(DAY).await;
        patience.note(Some(Event::ConnectionUnblocked)).unwrap();
        assert_eq!(metrics.blocked.get(), 0);
        assert_lasts(lasts(&patience).await, CONFIRM_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_ends_while_it_is_blocked_leaves_no_sign_of_it() {
        let (mut patience, metrics) = patience();
        patience.note(Some(Event::ConnectionBlocked("low on memory".to_owned()))).unwrap();
        let error = patience.note(None).unwrap_err();
        assert_eq!((error.code(), error.fault()), (Code::RecordsUnconfirmed, Fault::Transient), "{error}");
        drop(patience);
        assert_eq!(metrics.blocked.get(), 0);
    }
}
