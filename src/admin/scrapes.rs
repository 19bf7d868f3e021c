//! Who asks for metrics at regular intervals, so that the last state of a pipeline is seen before its process goes.

use axum::http::HeaderValue;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How much later than it is due the next may come.
const SLACK: Duration = Duration::from_millis(500);
/// How many who ask are told apart.
const CLIENTS_MAX: usize = 16;
/// How many may ask from one place at the same interval, such as a pair of Prometheus.
const ABREAST_MAX: usize = 2;
/// As many times as it takes to see that.
const TIMES: usize = 3 * ABREAST_MAX;

/// Who asks: where from, and what program.
pub(super) type Client = (IpAddr, Option<HeaderValue>);

/// The last times at which metrics were asked for.
#[derive(Clone, Debug, Default)]
pub struct Scrapes(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Who asked last stands last.
    clients: Mutex<Vec<Times>>,
    asked: Notify,
}

/// When somebody asked.
#[derive(Clone, Debug)]
struct Times {
    client: Client,
    /// The newest first.
    at: Vec<Instant>,
    count: usize,
}

impl Times {
    /// How many are due, and by when, where they come at regular intervals: a person who asks now and then is not waited for.
    fn due(&self) -> Option<(usize, Instant)> {
        let is_regular = |abreast: usize| {
            abreast * 3 <= self.at.len()
                && (0..abreast).all(|each| {
                    let gap = self.at[each] - self.at[each + abreast];
                    gap.abs_diff(self.at[each + abreast] - self.at[each + 2 * abreast]) <= gap / 5 + SLACK
                })
        };
        let abreast = (1..=ABREAST_MAX).find(|abreast| is_regular(*abreast))?;
        let gap = self.at[0] - self.at[abreast];
        Some((abreast, self.at[0] + gap + gap / 10 + SLACK))
    }
}

impl Scrapes {
    /// Metrics are asked for now.
    pub(super) fn note(&self, client: Client) {
        let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clients.iter().position(|times| times.client == client);
        let mut times = known.map_or_else(|| Times { client, at: Vec::new(), count: 0 }, |index| clients.remove(index));
        times.at.truncate(TIMES - 1);
        times.at.insert(0, Instant::now());
        times.count += 1;
        if clients.len() == CLIENTS_MAX {
            clients.remove(0);
        }
        clients.push(times);
        self.0.asked.notify_waiters();
    }

    fn clients(&self) -> Vec<Times> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the next of each, where one is due within this time.
    pub async fn next(&self, limit: Duration) {
        let (before, until) = (self.clients(), Instant::now() + limit);
        for (times, (abreast, due)) in before.iter().filter_map(|times| times.due().map(|due| (times, due))) {
            let is_seen = || self.clients().iter().any(|now| now.client == times.client && times.count + abreast <= now.count);
            while due <= until && Instant::now() < due {
                let asked = self.0.asked.notified();
                // Whoever does not come is not waited for any longer.
                if is_seen() || timeout_at(due, asked).await.is_err() {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Client, Scrapes};
    use axum::http::HeaderValue;
    use std::net::IpAddr;
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    /// One at that address.
    fn at(last: u8) -> Client {
        (IpAddr::from([10, 0, 0, last]), Some(HeaderValue::from_static("Prometheus")))
    }

    async fn asked_every(gaps: &[u64]) -> Scrapes {
        let scrapes = Scrapes::default();
        scrapes.note(at(1));
        for gap in gaps {
            advance(Duration::from_secs(*gap)).await;
            scrapes.note(at(1));
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
            scrapes.note(at(1));
        };
        assert_eq!(tokio::join!(waited(&scrapes), comes).0, Duration::from_secs(15));
    }

    /// Two of a pair, from one place or from two, beside somebody who asks now and then.
    #[tokio::test(start_paused = true)]
    async fn each_of_a_pair_is_waited_for() {
        for other in [1, 2] {
            let scrapes = Scrapes::default();
            for _ in 0..3 {
                for (client, pause) in [(1, 3), (other, 5), (3, 7)] {
                    if client != 3 || scrapes.clients().len() < 2 {
                        scrapes.note(at(client));
                    }
                    advance(Duration::from_secs(pause)).await;
                }
            }
            let comes = async {
                scrapes.note(at(1));
                tokio::time::sleep(Duration::from_secs(3)).await;
                scrapes.note(at(other));
            };
            assert_eq!(tokio::join!(waited(&scrapes), comes).0, Duration::from_secs(3), "{other}");
        }
    }
}
