//! One session with RabbitMQ: hands batches to the publisher's task and reports how that task ended.

use super::error::Error;
use super::link::Link;
use super::send_queue::Submission;
use crate::batch::{Ack, Batch};
use crate::sink::Sink;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The task that closes the connection of the last dropped session. That connection holds the lock until it is closed.
#[derive(Clone, Debug, Default)]
pub(super) struct ClosingConnection(Arc<Mutex<Option<JoinHandle<()>>>>);

impl ClosingConnection {
    fn set(&self, task: JoinHandle<()>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Waits until the connection is closed.
    pub(super) async fn join(&self) {
        let task = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// One session with RabbitMQ.
#[derive(Debug)]
pub struct Session {
    /// `None` once the session is being closed.
    submissions: Option<mpsc::Sender<Submission>>,
    /// The publisher's task; `None` once its result was taken.
    task: Option<JoinHandle<Result<(), Error>>>,
    link: Option<Link>,
    failure: Option<Error>,
    closing: ClosingConnection,
}

impl Session {
    pub(super) const fn new(
        submissions: mpsc::Sender<Submission>,
        task: JoinHandle<Result<(), Error>>,
        link: Link,
        closing: ClosingConnection,
    ) -> Self {
        Self { submissions: Some(submissions), task: Some(task), link: Some(link), failure: None, closing }
    }

    /// Waits for the publisher's task, and returns its result.
    async fn ended(&mut self) -> Result<(), Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let Some(task) = self.task.as_mut() else { return Ok(()) };
        let ended = match task.await {
            Ok(ended) => ended,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Unconfirmed { reason: "the session was aborted".to_owned() }),
            },
        };
        self.task = None;
        self.failure = ended.as_ref().err().cloned();
        ended
    }
}

impl Sink for Session {
    type Error = Error;

    async fn submit(&mut self, batch: Arc<Batch>, ack: Ack) -> Result<(), Error> {
        let submission = Submission { batch, ack, begun: Instant::now() };
        let is_taken = match &self.submissions {
            Some(submissions) => submissions.send(submission).await.is_ok(),
            None => false,
        };
        if is_taken {
            return Ok(());
        }
        self.ended().await?;
        Err(self.failure())
    }

    fn failure(&mut self) -> Error {
        use futures_util::FutureExt as _;
        if let Some(Err(error)) = self.ended().now_or_never() {
            return error;
        }
        Error::Unconfirmed { reason: "the session ended first".to_owned() }
    }

    async fn failed(&mut self) -> Error {
        match self.ended().await {
            Err(error) => error,
            // The session was closed in order.
            Ok(()) => std::future::pending().await,
        }
    }

    async fn close(mut self) -> Result<(), Error> {
        self.submissions = None;
        self.ended().await?;
        match self.link.take() {
            Some(link) => link.close().await,
            None => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Aborting the task drops its acks, so that everything unconfirmed counts as lost.
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(link) = self.link.take() {
            self.closing.set(tokio::spawn(async move {
                if let Err(error) = link.close().await {
                    tracing::debug!(%error, "the connection of an aborted session did not close cleanly");
                }
            }));
        }
    }
}
