//! The one status of a pipeline, which its parts publish into and everyone else reads.

use super::pipeline_status::Status;
use tokio::sync::watch;

/// Publishes into the status. All clones publish into the same.
#[derive(Clone, Debug, Default)]
pub struct Publisher(watch::Sender<Status>);

impl Publisher {
    /// The status as it is now. It must not be kept: while it is, nothing can be published.
    #[must_use]
    pub fn read(&self) -> watch::Ref<'_, Status> {
        self.0.borrow()
    }

    /// Sees the status, and waits for changes of it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    /// Changes the status, and wakes those who wait for a change.
    pub fn publish<T>(&self, change: impl FnOnce(&mut Status) -> T) -> T {
        self.apply(change, true)
    }

    /// Changes figures, such as what is in flight, for each batch. This wakes nobody unless the state changes too.
    pub(crate) fn note<T>(&self, change: impl FnOnce(&mut Status) -> T) -> T {
        self.apply(change, false)
    }

    fn apply<T>(&self, change: impl FnOnce(&mut Status) -> T, wakes: bool) -> T {
        let mut outcome = None;
        self.0.send_if_modified(|status| {
            let (result, is_other) = status.change(change);
            outcome = Some(result);
            wakes || is_other
        });
        outcome.expect("the change was applied")
    }
}
