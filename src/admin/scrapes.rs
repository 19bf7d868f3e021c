//! Who asks for metrics at regular intervals, so that the last state of a pipeline is seen before its process goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// How much later than it is due the next may come.
const SLACK: Duration = Duration::from_millis(500);

/// The last times at which metrics were asked for.
#[derive(Clone, Debug, Default)]
pub struct Scrapes(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The newest last.
    at: Mutex<[Option<Instant>; 3]>,
    asked: Notify,
}

impl Scrapes {
    /// Metrics are asked for now.
    pub(super) fn note(&self) {
        let mut at = self.0.at.lock().unwrap_or_else(PoisonError::into_inner);
        *at = [at[1], at[2], Some(Instant::now())];
        self.0.asked.notify_waiters();
    }

    /// When the next is due, where they come at regular intervals: a person who asks now and then is not waited for.
    fn due(&self) -> Option<Instant> {
        let [Some(first), Some(second), Some(third)] = *self.0.at.lock().unwrap_or_else(PoisonError::into_inner) else { return None };
        let (gap, before) = (third - second, second - first);
        (gap.abs_diff(before) <= gap / 5 + SLACK).then(|| third + gap + gap / 10 + SLACK)
    }

    /// Waits for the next, where one is due within this time.
    pub async fn next(&self, limit: Duration) {
        let asked = self.0.asked.notified();
        let wait = self.due().map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
        if wait <= limit {
            // Whoever does not come is not waited for any longer.
            let _seen = timeout(wait, asked).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scrapes;
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    async fn asked_every(gaps: &[u64]) -> Scrapes {
        let scrapes = Scrapes::default();
        scrapes.note();
        for gap in gaps {
            advance(Duration::from_secs(*gap)).await;
            scrapes.note();
        }
        scrapes
    }

    async fn waited(scrapes: &Scrapes) -> Duration {
        let begun = Instant::now();
        scrapes.next(Duration::from_secs(20)).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_asks_regularly_is_waited_for_and_no_longer_than_allowed() {
        assert_eq!(waited(&asked_every(&[]).await).await, Duration::ZERO);
        assert_eq!(waited(&asked_every(&[15]).await).await, Duration::ZERO);
        assert_eq!(waited(&asked_every(&[3, 15]).await).await, Duration::ZERO);
        assert_eq!(waited(&asked_every(&[60, 60]).await).await, Duration::ZERO);
        assert_eq!(waited(&asked_every(&[15, 15]).await).await, Duration::from_secs(17));
        let regular = asked_every(&[15, 15]).await;
        advance(Duration::from_mins(1)).await;
        assert_eq!(waited(&regular).await, Duration::ZERO, "it does not come any more");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_is_waited_for_no_longer() {
        let scrapes = asked_every(&[15, 15]).await;
        let comes = async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            scrapes.note();
        };
        assert_eq!(tokio::join!(waited(&scrapes), comes).0, Duration::from_secs(15));
    }
}
