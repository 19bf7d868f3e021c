//! How long one end was away, for the log.

use std::time::Duration;
use tokio::time::Instant;

/// From the first failure until it is connected again.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
    attempts: u32,
    again: u64,
}

/// One that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) lasted: Duration,
    /// How often it was tried in vain.
    pub(super) attempts: u32,
    /// How many records are sent again for it.
    pub(super) again: u64,
}

impl Outage {
    /// A session, or an attempt to open one, failed, for which so many records are sent again.
    pub(super) fn failed(&mut self, again: u64) {
        self.again += again;
        if self.since.is_some() {
            self.attempts += 1;
        } else {
            self.since = Some(Instant::now());
        }
    }

    /// It is connected; the outage that ends with that, if there was one.
    pub(super) fn ended(&mut self) -> Option<Over> {
        let lasted = self.since.take()?.elapsed();
        Some(Over { lasted, attempts: std::mem::take(&mut self.attempts), again: std::mem::take(&mut self.again) })
    }
}

#[cfg(test)]
mod tests {
    use super::{Outage, Over};
    use std::time::Duration;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn an_outage_lasts_from_the_first_failure_to_the_next_connection() {
        let mut outage = Outage::default();
        assert_eq!(outage.ended(), None);
        for _ in 0..3 {
            outage.failed(7);
            advance(Duration::from_secs(10)).await;
        }
        assert_eq!(outage.ended(), Some(Over { lasted: Duration::from_secs(30), attempts: 2, again: 21 }));
        assert_eq!(outage.ended(), None);
    }
}
