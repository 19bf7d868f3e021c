//! A wait that is shown in the status while it lasts.

use crate::status::{Publisher, Side, WaitFor};
use std::future::poll_fn;
use std::task::Poll;

/// Waits for `wait`, and shows that in the status unless it is over at once. Cancel safe.
pub(super) async fn shown<T>(status: &Publisher, side: Side, what: WaitFor, wait: impl Future<Output = T>) -> T {
    tokio::pin!(wait);
    if let Poll::Ready(value) = poll_fn(|context| Poll::Ready(wait.as_mut().poll(context))).await {
        return value;
    }
    let _shown = Shown::new(status, side, what);
    wait.await
}

/// Shows what a side waits for, until it is dropped.
struct Shown<'s> {
    status: &'s Publisher,
    side: Side,
    what: WaitFor,
}

impl<'s> Shown<'s> {
    fn new(status: &'s Publisher, side: Side, what: WaitFor) -> Self {
        status.note(|status| status.begin_wait(side, what));
        Self { status, side, what }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.status.note(|status| status.end_wait(self.side, self.what));
    }
}
