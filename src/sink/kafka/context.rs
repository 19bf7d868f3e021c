//! What librdkafka tells: delivery reports, errors, log lines.

use super::Options;
use super::describe::waiting;
use super::error::Error;
use super::identity::Known;
use super::isolation::Isolation;
use super::produce::Share;
use super::trust::{Trust, Turn};
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

/// Said where a handshake fails and may pass: a broker went away in its middle, or it never speaks TLS there.
const NO_TLS: &str = "the TLS handshake failed: check \"security.protocol\" in `sink.properties` against the broker's listener";

/// The client of one session. It is polled by the session's thread.
pub(super) type Client = BaseProducer<Context>;

/// Handles all events that wait; behind the last one the client tells of new ones.
pub(super) fn poll_all<C: ProducerContext>(client: &BaseProducer<C>) {
    while waiting(client.client()) != 0 {
        client.poll(Duration::ZERO);
    }
}

/// One session's ear. Called from the thread that polls; read by the session.
pub(super) struct Context {
    servers: Arc<str>,
    metrics: SinkMetrics,
    /// The first error that ends the session.
    failure: OnceLock<Error>,
    /// Cancelled when there is one.
    failed: CancellationToken,
    /// What the client complained of last, and did not give up for.
    complaint: Mutex<Option<String>>,
    /// Since when no broker can be reached.
    down_since: Mutex<Option<Instant>>,
    /// Whether a connection ended or failed, and none was made since.
    is_troubled: AtomicBool,
    isolation: Isolation,
    /// With whom the session was opened; nothing is sent before.
    known: OnceLock<Known>,
    trust: Trust<Share>,
    connections: AtomicU64,
    /// How many brokers there were when the cluster was last asked.
    brokers: AtomicUsize,
    /// Whether a person asked for librdkafka's debug lines.
    is_debugged: bool,
}

impl Context {
    pub(super) fn new(options: &Options, metrics: SinkMetrics, isolation: Isolation) -> Self {
        Self {
            servers: options.bootstrap_servers.as_str().into(),
            metrics,
            failure: OnceLock::new(),
            failed: CancellationToken::new(),
            complaint: Mutex::new(None),
            down_since: Mutex::new(None),
            is_troubled: AtomicBool::new(false),
            isolation,
            known: OnceLock::new(),
            trust: Trust::default(),
            connections: AtomicU64::new(0),
            brokers: AtomicUsize::new(0),
            is_debugged: options.properties.contains_key("debug"),
        }
    }

    /// From now on each connection has to prove that it leads to this one.
    pub(super) fn know(&self, known: Known) {
        // A session is opened once.
        let _first = self.known.set(known);
    }

    pub(super) fn known(&self) -> Option<&Known> {
        self.known.get()
    }

    /// The session's connections.
    pub(super) const fn trust(&self) -> &Trust<Share> {
        &self.trust
    }

    /// Confirms what was held back.
    pub(super) fn release(&self, held: Vec<Share>) {
        for share in held {
            self.confirm(share);
        }
    }

    /// How many connections there were, those to coordinators among them.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Acquire)
    }

    /// Whether a connection is wanted that cannot be had, as far as is known.
    pub(super) fn is_troubled(&self) -> bool {
        self.is_troubled.load(Ordering::Acquire)
    }

    /// So many brokers answer for the cluster.
    pub(super) fn saw_brokers(&self, count: usize) {
        self.brokers.store(count, Ordering::Relaxed);
    }

    /// How many brokers there are; 0 where none was asked yet.
    pub(super) fn brokers(&self) -> usize {
        self.brokers.load(Ordering::Relaxed)
    }

    fn turned(&self, message: &str) {
        if message.ends_with("-> UP") {
            self.connections.fetch_add(1, Ordering::AcqRel);
            self.is_troubled.store(false, Ordering::Release);
            self.recovered();
        } else if message.ends_with("-> DOWN") {
            self.is_troubled.store(true, Ordering::Release);
        }
        if let Some(turn) = Turn::read(message) {
            self.release(self.trust.turned(turn));
        }
    }

    fn confirm(&self, share: Share) {
        let Some(elapsed) = share.confirm() else { return };
        self.metrics.publish_duration_seconds.observe(elapsed.as_secs_f64());
    }

    fn down_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.down_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says so once after an outage, and how long it took.
    fn recovered(&self) {
        if let Some(since) = self.down_since().take() {
            info!(brokers = %self.servers, outage_seconds = since.elapsed().as_secs(), "Kafka is reached again; what waited is sent");
        }
    }

    /// The configured brokers.
    pub(super) fn servers(&self) -> &str {
        &self.servers
    }

    /// Why the session must end, where it must.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    /// No broker answered: in the client's own words, where it had any.
    pub(super) fn unreachable(&self, otherwise: &str) -> Error {
        Error::Unreachable { servers: self.servers.to_string(), reason: self.complaint().unwrap_or_else(|| otherwise.to_owned()) }
    }

    fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn fail(&self, error: Error) {
        // Only the first failure is the cause; what follows is its effect.
        let _effect = self.failure.set(error);
        self.failed.cancel();
    }

    /// Returns when the session must end.
    pub(super) async fn failed(&self) {
        self.failed.cancelled().await;
    }
}

/// Whether a connection ended, or was silent, while the broker was asked for its SASL mechanisms: librdkafka reports that under the
/// number of a refused user (`rd_kafka_broker_handle_SaslHandshake`).
fn is_broken_off(reason: &str) -> bool {
    let Some((_, cause)) = reason.split_once("mechanism handshake failed: ") else { return false };
    ["Local: Broker transport failure", "Local: Communication failure with broker", "Local: Timed out"]
        .iter()
        .any(|passing| cause.starts_with(passing))
}

/// Whether one side refused the other's certificate, in OpenSSL's words: a verification that failed, or an alert.
fn is_of_certificates(reason: &str) -> bool {
    reason.contains("certificate") || reason.contains("alert unknown ca")
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        let reason = reason.to_owned();
        self.is_troubled.store(true, Ordering::Release);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) if !is_broken_off(&reason) => {
                self.fail(Error::Authentication { reason });
            }
            // A handshake also fails when a broker goes away in the middle of it: that passes. What a broker has against our certificate
            // it may say behind the handshake (TLS 1.3), which is reported as the end of the connection.
            Some(RDKafkaErrorCode::SSL | RDKafkaErrorCode::BrokerTransportFailure) if is_of_certificates(&reason) => {
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
                let is_of_tls = matches!(code, Some(RDKafkaErrorCode::SSL));
                let reason = if is_of_tls { format!("{reason}; {NO_TLS}") } else { reason };
                self.metrics.complain(Some(reason.clone()));
                *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            }
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match (facility, level) {
            ("STATE", _) => self.turned(message),
            // A broker names another cluster than one before (`rd_kafka_parse_Metadata0`).
            ("CLUSTERID", RDKafkaLogLevel::Warning) => {
                self.fail(Error::Unconfirmed { reason: format!("another cluster stands behind the address: {message}") });
            }
            _ => {}
        }
        if matches!(level, RDKafkaLogLevel::Debug) && !self.is_debugged {
            return;
        }
        // librdkafka's only word on a changed number of partitions (rdkafka_topic.c, rd_kafka_topic_partition_cnt_update).
        if facility == "PARTCNT" {
            self.metrics.partitions_changed.set(1);
            warn!(message, "the partitions of a topic changed: keys move to other partitions, where their order starts anew");
        } else {
            debug!(facility, message, "librdkafka");
        }
    }
}

/// What clients say that carry no records of tables: one's own look, and the checkpoint's.
pub(super) struct Ear(pub(super) Context);

impl ClientContext for Ear {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }
}

impl ConsumerContext for Ear {}

impl ProducerContext for Ear {
    type DeliveryOpaque = ();

    // A transaction is committed with all of its records, or not at all.
    fn delivery(&self, _result: &DeliveryResult<'_>, (): ()) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = Share;

    fn delivery(&self, result: &DeliveryResult<'_>, share: Share) {
        match result {
            Ok(_) => {
                if let Some(share) = self.trust.hold(share) {
                    self.confirm(share);
                }
            }
            Err((error, message)) => {
                // The cause is known before the engine hears of the loss.
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                let failure = match code {
                    // The idempotent producer gave up, or emptied its queue because it had; why is said by the error event before.
                    RDKafkaErrorCode::Fatal | RDKafkaErrorCode::PurgeQueue => {
                        Error::Unconfirmed { reason: self.complaint().unwrap_or_else(|| code.to_string()) }
                    }
                    RDKafkaErrorCode::MessageSizeTooLarge if self.isolation.squeeze() => {
                        Error::BatchTooLarge { topic: message.topic().to_owned() }
                    }
                    code => Error::of_delivery(code, message.topic()),
                };
                if matches!(failure, Error::Refused { .. }) {
                    self.isolation.refused(&failure);
                }
                self.fail(failure);
                drop(share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Context, Error, Isolation};
    use crate::sink::kafka::Options;
    use crate::status::metrics::Metrics;
    use rdkafka::client::ClientContext as _;
    use rdkafka::error::KafkaError;
    use rdkafka::types::RDKafkaErrorCode;

    #[test]
    fn a_broker_that_speaks_no_tls_is_told_from_one_that_is_away() {
        let context = Context::new(&Options::plain("broker:9092", "shop"), Metrics::new("shop").sink, Isolation::default());
        context.error(KafkaError::Global(RDKafkaErrorCode::SSL), "SSL handshake failed: Disconnected");
        assert_eq!(context.failure(), None, "a broker that goes away in its middle passes");
        let said = context.unreachable("no answer").to_string();
        assert!(said.contains("SSL handshake failed: Disconnected") && said.contains("\"security.protocol\""), "{said}");
    }

    #[test]
    fn a_certificate_that_is_refused_late_is_told() {
        // As a broker does under TLS 1.3: the handshake is over by then.
        let context = Context::new(&Options::plain("broker:9092", "shop"), Metrics::new("shop").sink, Isolation::default());
        let alert =
            "ssl://broker:9092/1: Receive failed: error:0A000416:SSL routines::sslv3 alert certificate unknown: SSL alert number 46";
        context.error(KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), alert);
        assert_eq!(context.failure(), Some(&Error::Tls { reason: alert.to_owned() }));
        let context = Context::new(&Options::plain("broker:9092", "shop"), Metrics::new("shop").sink, Isolation::default());
        context.error(
            KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure),
            "broker:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused",
        );
        assert!(context.failure().is_none() && context.is_troubled());
    }

    #[test]
    fn a_handshake_that_breaks_off_is_no_wrong_password() {
        let failure = |reason: &str| {
            let context = Context::new(&Options::plain("broker:9092", "shop"), Metrics::new("shop").sink, Isolation::default());
            context.error(KafkaError::Global(RDKafkaErrorCode::Authentication), reason);
            let complaint = context.complaint();
            assert_eq!(complaint.is_none(), context.failure().is_some(), "what passes is told where no broker answers");
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
