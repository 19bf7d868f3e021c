//! Callbacks of librdkafka: delivery reports, errors and log lines. Called on the thread that polls the client; the session reads the result.

use super::connections::{Connections, StateChange};
use super::delivery::MessageRef;
use super::describe::pending_events;
use super::error::Error;
use super::identity::KnownCluster;
use super::isolation::Isolation;
use super::options::Options;
use crate::status::metrics::SinkMetrics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Added to a failed handshake that may be transient: a broker went away in the middle of it, or does not speak TLS on this port.
const TLS_HINT: &str = "the TLS handshake failed: check \"security.protocol\" in `sink.properties` against the broker's listener";

/// The producer of one session. Its thread polls it.
pub(super) type Client = BaseProducer<Context>;

/// Handles all events that wait. librdkafka reports new events only once its queue was empty.
pub(super) fn poll_all<C: ProducerContext>(client: &BaseProducer<C>) {
    while pending_events(client.client()) != 0 {
        client.poll(Duration::ZERO);
    }
}

/// State of one session, written by librdkafka's callbacks.
pub(super) struct Context {
    servers: Arc<str>,
    metrics: SinkMetrics,
    /// The first error that ends the session.
    failure: OnceLock<Error>,
    /// Cancelled when `failure` is set.
    failed: CancellationToken,
    /// The client's last error that did not end the session.
    last_error: Mutex<Option<String>>,
    /// Since when no broker can be reached.
    down_since: Mutex<Option<Instant>>,
    /// Whether a connection ended or failed, and none was made since.
    is_troubled: AtomicBool,
    isolation: Isolation,
    /// The cluster that the session was opened with. Nothing is sent before it is known.
    known: OnceLock<KnownCluster>,
    connections: Connections<MessageRef>,
    /// How many connections were made, those to coordinators included.
    connection_count: AtomicU64,
    /// How many brokers the cluster had when it was last asked.
    broker_count: AtomicUsize,
    /// Whether the operator asked for librdkafka's debug lines.
    is_debugged: bool,
}

impl Context {
    pub(super) fn new(options: &Options, metrics: SinkMetrics, isolation: Isolation) -> Self {
        Self {
            servers: options.bootstrap_servers.as_str().into(),
            metrics,
            failure: OnceLock::new(),
            failed: CancellationToken::new(),
            last_error: Mutex::new(None),
            down_since: Mutex::new(None),
            is_troubled: AtomicBool::new(false),
            isolation,
            known: OnceLock::new(),
            connections: Connections::default(),
            connection_count: AtomicU64::new(0),
            broker_count: AtomicUsize::new(0),
            is_debugged: options.properties.contains_key("debug"),
        }
    }

    /// Sets the cluster that every connection must lead to from now on.
    pub(super) fn set_known(&self, known: KnownCluster) {
        // Called once: a session is opened once.
        let _first = self.known.set(known);
    }

    pub(super) fn known(&self) -> Option<&KnownCluster> {
        self.known.get()
    }

    /// The session's connections, and the confirmations that they hold back.
    pub(super) const fn connections(&self) -> &Connections<MessageRef> {
        &self.connections
    }

    /// Confirms messages whose confirmations were held back.
    pub(super) fn release(&self, confirmations: Vec<MessageRef>) {
        for message in confirmations {
            self.confirm(message);
        }
    }

    /// How many connections were made, those to coordinators included.
    pub(super) fn connection_count(&self) -> u64 {
        self.connection_count.load(Ordering::Acquire)
    }

    /// Whether a connection ended or failed, and none was made since.
    pub(super) fn is_troubled(&self) -> bool {
        self.is_troubled.load(Ordering::Acquire)
    }

    /// Sets how many brokers the cluster has.
    pub(super) fn set_broker_count(&self, count: usize) {
        self.broker_count.store(count, Ordering::Relaxed);
    }

    /// How many brokers the cluster has; 0 if it was not asked yet.
    pub(super) fn broker_count(&self) -> usize {
        self.broker_count.load(Ordering::Relaxed)
    }

    /// Reads a log line about a connection.
    fn state_changed(&self, message: &str) {
        if message.ends_with("-> UP") {
            self.connection_count.fetch_add(1, Ordering::AcqRel);
            self.is_troubled.store(false, Ordering::Release);
            self.log_recovery();
        } else if message.ends_with("-> DOWN") {
            self.is_troubled.store(true, Ordering::Release);
        }
        if let Some(change) = StateChange::parse(message) {
            self.release(self.connections.changed(change));
        }
    }

    fn confirm(&self, message: MessageRef) {
        let Some(elapsed) = message.confirm() else { return };
        self.metrics.publish_duration_seconds.observe(elapsed.as_secs_f64());
    }

    fn down_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.down_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs the end of an outage once, and how long it lasted.
    fn log_recovery(&self) {
        if let Some(since) = self.down_since().take() {
            info!(brokers = %self.servers, outage_seconds = since.elapsed().as_secs(), "Kafka is reached again; waiting records are sent");
        }
    }

    /// The configured brokers.
    pub(super) fn servers(&self) -> &str {
        &self.servers
    }

    /// The error that ended the session, if any.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    /// The error if no broker answered. Its reason is the client's last error, or `otherwise`.
    pub(super) fn unreachable(&self, otherwise: &str) -> Error {
        Error::Unreachable { servers: self.servers.to_string(), reason: self.last_error().unwrap_or_else(|| otherwise.to_owned()) }
    }

    fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the session.
    pub(super) fn fail(&self, error: Error) {
        // Only the first failure is the cause; the following ones are its effects.
        let _effect = self.failure.set(error);
        self.failed.cancel();
    }

    /// Returns when the session has failed. Cancel safe.
    pub(super) async fn failed(&self) {
        self.failed.cancelled().await;
    }
}

/// Whether a connection ended, or was silent, while the broker was asked for its SASL mechanisms. librdkafka reports that with the
/// error code of a refused user (`rd_kafka_broker_handle_SaslHandshake`).
fn is_interrupted_handshake(reason: &str) -> bool {
    let Some((_, cause)) = reason.split_once("mechanism handshake failed: ") else { return false };
    ["Local: Broker transport failure", "Local: Communication failure with broker", "Local: Timed out"]
        .iter()
        .any(|transient| cause.starts_with(transient))
}

/// Whether one side refused the other's certificate, in OpenSSL's words: a failed verification, or an alert.
fn is_about_certificates(reason: &str) -> bool {
    reason.contains("certificate") || reason.contains("alert unknown ca")
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        let reason = reason.to_owned();
        self.is_troubled.store(true, Ordering::Release);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) if !is_interrupted_handshake(&reason) => {
                self.fail(Error::Authentication { reason });
            }
            // A handshake that fails because the broker goes away is transient. Under TLS 1.3 a broker may refuse our certificate
            // after the handshake; librdkafka then reports a transport failure.
            Some(RDKafkaErrorCode::SSL | RDKafkaErrorCode::BrokerTransportFailure) if is_about_certificates(&reason) => {
                self.fail(Error::Tls { reason });
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                if self.down_since().is_none() {
                    *self.down_since() = Some(Instant::now());
                    warn!(brokers = %self.servers, "no Kafka broker can be reached; records wait");
                }
            }
            code => {
                debug!(%error, reason, "Kafka client");
                let is_tls = matches!(code, Some(RDKafkaErrorCode::SSL));
                let reason = if is_tls { format!("{reason}; {TLS_HINT}") } else { reason };
                self.metrics.complain(Some(reason.clone()));
                *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            }
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match (facility, level) {
            ("STATE", _) => self.state_changed(message),
            // A broker returned another cluster id than a broker before (`rd_kafka_parse_Metadata0`).
            ("CLUSTERID", RDKafkaLogLevel::Warning) => {
                self.fail(Error::Unconfirmed { reason: format!("another cluster answers at this address: {message}") });
            }
            _ => {}
        }
        if matches!(level, RDKafkaLogLevel::Debug) && !self.is_debugged {
            return;
        }
        // librdkafka reports a changed number of partitions only in its log (rdkafka_topic.c, rd_kafka_topic_partition_cnt_update).
        if facility == "PARTCNT" {
            self.metrics.partitions_changed.set(1);
            warn!(message, "a topic's number of partitions changed: keys move to other partitions, and their order starts anew there");
        } else {
            debug!(facility, message, "librdkafka");
        }
    }
}

/// The context of clients that carry no table records: readers, and the checkpoint's clients.
pub(super) struct AuxiliaryContext(pub(super) Context);

impl ClientContext for AuxiliaryContext {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }
}

impl ConsumerContext for AuxiliaryContext {}

impl ProducerContext for AuxiliaryContext {
    type DeliveryOpaque = ();

    // Not needed: a transaction is committed with all of its records, or not at all.
    fn delivery(&self, _result: &DeliveryResult<'_>, (): ()) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = MessageRef;

    fn delivery(&self, result: &DeliveryResult<'_>, message_ref: MessageRef) {
        match result {
            Ok(_) => {
                if let Some(message_ref) = self.connections.accept_or_hold(message_ref) {
                    self.confirm(message_ref);
                }
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                let failure = match code {
                    // The idempotent producer failed for good, or emptied its queue because it had; the error event before says why.
                    RDKafkaErrorCode::Fatal | RDKafkaErrorCode::PurgeQueue => {
                        Error::Unconfirmed { reason: self.last_error().unwrap_or_else(|| code.to_string()) }
                    }
                    RDKafkaErrorCode::MessageSizeTooLarge if self.isolation.shrink_requests() => {
                        Error::BatchTooLarge { topic: message.topic().to_owned() }
                    }
                    code => Error::of_delivery(code, message.topic()),
                };
                if matches!(failure, Error::Refused { .. }) {
                    self.isolation.refused(&failure);
                }
                // Stored before the loss is reported, so that the engine finds the cause.
                self.fail(failure);
                drop(message_ref);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Context, Error, Isolation, Options};
    use crate::status::metrics::Metrics;
    use rdkafka::client::ClientContext as _;
    use rdkafka::error::KafkaError;
    use rdkafka::types::RDKafkaErrorCode;

    fn context() -> Context {
        Context::new(&Options::plain("broker:9092", "shop"), Metrics::new("shop").sink, Isolation::default())
    }

    #[test]
    fn a_broker_without_tls_gives_another_message_than_one_that_is_away() {
        let context = context();
        context.error(KafkaError::Global(RDKafkaErrorCode::SSL), "SSL handshake failed: Disconnected");
        assert_eq!(context.failure(), None, "a broker that goes away during the handshake is transient");
        let message = context.unreachable("no answer").to_string();
        assert!(message.contains("SSL handshake failed: Disconnected") && message.contains("\"security.protocol\""), "{message}");
    }

    #[test]
    fn a_certificate_that_is_refused_after_the_handshake_is_reported() {
        // As a broker does under TLS 1.3.
        let refused = context();
        let alert =
            "ssl://broker:9092/1: Receive failed: error:0A000416:SSL routines::sslv3 alert certificate unknown: SSL alert number 46";
        refused.error(KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), alert);
        assert_eq!(refused.failure(), Some(&Error::Tls { reason: alert.to_owned() }));
        let away = context();
        away.error(
            KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure),
            "broker:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused",
        );
        assert!(away.failure().is_none() && away.is_troubled());
    }

    #[test]
    fn an_interrupted_handshake_is_not_a_wrong_password() {
        let failure = |reason: &str| {
            let context = context();
            context.error(KafkaError::Global(RDKafkaErrorCode::Authentication), reason);
            let last_error = context.last_error();
            assert_eq!(last_error.is_none(), context.failure().is_some(), "a transient error is kept for the message");
            context.failure().cloned()
        };
        for cause in ["Local: Broker transport failure", "Local: Timed out", "Local: Timed out in queue"] {
            let reason = format!(
                "sasl_plaintext://broker:9092/bootstrap: SASL PLAIN mechanism handshake failed: {cause}: broker's supported mechanisms: (n/a) \
                 (after 3ms in state AUTH_HANDSHAKE)"
            );
            assert_eq!(failure(&reason), None);
        }
        for reason in [
            "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: SCRAM-SHA-256",
            "SASL authentication error: Authentication failed: Invalid username or password (after 4ms in state AUTH_REQ)",
            "Failed to initialize SASL authentication: no user",
        ] {
            assert_eq!(failure(reason), Some(Error::Authentication { reason: reason.to_owned() }));
        }
    }
}
