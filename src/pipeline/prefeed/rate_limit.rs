//! Limits how many bytes per second the prefeed reads.

use std::num::NonZeroU64;
use std::time::Duration;
use tokio::time::Instant;

/// A rate limit of the prefeed.
#[derive(Clone, Debug)]
pub(super) struct RateLimit {
    bytes_per_second: Option<NonZeroU64>,
    /// When reading may go on.
    next: Instant,
}

impl RateLimit {
    /// At most this many bytes of events per second; `None` is without a limit.
    pub(super) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { bytes_per_second, next: Instant::now() }
    }

    /// Counts bytes that were read.
    pub(super) fn count(&mut self, bytes: usize) {
        if let Some(rate) = self.bytes_per_second {
            // Unused time is not saved up.
            let nanoseconds = (bytes as u64).saturating_mul(1_000_000_000) / rate;
            self.next = self.next.max(Instant::now()) + Duration::from_nanos(nanoseconds);
        }
    }

    /// How long to wait before reading more.
    pub(super) fn pause(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::RateLimit;
    use std::num::NonZeroU64;
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept() {
        let begun = Instant::now();
        let mut rate_limit = RateLimit::new(NonZeroU64::new(1000));
        for _ in 0..10 {
            rate_limit.count(500);
            tokio::time::sleep(rate_limit.pause()).await;
        }
        assert_eq!(begun.elapsed().as_millis(), 5000 + 1 - 1);
        let mut free = RateLimit::new(None);
        free.count(usize::MAX);
        assert_eq!(free.pause(), Duration::ZERO);
        assert!(begun.elapsed() < Duration::from_millis(5100));
    }
}
