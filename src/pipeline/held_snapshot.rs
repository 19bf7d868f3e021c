//! A snapshot that is held open, and the limits for waiting under it.
//!
//! A snapshot's locks can block an application, and the snapshot keeps the source from cleaning up. So under a snapshot nothing is waited for
//! longer than an instant, neither the broker (memory, the channel, durability) nor a rate limit. If something takes longer, the slice ends
//! and waits without the snapshot.

use crate::source::Prefeed;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// The longest wait under a snapshot.
pub(super) const INSTANT: Duration = Duration::from_millis(500);
/// How often to check whether somebody waits for what the snapshot holds.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// A slice's snapshot while it is held open.
pub(super) struct HeldSnapshot<'p, P> {
    pub(super) prefeed: &'p mut P,
    until: Instant,
}

impl<'p, P: Prefeed> HeldSnapshot<'p, P> {
    pub(super) fn new(prefeed: &'p mut P, longest: Duration) -> Self {
        Self { prefeed, until: Instant::now() + longest }
    }

    /// Whether the slice must end: its time is over, or somebody waits for what the snapshot holds.
    pub(super) async fn is_over(&mut self) -> Result<bool, P::Error> {
        Ok(self.until <= Instant::now() || self.prefeed.is_waited_for().await?)
    }

    /// Returns when the slice must end. Cancel safe.
    pub(super) async fn over(&mut self) -> Result<(), P::Error> {
        loop {
            sleep_until(self.until.min(Instant::now() + CHECK_INTERVAL)).await;
            if self.is_over().await? {
                return Ok(());
            }
        }
    }

    /// Waits for `wait`, at most an instant; `None` when it takes longer, or the slice must end first.
    pub(super) async fn wait<T>(&mut self, wait: impl Future<Output = T>) -> Result<Option<T>, P::Error> {
        tokio::select! { biased;
            value = wait => Ok(Some(value)),
            () = sleep(INSTANT) => Ok(None),
            over = self.over() => over.map(|()| None),
        }
    }
}
