//! Sends the records of a batch: each to its topic, in order, and what a topic does not accept to the dead-letter topic.

use super::blocking::blocking;
use super::client::ClientHandle;
use super::delivery::{PendingRecord, Submission};
use super::error::Error;
use super::isolation::{Handling, Isolation};
use super::options::Options;
use super::produce::{BY_KEY, HeaderSet, MessageOptions, NOW, ProduceError};
use super::routes::{Destination, Routes, TopicIndex};
use super::timestamps::Timestamps;
use super::topics;
use crate::batch::Batch;
use crate::fault::{Classify as _, Code, Fault};
use crate::sink::{DESTINATION_HEADER, ERROR_HEADER};
use crate::status::metrics::{DeadLetter, SinkMetrics};
use rdkafka::producer::Producer as _;
use std::sync::Arc;
use std::time::Duration;

/// Sends the records of one session.
pub(super) struct Sender {
    /// Dropped before `client`, to which the topics' handles belong.
    routes: Routes,
    timestamps: Timestamps,
    headers: bool,
    /// Whether the broker counts fewer bytes than a record has.
    is_compressed: bool,
    isolation: Isolation,
    metrics: SinkMetrics,
    client: Arc<ClientHandle>,
}

impl Sender {
    pub(super) fn new(client: ClientHandle, routes: Routes, options: &Options, isolation: &Isolation, metrics: &SinkMetrics) -> Self {
        Self {
            routes,
            timestamps: Timestamps::new(options.stamp),
            headers: options.headers,
            is_compressed: options.is_compressed(),
            isolation: isolation.clone(),
            metrics: metrics.clone(),
            client: Arc::new(client),
        }
    }

    pub(super) fn client(&self) -> &ClientHandle {
        &self.client
    }

    pub(super) const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Prepares for a batch.
    pub(super) fn begin_batch(&mut self, batch: &Batch) {
        self.timestamps.begin_batch(batch, &self.routes);
    }

    /// Hands all records of a batch to the client. Not cancel safe: records may have been sent if the future is dropped.
    pub(super) async fn send(&mut self, submission: &Submission) -> Result<(), Error> {
        let handling = self.isolation.plan(submission.seq());
        for pending in submission.records() {
            match handling(pending.index) {
                Handling::Skip => pending.skip(),
                Handling::DeadLetter(error) => self.send_dead_letter(&pending, error).await?,
                Handling::SendAlone => self.check_and_send(&pending, true).await?,
                Handling::Send => self.check_and_send(&pending, false).await?,
            }
        }
        Ok(())
    }

    /// Sends a record if its topic will accept it, and to the dead-letter topic otherwise.
    async fn check_and_send(&mut self, pending: &PendingRecord<'_>, is_alone: bool) -> Result<(), Error> {
        let topic = self.routes.topic_of(&pending.record);
        let (destination, table) = (self.routes.destination(topic), self.routes.table(&pending.record));
        let checked = destination
            .check_size(&pending.record, table, self.routes.headers().size_bytes(&pending.record))
            .and_then(|()| self.timestamps.check_age(&pending.record, destination, table));
        match checked {
            // The broker counts compressed bytes: only the broker can tell.
            Err(error @ Error::TooLarge { .. }) if self.is_compressed => self.send_alone(pending, topic, Some(&error)).await,
            Err(error) => self.send_dead_letter(pending, error).await,
            Ok(()) if is_alone => self.send_alone(pending, topic, None).await,
            Ok(()) => self.send_record(pending, topic).await,
        }
    }

    /// Sends a record while no other one is unconfirmed, so that a refusal concerns this record. `too_large` is the error to return for a
    /// refusal, if the record is known to be too large before compression.
    async fn send_alone(&mut self, pending: &PendingRecord<'_>, topic: TopicIndex, too_large: Option<&Error>) -> Result<(), Error> {
        self.wait_until_settled().await?;
        self.isolation.sending_alone(pending.record_index());
        let sent = async {
            self.send_record(pending, topic).await?;
            self.wait_until_settled().await
        };
        match (sent.await, too_large) {
            (Ok(()), _) => {
                self.isolation.arrived(pending.record_index());
                Ok(())
            }
            (Err(Error::Refused { topic, .. }), Some(error)) => {
                self.isolation.refused(error);
                let has_dead_letters = self.routes.dead_letter().is_some();
                Err(if has_dead_letters { Error::Refused { topic, reason: error.to_string() } } else { error.clone() })
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Sends a record to its topic. A record that concerns a whole table goes to each partition.
    async fn send_record(&mut self, pending: &PendingRecord<'_>, topic: TopicIndex) -> Result<(), Error> {
        let (destination, table) = (self.routes.destination(topic), self.routes.table(&pending.record));
        let timestamp = self.timestamps.of(&pending.record, destination, table);
        let headers = if self.headers { HeaderSet::Event(self.routes.headers()) } else { HeaderSet::None };
        if !pending.record.head.operation.is_table_wide() {
            return self.hand_over(pending, destination, &MessageOptions { partition: BY_KEY, timestamp, headers }).await;
        }
        // The partitions are counted again after the copies: one that was added since may have got rows too.
        let mut sent = 0;
        loop {
            let count = self.partition_count(destination).await?;
            if count <= sent {
                return Ok(());
            }
            pending.expect_messages(count - sent, sent == 0);
            for partition in sent..count {
                let options = MessageOptions { partition: partition.cast_signed(), timestamp, headers };
                self.hand_over(pending, destination, &options).await?;
            }
            sent = count;
        }
    }

    /// Sends a record to the dead-letter topic, or returns the error if there is none.
    async fn send_dead_letter(&self, pending: &PendingRecord<'_>, error: Error) -> Result<(), Error> {
        const EXTRA_BYTES: usize = DESTINATION_HEADER.len() + ERROR_HEADER.len() + 20;
        let Some(dead_letter) = self.routes.dead_letter() else { return Err(error) };
        let reason = if error.code() == Code::RecordTooLarge { DeadLetter::TooLarge } else { DeadLetter::Refused };
        let code = error.code();
        let error = format!("{code} {error}");
        let (topic, table) = (&*self.routes.destination(self.routes.topic_of(&pending.record)).name, self.routes.table(&pending.record));
        let event = self.routes.headers();
        dead_letter.check_size(&pending.record, table, event.size_bytes(&pending.record) + EXTRA_BYTES + topic.len() + error.len())?;
        let headers = HeaderSet::DeadLetter { event, topic, error: &error };
        // No topic refuses the present time.
        self.hand_over(pending, dead_letter, &MessageOptions { partition: BY_KEY, timestamp: NOW, headers }).await?;
        // It is counted, and need not be sent again, only when it has arrived.
        self.wait_until_settled().await?;
        self.isolation.arrived(pending.record_index());
        self.metrics.count_dead_letter(reason);
        if let Some(times) = self.metrics.due_dead_letter_line(code) {
            tracing::warn!(error, times, dead_letter = &*dead_letter.name, "an event was sent to the dead-letter topic");
        }
        Ok(())
    }

    /// Hands one message to the client. Waits while the client flushes or its queue is full.
    async fn hand_over(&self, pending: &PendingRecord<'_>, destination: &Destination, options: &MessageOptions<'_>) -> Result<(), Error> {
        let gate = self.client.gate();
        let mut backoff = QueueBackoff::new(&self.metrics);
        loop {
            if !gate.is_open() {
                gate.open().await;
            }
            match destination.topic.produce(pending, options) {
                Ok(()) => {
                    gate.count();
                    return Ok(());
                }
                Err(ProduceError::QueueFull) => {}
                Err(ProduceError::Failed(code)) => {
                    let error = Error::of_delivery(code, &destination.name);
                    if matches!(error, Error::Refused { .. }) {
                        self.isolation.refused(&error);
                    }
                    return Err(self.failure_or(|| error));
                }
            }
            if let Some(failure) = self.client.context().failure() {
                return Err(failure.clone());
            }
            self.client.allow_flush();
            backoff.wait().await;
        }
    }

    /// Waits until no message is unconfirmed.
    pub(super) async fn wait_until_settled(&self) -> Result<(), Error> {
        self.client.allow_flush();
        let mut wait = Duration::from_millis(1);
        loop {
            // Read before the failure: a message that failed reports its failure before it leaves the count.
            let is_settled = self.client.client().in_flight_count() == 0 && self.client.context().connections().held_count() == 0;
            if let Some(failure) = self.client.context().failure() {
                return Err(failure.clone());
            }
            if is_settled {
                return Ok(());
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(16));
        }
    }

    /// How many partitions the topic has now.
    async fn partition_count(&self, destination: &Destination) -> Result<u32, Error> {
        let (client, name) = (Arc::clone(&self.client), destination.name.clone());
        let found = blocking(move || topics::partitions(&client, std::iter::once(&name))).await?;
        let count = found.into_values().next().filter(|count| *count != 0);
        count.ok_or_else(|| topics::all_missing(&self.client, [&destination.name]))
    }

    /// The error that ended the session, or `otherwise`.
    pub(super) fn failure_or(&self, otherwise: impl FnOnce() -> Error) -> Error {
        let failure = self.client.context().failure().cloned().unwrap_or_else(otherwise);
        // When the idempotent producer fails for good, it reports records before the cause, with less detail.
        match self.client.client().client().fatal_error() {
            Some((code, reason)) if failure.fault() == Fault::Transient => Error::of_fatal(code, reason),
            _ => failure,
        }
    }
}

/// Waits while the client's queue is full, longer each time: it stays full while every broker is down.
struct QueueBackoff<'m> {
    metrics: &'m SinkMetrics,
    next: Duration,
}

impl<'m> QueueBackoff<'m> {
    const FIRST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(32);

    const fn new(metrics: &'m SinkMetrics) -> Self {
        Self { metrics, next: Self::FIRST }
    }

    async fn wait(&mut self) {
        self.metrics.blocked.set(1);
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Self::LONGEST);
    }
}

impl Drop for QueueBackoff<'_> {
    fn drop(&mut self) {
        if self.next != Self::FIRST {
            self.metrics.blocked.set(0);
        }
    }
}
