//! One session: the [`Sink`] of Kafka.

use super::client::ClientHandle;
use super::delivery::Submission;
use super::error::Error;
use super::isolation::Isolation;
use super::options::Options;
use super::routes::Routes;
use super::sender::Sender;
use crate::batch::{Ack, Batch};
use crate::sink::Sink;
use crate::status::metrics::SinkMetrics;
use std::sync::Arc;

/// One session with Kafka: one librdkafka client.
pub struct Session {
    sender: Sender,
    /// Whether it met a refusal that the next session handles.
    has_learnt: bool,
}

impl Session {
    /// A session that sends with this client.
    pub(super) fn new(client: ClientHandle, routes: Routes, options: &Options, isolation: &Isolation, metrics: &SinkMetrics) -> Self {
        Self { sender: Sender::new(client, routes, options, isolation, metrics), has_learnt: false }
    }

    /// Turns a refusal into a transient error if there is a dead-letter topic: the next session sends the record there.
    fn explain(&mut self, error: Error) -> Error {
        self.has_learnt |= matches!(error, Error::BatchTooLarge { .. });
        let Error::Refused { topic, reason } = &error else { return error };
        let Some(dead_letter) = self.sender.routes().dead_letter() else { return error };
        if *topic == *dead_letter.name {
            return error;
        }
        self.has_learnt = true;
        Error::Unconfirmed { reason: format!("topic {topic} refused a record ({reason}), which is sent to the dead-letter topic") }
    }
}

impl Sink for Session {
    type Error = Error;

    async fn submit(&mut self, batch: Arc<Batch>, ack: Ack) -> Result<(), Error> {
        if let Some(failure) = self.sender.client().context().failure().cloned() {
            return Err(self.explain(failure));
        }
        self.sender.begin_batch(&batch);
        let sent = self.sender.send(&Submission::new(batch, ack)).await;
        self.sender.client().allow_flush();
        sent.map_err(|error| self.explain(error))
    }

    fn failure(&mut self) -> Error {
        let failure = self.sender.failure_or(|| Error::Unconfirmed { reason: "the session ended first".to_owned() });
        self.explain(failure)
    }

    async fn failed(&mut self) -> Error {
        self.sender.client().context().failed().await;
        self.failure()
    }

    fn has_learnt(&self) -> bool {
        self.has_learnt
    }

    async fn close(self) -> Result<(), Error> {
        self.sender.wait_until_settled().await
    }
}
