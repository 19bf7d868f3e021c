//! The sink port: what a broker adapter must do. [`SinkConnector`] opens sessions, [`Sink`] is one session.
//!
//! The engine (`pipeline/sink_side.rs`) is the only caller of [`Sink`]. It owns one connector and has at most one session open:
//!
//! 1. [`SinkConnector::connect`] opens a session. The engine compares the returned identity with the known one before it sends anything.
//! 2. [`Sink::submit`] is called for each batch, in order. Between batches the engine waits in [`Sink::failed`].
//! 3. The sink confirms records through the [`Ack`] of their batch, from any thread and in any order of batches.
//! 4. After any failure the session is dropped. The next session is sent everything again, from the first unconfirmed batch on.
//! 5. At the end of a run, when all batches are confirmed, [`Sink::close`] ends the session.
//!
//! An adapter does not retry with a new connection and does not wait between attempts: it fails, and the engine starts the next session,
//! with backoff. Each error says by [`Classify`] whether trying again can help.

use crate::batch::{Ack, Batch};
use crate::checkpoint::Identity;
use crate::fault::Classify;
use crate::feed::Feeds;
use crate::preflight::Findings;
use std::sync::Arc;

#[cfg(feature = "amqp")]
pub mod amqp;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod stdout;

/// One session with a broker.
///
/// # What a sink guarantees
///
/// - **Confirmed means durable.** [`Ack::confirm`] is called for a record only when the broker has it durably, as strictly as the broker
///   can promise that. The checkpoint advances on this alone.
/// - **Order.** Records reach their destination in the order in which they were submitted, at least per key. If a record fails, the session
///   fails, and records behind it that have arrived are sent again after it.
/// - **No skipping.** A record that cannot be delivered ends the session with an error, unless a destination for dead letters is configured;
///   then its delivery there is what is confirmed.
/// - **The right broker.** A confirmation counts only if it came from the broker whose identity [`SinkConnector::connect`] returned, also
///   where the client library reconnects on its own.
///
/// # Dropping a session
///
/// The engine drops a session after any failure, and when a shutdown runs out of time. Dropping must not block. The acks of all
/// unconfirmed batches are dropped then or soon after, which reports these batches as lost. What the session had already
/// sent may still arrive; the connector makes sure that it cannot arrive behind records of the next session.
pub trait Sink: Send + 'static {
    /// Why records could not be sent. Its class decides what follows: a transient error is retried with a new session,
    /// any other error ends the run.
    type Error: Classify;

    /// Takes over one batch: hands all its records to the client, in order. Does not wait for their confirmation.
    ///
    /// Called by the engine for one batch at a time, with rising [`Batch::seq`]. Within a session each batch is submitted once; a later
    /// session may be given the same batch again, with a new `ack`. The batch is never empty.
    ///
    /// # The ack
    ///
    /// With `ack` the sink reports the result for this batch, in one of two ways:
    ///
    /// - *Confirmed*: the sink calls [`Ack::confirm`] until the sum of the counts is [`Batch::len`]. Confirming more than that panics.
    ///   If one record becomes several messages, it counts as one record, confirmed with the last message.
    /// - *Lost*: the last clone of `ack` is dropped before that. The engine then ends this session and sends the batch, and all behind
    ///   it, again. A forgotten ack therefore repeats records and never skips them.
    ///
    /// Confirmations may arrive after this method has returned, after the session was dropped, and in any order of batches. What an earlier
    /// session confirms late is ignored. Before an ack is dropped because of a failure, the cause must be known to [`Self::failure`]:
    /// the engine asks for it as soon as it sees the loss.
    ///
    /// # Memory
    ///
    /// Record bytes may be read in place for as long as the sink holds `batch`. The batch's memory is given back to the budget only when
    /// every holder has dropped it, so a sink drops it as soon as it is settled. A sink that also copies records bounds that memory itself.
    ///
    /// # Waiting
    ///
    /// This is the only place where a sink applies back-pressure: while its queue is full or the broker asks it to wait, `submit`
    /// waits. The engine keeps saving checkpoints and watching for lost batches in the meantime.
    ///
    /// # Errors
    ///
    /// An error ends the session: the engine drops it and asks it for nothing but [`Self::has_learnt`]. The records of this batch that were
    /// already handed over may still arrive; `ack` is dropped, so the whole batch is sent again.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: if the future is dropped, part of the batch may have been sent. The sink must then drop `ack`, unless all records
    /// were handed over. The engine drops this future only if a batch was lost, the checkpoint cannot be kept, or a shutdown ran out of
    /// time, and submits nothing more to this session.
    fn submit(&mut self, batch: Arc<Batch>, ack: Ack) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Returns why a batch of this session was lost.
    ///
    /// Called by the engine once, after an ack of this session was dropped and no other method returned the error. Must return at once. If
    /// several things failed, the first cause counts. A sink that knows no cause returns a transient error.
    fn failure(&mut self) -> Self::Error;

    /// Waits until the session fails on its own, and returns why. Never returns while the session is usable.
    ///
    /// The engine waits here whenever it has no batch to submit, so that a broken connection is noticed while the pipeline is idle.
    /// The default never returns: it is for sinks that fail only while they write.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: the engine drops this future each time a batch arrives.
    fn failed(&mut self) -> impl Future<Output = Self::Error> + Send {
        std::future::pending()
    }

    /// Returns whether this session failed in a way that helps the next one, so that the next one need not wait for the full backoff.
    ///
    /// Called by the engine after a failure, before the session is dropped. For example, a session may have found out which record a topic
    /// refuses: the next session can send this record to the dead letters. A sink that returns `true` must make progress with each
    /// such session, since the engine resets its backoff.
    fn has_learnt(&self) -> bool {
        false
    }

    /// Waits until everything submitted is confirmed, then ends the session.
    ///
    /// Called by the engine at the end of a run, when all batches are confirmed.
    ///
    /// # Errors
    ///
    /// If batches are still unconfirmed, their acks are dropped. If none are, the error says only that the connection did not
    /// end in order: the engine logs it and goes on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the session. The engine does so when a shutdown runs out of time.
    fn close(self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Opens sessions with one broker, and finds out who this broker is.
///
/// One task owns it and calls one method at a time. The order of the calls:
///
/// 1. [`Self::select`]; with a checkpoint that knows the sink [`Self::recognize`].
/// 2. A start: [`Self::establish`]; then [`Self::connect`] for each session. `feedline check`: [`Self::preflight`].
///
/// Only [`Self::establish`] and [`Self::connect`] may change anything at the broker. Every method that returns an error leaves the connector
/// usable: the call may be repeated. The same holds for a future that is dropped. Connections that it opened are closed in the background, and
/// a later call waits for their end where two must not overlap.
pub trait SinkConnector: Send + 'static {
    /// The session that [`Self::connect`] opens.
    type Sink: Sink<Error = Self::Error>;
    /// Why the broker could not be reached, or is not fit.
    type Error: Classify;

    /// Sets the feeds whose records the sessions will send. The other methods concern the destinations of these feeds.
    ///
    /// Called first, and again on each attempt to start. Contacts no broker.
    fn select(&mut self, feeds: Arc<Feeds>);

    /// Asks the broker for its identity, and for those of the selected destinations. Changes nothing.
    ///
    /// Harmless to a pipeline that is running. `known` is the identity that the checkpoint was made with: from then on [`Self::establish`]
    /// creates nothing and [`Self::connect`] opens no session at a broker that is known to be another one. Whether destinations are still the
    /// same ones is decided by the caller, from what is returned. A destination that is part of `known` and does not exist is returned with an
    /// empty string. Ids that the broker does not have are left out.
    fn recognize(&mut self, known: &Identity) -> impl Future<Output = Result<Identity, Self::Error>> + Send;

    /// Returns what a start would change at the broker, what would stop it, and what is risky. Changes nothing.
    ///
    /// Harmless to a pipeline that is running. Called by `feedline check` alone: a start learns all that stops it from [`Self::establish`].
    /// What is wrong with destinations is returned as findings, as much as possible at once; an error means that the adapter could not check
    /// any further.
    fn preflight(&mut self) -> impl Future<Output = Result<Findings, Self::Error>> + Send;

    /// Makes what the sink needs (topics, exchange, queues), verifies what is there, and returns the broker's identity.
    ///
    /// It creates missing destinations where the configuration says so, and may take the pipeline's lock for a moment. Calling it twice has
    /// the same effect as calling it once.
    ///
    /// # Errors
    ///
    /// An error names what is missing or unfit. Destinations created before the error remain.
    fn establish(&mut self) -> impl Future<Output = Result<Identity, Self::Error>> + Send;

    /// Opens a session, and returns the identity of the broker that answered.
    ///
    /// Called by the engine for the first session and after each failure. Another broker may answer at the same address by then, so the
    /// identity is read from the connection that the session uses, and the engine compares it before it submits a batch. The connector waits
    /// until the session before has ended at the broker, or can send nothing more there: two sessions must not overtake each other.
    ///
    /// # Cancel safety
    ///
    /// The engine drops this future when a shutdown runs out of time. No session may remain open then.
    fn connect(&mut self) -> impl Future<Output = Result<(Self::Sink, Identity), Self::Error>> + Send;
}

/// The header of a dead letter with the destination that it did not reach.
pub const DESTINATION_HEADER: &str = "feedline-destination";

/// The header of a dead letter with its error: code and message.
pub const ERROR_HEADER: &str = "feedline-error";

/// One message that was read back from a broker, for `feedline tail` and `feedline dead-letters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// `topic[partition]@offset` in Kafka, the routing key in RabbitMQ.
    pub address: String,
    /// The message's key.
    pub key: Option<String>,
    /// Headers and properties, by name.
    pub headers: Vec<(String, String)>,
    /// The media type of the body, if the message names it.
    pub content_type: Option<String>,
    /// The body; `None` for a tombstone.
    pub body: Option<Vec<u8>>,
}

impl Consumed {
    /// Whether the body is text: JSON of some kind, which is also what a message without a content type has.
    #[must_use]
    pub fn is_text(&self) -> bool {
        let Some(content_type) = &self.content_type else { return true };
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        media_type == "application/json" || media_type.ends_with("+json") || media_type.starts_with("text/")
    }
}

/// Is called for each consumed message; breaks to stop reading.
pub type OnConsumed<'h> = &'h mut (dyn FnMut(Consumed) -> std::ops::ControlFlow<()> + Send);

#[cfg(test)]
mod tests {
    use super::Consumed;

    #[test]
    fn a_body_is_text_if_its_content_type_says_so_or_nothing() {
        let of = |content_type: Option<&str>| {
            let content_type = content_type.map(str::to_owned);
            Consumed { address: String::new(), key: None, headers: Vec::new(), content_type, body: None }.is_text()
        };
        assert!(of(None) && of(Some("application/json")) && of(Some("Application/CloudEvents+JSON; charset=UTF-8")));
        assert!(!of(Some("application/avro")) && !of(Some("application/octet-stream")));
    }
}
