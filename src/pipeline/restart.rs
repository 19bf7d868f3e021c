//! Restart policy: how long to wait before the next attempt after a failure.

use std::time::Duration;

/// Bounds of the delay between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// The longest delay after the first failure.
    pub delay_min: Duration,
    /// The longest delay after many.
    pub delay_max: Duration,
    /// An attempt that lasted this long was healthy: the next delay is short again.
    pub healthy_after: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { delay_min: Duration::from_millis(200), delay_max: Duration::from_secs(10), healthy_after: Duration::from_mins(1) }
    }
}

/// Counts failures in a row and gives the next delay: random, between half of a bound and the bound, which doubles with each failure. The
/// jitter keeps many pipelines that lost the same server from coming back at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: RestartPolicy,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    #[must_use]
    pub const fn new(policy: RestartPolicy) -> Self {
        Self { policy, failures: 0 }
    }

    /// The last attempt made progress before it failed: the next delay is short again.
    pub const fn forgive(&mut self) {
        self.failures = 0;
    }

    /// The delay after an attempt that lasted for `lasted`. `random` is uniform in 0..1.
    pub fn next_delay(&mut self, lasted: Duration, random: f64) -> Duration {
        if self.policy.healthy_after <= lasted {
            self.failures = 0;
        }
        let bound = self.policy.delay_min.saturating_mul(1 << self.failures.min(16)).min(self.policy.delay_max);
        self.failures = self.failures.saturating_add(1);
        // At least half of the bound: a delay near zero would be none.
        bound.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, RestartPolicy};
    use std::time::Duration;

    #[test]
    fn delays_double_up_to_the_bound_and_start_again_after_health() {
        let mut backoff = Backoff::new(RestartPolicy::default());
        let delays: Vec<_> = (0..10).map(|_| backoff.next_delay(Duration::ZERO, 1.0)).collect();
        assert_eq!(delays[..3], [200, 400, 800].map(Duration::from_millis));
        assert_eq!(delays[9], Duration::from_secs(10));
        assert_eq!(backoff.next_delay(Duration::from_mins(2), 1.0), Duration::from_millis(200));
        assert_eq!(backoff.next_delay(Duration::ZERO, 1.0), Duration::from_millis(400));
        backoff.forgive();
        assert_eq!(backoff.next_delay(Duration::ZERO, 1.0), Duration::from_millis(200));
    }

    #[test]
    fn no_delay_is_shorter_than_half_its_bound() {
        assert_eq!(Backoff::new(RestartPolicy::default()).next_delay(Duration::ZERO, 0.0), Duration::from_millis(100));
    }
}
