//! A snapshot that is held, and what ends that: whatever else is waited for under it is waited for here.
//!
//! A snapshot's locks are in the way of an application, and it keeps the source from cleaning up. So nobody is waited for under it longer than
//! an instant, be it the broker (memory, the channel, durability) or a rate: the slice ends, and what is missing is waited for without it.

use crate::source::Prefeed;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// How long anything may be waited for at a time.
pub(super) const INSTANT: Duration = Duration::from_millis(500);
/// How often is looked whether somebody waits for what the snapshot holds.
const LOOK: Duration = Duration::from_millis(250);

/// A slice's snapshot, for as long as it is held.
pub(super) struct Held<'p, P> {
    pub(super) prefeed: &'p mut P,
    until: Instant,
}

impl<'p, P: Prefeed> Held<'p, P> {
    pub(super) fn new(prefeed: &'p mut P, longest: Duration) -> Self {
        Self { prefeed, until: Instant::now() + longest }
    }

    /// Whether the slice is to end: its time is over, or somebody waits for what the snapshot holds.
    pub(super) async fn is_over(&mut self) -> Result<bool, P::Error> {
        Ok(self.until <= Instant::now() || self.prefeed.is_waited_for().await?)
    }

    /// Returns when the slice is to end. Cancel safe.
    pub(super) async fn over(&mut self) -> Result<(), P::Error> {
        loop {
            sleep_until(self.until.min(Instant::now() + LOOK)).await;
            if self.is_over().await? {
                return Ok(());
            }
        }
    }

    /// What is waited for; `None` where it does not come within an instant, or the slice is to end before.
    pub(super) async fn wait<T>(&mut self, wait: impl Future<Output = T>) -> Result<Option<T>, P::Error> {
        tokio::select! { biased;
            value = wait => Ok(Some(value)),
            () = sleep(INSTANT) => Ok(None),
            over = self.over() => over.map(|()| None),
        }
    }
}
