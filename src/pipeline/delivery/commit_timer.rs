//! Decides when the checkpoint is saved.

use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked at the clock while there is nothing to confirm or save.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);

/// The checkpoint is saved at an interval; at once if something waits for it; and after a failed attempt not before a delay.
#[derive(Debug)]
pub(super) struct CommitTimer {
    interval: Duration,
    ticked_at: Instant,
    is_urgent: bool,
    /// The next attempt after a failed one.
    retry_at: Option<Instant>,
}

impl CommitTimer {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, ticked_at: Instant::now(), is_urgent: false, retry_at: None }
    }

    /// Something waits until what is confirmed is durable.
    pub(super) const fn hurry(&mut self) {
        self.is_urgent = true;
    }

    /// As [`Self::hurry`], and without the delay after a failed attempt.
    pub(super) const fn save_now(&mut self) {
        self.is_urgent = true;
        self.retry_at = None;
    }

    /// Whether it is to be saved without waiting for the interval.
    pub(super) const fn is_due_at_once(&self) -> bool {
        self.is_urgent && self.retry_at.is_none()
    }

    /// Whether it may be saved when the interval is over.
    pub(super) fn is_due_at_tick(&self) -> bool {
        self.retry_at.is_none_or(|at| at <= Instant::now())
    }

    /// When the interval is over.
    pub(super) fn tick_at(&self, is_idle: bool) -> Instant {
        self.ticked_at + if is_idle { self.interval.max(IDLE_INTERVAL) } else { self.interval }
    }

    /// The interval is over: the next one begins.
    pub(super) fn ticked(&mut self) {
        self.ticked_at = Instant::now();
    }

    /// A save has begun that holds all that is confirmed.
    pub(super) const fn begun(&mut self) {
        self.is_urgent = false;
    }

    /// The save has succeeded.
    pub(super) const fn saved(&mut self) {
        self.retry_at = None;
    }

    /// The save has failed, and may be tried again after `delay`.
    pub(super) fn failed(&mut self, delay: Duration) {
        self.retry_at = Some(Instant::now() + delay);
    }

    /// When a failed save may be tried again; `None` if the last one did not fail.
    pub(super) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

#[cfg(test)]
mod tests {
    use super::CommitTimer;
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn ticks_are_rare_while_there_is_nothing_to_save() {
        let mut timer = CommitTimer::new(SECOND);
        let begun = Instant::now();
        assert_eq!([timer.tick_at(false), timer.tick_at(true)], [begun + SECOND, begun + 10 * SECOND]);
        advance(SECOND).await;
        timer.ticked();
        assert_eq!(timer.tick_at(false), begun + 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_nothing_is_saved_before_the_delay_unless_it_must_be_now() {
        let mut timer = CommitTimer::new(SECOND);
        timer.hurry();
        assert!(timer.is_due_at_once());
        timer.begun();
        timer.failed(5 * SECOND);
        timer.hurry();
        assert!(!timer.is_due_at_once() && !timer.is_due_at_tick());
        advance(5 * SECOND).await;
        assert!(timer.is_due_at_tick());
        timer.save_now();
        assert!(timer.is_due_at_once());
    }
}
