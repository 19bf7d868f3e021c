//! Detects regular scrapes of the metrics, so that the end of the process can wait for a last scrape.

use axum::http::HeaderValue;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Tolerance of a scrape's time.
const SLACK: Duration = Duration::from_millis(500);
/// Maximum number of clients that are tracked.
const CLIENTS_MAX: usize = 16;
/// Maximum number of scrapers behind one client address, such as a pair of Prometheus servers.
const SCRAPERS_MAX: usize = 2;
/// Number of request times that are kept per client: three of each scraper.
const TIMES_MAX: usize = 3 * SCRAPERS_MAX;

/// A client: its address and `User-Agent`.
pub(super) type Client = (IpAddr, Option<HeaderValue>);

/// The recent requests for metrics.
#[derive(Clone, Debug, Default)]
pub struct Scrapes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The latest client is last.
    clients: Mutex<Vec<ClientScrapes>>,
    scraped: Notify,
}

/// The requests of one client.
#[derive(Clone, Debug)]
struct ClientScrapes {
    client: Client,
    /// The times of the last requests, newest first.
    times: Vec<Instant>,
    count: usize,
}

impl ClientScrapes {
    /// The number of regular scrapers, and until when their next requests are due. `None` if requests are irregular, such as a person's.
    fn next_due(&self) -> Option<(usize, Instant)> {
        let is_regular = |scrapers: usize| {
            scrapers * 3 <= self.times.len()
                && (0..scrapers).all(|index| {
                    let gap = self.times[index] - self.times[index + scrapers];
                    gap.abs_diff(self.times[index + scrapers] - self.times[index + 2 * scrapers]) <= gap / 5 + SLACK
                })
        };
        let scrapers = (1..=SCRAPERS_MAX).find(|scrapers| is_regular(*scrapers))?;
        let gap = self.times[0] - self.times[scrapers];
        Some((scrapers, self.times[0] + gap + gap / 10 + SLACK))
    }
}

impl Scrapes {
    /// Records a request at the present time.
    pub(super) fn record(&self, client: Client) {
        let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clients.iter().position(|scrapes| scrapes.client == client);
        let mut scrapes = known.map_or_else(|| ClientScrapes { client, times: Vec::new(), count: 0 }, |index| clients.remove(index));
        scrapes.times.truncate(TIMES_MAX - 1);
        scrapes.times.insert(0, Instant::now());
        scrapes.count += 1;
        if clients.len() == CLIENTS_MAX {
            clients.remove(0);
        }
        clients.push(scrapes);
        self.0.scraped.notify_waiters();
    }

    fn clients(&self) -> Vec<ClientScrapes> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the next request of each regular scraper, if it is due within `limit`.
    pub async fn wait_for_next(&self, limit: Duration) {
        let (before, until) = (self.clients(), Instant::now() + limit);
        for (scrapes, (scrapers, due)) in before.iter().filter_map(|scrapes| scrapes.next_due().map(|due| (scrapes, due))) {
            let is_done = || self.clients().iter().any(|now| now.client == scrapes.client && scrapes.count + scrapers <= now.count);
            while due <= until && Instant::now() < due {
                let scraped = self.0.scraped.notified();
                // A scraper that is late is not waited for any longer.
                if is_done() || timeout_at(due, scraped).await.is_err() {
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

    /// A client at this address.
    fn client(last: u8) -> Client {
        (IpAddr::from([10, 0, 0, last]), Some(HeaderValue::from_static("Prometheus")))
    }

    async fn scraped_every(gaps: &[u64]) -> Scrapes {
        let scrapes = Scrapes::default();
        scrapes.record(client(1));
        for gap in gaps {
            advance(Duration::from_secs(*gap)).await;
            scrapes.record(client(1));
        }
        scrapes
    }

    async fn waited(scrapes: &Scrapes) -> Duration {
        let begun = Instant::now();
        scrapes.wait_for_next(Duration::from_secs(20)).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn only_regular_scrapers_are_waited_for_and_within_the_limit() {
        assert_eq!(waited(&scraped_every(&[]).await).await, Duration::ZERO);
        assert_eq!(waited(&scraped_every(&[15]).await).await, Duration::ZERO);
        assert_eq!(waited(&scraped_every(&[3, 15]).await).await, Duration::ZERO);
        assert_eq!(waited(&scraped_every(&[60, 60]).await).await, Duration::ZERO);
        assert_eq!(waited(&scraped_every(&[15, 15]).await).await, Duration::from_secs(17));
        let regular = scraped_every(&[15, 15]).await;
        advance(Duration::from_mins(1)).await;
        assert_eq!(waited(&regular).await, Duration::ZERO, "the scraper has stopped");
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_with_the_scrape() {
        let scrapes = scraped_every(&[15, 15]).await;
        let scrape = async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            scrapes.record(client(1));
        };
        assert_eq!(tokio::join!(waited(&scrapes), scrape).0, Duration::from_secs(15));
    }

    /// Two scrapers at one address or at two, and an irregular client.
    #[tokio::test(start_paused = true)]
    async fn both_scrapers_of_a_pair_are_waited_for() {
        for other in [1, 2] {
            let scrapes = Scrapes::default();
            for _ in 0..3 {
                for (number, pause) in [(1, 3), (other, 5), (3, 7)] {
                    if number != 3 || scrapes.clients().len() < 2 {
                        scrapes.record(client(number));
                    }
                    advance(Duration::from_secs(pause)).await;
                }
            }
            let scrape = async {
                scrapes.record(client(1));
                tokio::time::sleep(Duration::from_secs(3)).await;
                scrapes.record(client(other));
            };
            assert_eq!(tokio::join!(waited(&scrapes), scrape).0, Duration::from_secs(3), "{other}");
        }
    }
}
