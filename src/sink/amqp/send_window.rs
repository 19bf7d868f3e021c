//! The send window: how many events may be unconfirmed at once. It shrinks when the broker refuses an event.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The pause after a refusal. It doubles with each refusal that follows another.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How many events may be in flight. After a refusal it is one, and grows by one with each event that is stored, so that a full queue
/// is not sent the same events again and again.
#[derive(Debug)]
pub(super) struct SendWindow {
    size_max: usize,
    size: usize,
    /// Whether the broker has refused an event since the window was last at its full size.
    is_reduced: bool,
    /// The length of the next pause.
    pause: Duration,
    /// The end of the current pause.
    paused_until: Option<Instant>,
}

impl SendWindow {
    pub(super) const fn new(size_max: usize) -> Self {
        Self { size_max, size: size_max, is_reduced: false, pause: PAUSE_MIN, paused_until: None }
    }

    /// How many more events may be sent now.
    pub(super) fn available(&self, in_flight: usize) -> usize {
        if self.paused_until.is_some() { 0 } else { self.size.saturating_sub(in_flight) }
    }

    /// The broker refused an event: shrinks the window to one, and starts a pause.
    pub(super) fn shrink(&mut self) {
        self.size = 1;
        self.is_reduced = true;
        self.paused_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// The broker stored so many events: the window grows by as many.
    pub(super) fn grow(&mut self, events: usize) {
        self.size = self.size.saturating_add(events).min(self.size_max);
        self.is_reduced = self.size < self.size_max;
        self.pause = PAUSE_MIN;
    }

    /// Whether the broker has refused an event since the window was last at its full size.
    pub(super) const fn is_reduced(&self) -> bool {
        self.is_reduced
    }

    /// Returns at the end of the pause; never, if there is none. Cancel safe.
    pub(super) async fn pause_ended(&mut self) {
        match self.paused_until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
        self.paused_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::{PAUSE_MAX, PAUSE_MIN, SendWindow};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_shrinks_the_window_to_one_and_each_stored_event_adds_one() {
        let mut send_window = SendWindow::new(10);
        assert_eq!((send_window.available(0), send_window.available(4), send_window.available(10)), (10, 6, 0));
        send_window.shrink();
        assert_eq!(send_window.available(0), 0, "it pauses first");
        send_window.pause_ended().await;
        assert_eq!((send_window.available(0), send_window.available(1)), (1, 0));
        send_window.grow(1);
        assert_eq!(send_window.available(0), 2);
        send_window.grow(100);
        assert_eq!((send_window.available(0), send_window.is_reduced()), (10, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_of_one_is_reduced_until_an_event_is_stored() {
        let mut send_window = SendWindow::new(1);
        send_window.shrink();
        send_window.pause_ended().await;
        assert_eq!((send_window.available(0), send_window.is_reduced()), (1, true));
        send_window.grow(1);
        assert_eq!((send_window.available(0), send_window.is_reduced()), (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_until_an_event_is_stored() {
        let mut send_window = SendWindow::new(10);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let since = Instant::now();
            send_window.shrink();
            send_window.pause_ended().await;
            pauses.push(since.elapsed());
        }
        assert_eq!(pauses[..3], [PAUSE_MIN, PAUSE_MIN * 2, PAUSE_MIN * 4]);
        assert_eq!(pauses[7], PAUSE_MAX);
        send_window.grow(1);
        let since = Instant::now();
        send_window.shrink();
        send_window.pause_ended().await;
        assert_eq!(since.elapsed(), PAUSE_MIN);
    }
}
