//! One session: hands batches to the writer thread.

use super::error::Error;
use super::writer::{Shared, Work};
use crate::batch::{Ack, Batch};
use crate::sink::Sink;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot};

/// One opened output.
#[derive(Debug)]
pub struct Session {
    work: mpsc::Sender<Work>,
    shared: Arc<Shared>,
}

impl Session {
    pub(super) const fn new(work: mpsc::Sender<Work>, shared: Arc<Shared>) -> Self {
        Self { work, shared }
    }
}

impl Sink for Session {
    type Error = Error;

    async fn submit(&mut self, batch: Arc<Batch>, ack: Ack) -> Result<(), Error> {
        self.work.send(Work::Write { batch, ack }).await.map_err(|_| self.failure())
    }

    fn failure(&mut self) -> Error {
        self.shared.failure.get().cloned().unwrap_or(Error::Ended)
    }

    async fn close(self) -> Result<(), Error> {
        let (reply, done) = oneshot::channel();
        if self.work.send(Work::Flush(reply)).await.is_ok() && done.await.is_ok() {
            return Ok(());
        }
        Err(self.shared.failure.get().cloned().unwrap_or(Error::Ended))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.is_abandoned.store(true, Ordering::Release);
    }
}
