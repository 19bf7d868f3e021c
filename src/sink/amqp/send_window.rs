//! How many events may wait for their confirms, and when.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long it is waited after a refusal, and after one that follows another, twice as long each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How many events may be on their way: the window, and after a refusal one, and then with each that is taken one more, so
/// that what a full queue leaves no room for is not sent again and again.
#[derive(Debug)]
pub(super) struct SendWindow {
    window: usize,
    room: usize,
    is_slow: bool,
    pause: Duration,
    until: Option<Instant>,
}

impl SendWindow {
    pub(super) const fn new(window: usize) -> Self {
        Self { window, room: window, is_slow: false, pause: PAUSE_MIN, until: None }
    }

    /// How many events may be sent now, while so many are on their way.
    pub(super) fn room(&self, in_flight: usize) -> usize {
        if self.until.is_some() { 0 } else { self.room.saturating_sub(in_flight) }
    }

    /// The broker refused an event.
    pub(super) fn slow_down(&mut self) {
        self.room = 1;
        self.is_slow = true;
        self.until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// The broker took so many events.
    pub(super) fn speed_up(&mut self, events: usize) {
        self.room = self.room.saturating_add(events).min(self.window);
        self.is_slow = self.room < self.window;
        self.pause = PAUSE_MIN;
    }

    /// Whether it is slower than it may be.
    pub(super) const fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// Returns when the pause is over; never, where there is none. Cancel safe.
    pub(super) async fn go_on(&mut self) {
        match self.until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::{PAUSE_MAX, PAUSE_MIN, SendWindow};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_leaves_one_event_on_its_way_and_each_that_is_taken_one_more() {
        let mut send_window = SendWindow::new(10);
        assert_eq!((send_window.room(0), send_window.room(4), send_window.room(10)), (10, 6, 0));
        send_window.slow_down();
        assert_eq!(send_window.room(0), 0, "it waits first");
        send_window.go_on().await;
        assert_eq!((send_window.room(0), send_window.room(1)), (1, 0));
        send_window.speed_up(1);
        assert_eq!(send_window.room(0), 2);
        send_window.speed_up(100);
        assert_eq!((send_window.room(0), send_window.is_slow()), (10, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_of_one_is_slow_until_an_event_is_taken_too() {
        let mut send_window = SendWindow::new(1);
        send_window.slow_down();
        send_window.go_on().await;
        assert_eq!((send_window.room(0), send_window.is_slow()), (1, true));
        send_window.speed_up(1);
        assert_eq!((send_window.room(0), send_window.is_slow()), (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_until_an_event_is_taken() {
        let mut send_window = SendWindow::new(10);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let since = Instant::now();
            send_window.slow_down();
            send_window.go_on().await;
            pauses.push(since.elapsed());
        }
        assert_eq!(pauses[..3], [PAUSE_MIN, PAUSE_MIN * 2, PAUSE_MIN * 4]);
        assert_eq!(pauses[7], PAUSE_MAX);
        send_window.speed_up(1);
        let since = Instant::now();
        send_window.slow_down();
        send_window.go_on().await;
        assert_eq!(since.elapsed(), PAUSE_MIN);
    }
}
