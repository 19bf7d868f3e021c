//! Builds the configuration of librdkafka clients: the operator's properties, and the settings on which the guarantees rest.

use super::connections;
use super::error::Error;
use super::options::Options;
use crate::feed::Feeds;
use crate::format::Protocol;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

/// Kafka's default of `message.max.bytes`: assumed for a topic whose limit the broker does not show.
pub(super) const LIMIT_BYTES_DEFAULT: usize = 1_048_588;

/// The largest message that librdkafka takes.
pub(super) const LARGEST_BYTES: usize = 1_000_000_000;

/// Memory of one message in librdkafka beside its body, which stays in its batch: librdkafka's own structure and the key,
/// and with headers a list with an allocation for each of them (malloc's overhead included).
fn message_bytes(options: &Options) -> usize {
    // A message has the new key or the old key, never both.
    let headers = if options.headers { options.format.headers(Protocol::Kafka, &Feeds::default()).max() - 1 } else { 0 };
    256 + 64 * headers
}

/// The configuration of a client that sends messages of up to `largest_bytes`, to topics that accept `smallest_limit_bytes` or more.
pub(super) fn client(options: &Options, largest_bytes: usize, smallest_limit_bytes: usize) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::new();
    // `context` reads librdkafka's log lines, those about connections among them. Without this setting the crate would use the level of
    // another logger.
    config.set_log_level(RDKafkaLogLevel::Debug);
    // The operator may change these.
    config
        .set("client.id", format!("feedline-{}", options.pipeline))
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.max.ms", "5000")
        // How soon a changed number of partitions is noticed.
        .set("topic.metadata.refresh.interval.ms", "60000");
    for (name, value) in &options.properties {
        config.set(name, value);
    }
    let ours = connections::DEBUG_CONTEXT;
    let debug = options.properties.get("debug").map_or_else(|| ours.to_owned(), |asked| format!("{ours},{asked}"));
    config.set("debug", debug);
    if let Some(password) = &options.sasl_password {
        config.set("sasl.password", password.reveal());
    }
    if let Some(password) = &options.ssl_key_password {
        config.set("ssl.key.password", password.reveal());
    }
    // A broker refuses a request that is larger than the topic's limit, however small its records are.
    let batch_bytes = config.get("batch.size").and_then(|size| size.parse().ok()).unwrap_or(1_000_000).min(smallest_limit_bytes);
    config
        .set("bootstrap.servers", &*options.bootstrap_servers)
        // A broker that does not know a producer yet accepts any sequence number (Kafka's `ProducerAppendInfo.checkSequence`, KIP-360).
        // If it refuses a partition's first request for a moment and accepts the second one, librdkafka takes the first one for stored
        // (`rd_kafka_dr_implicit_ack`). So no request is sent before the one in front of it is answered. A broker handles the
        // requests of a connection one after the other in any case.
        .set("max.in.flight.requests.per.connection", "1")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("allow.auto.create.topics", "false")
        .set("batch.size", batch_bytes.max(1).to_string())
        .set("message.max.bytes", largest_bytes.clamp(1_000_000, LARGEST_BYTES).to_string())
        .set("queue.buffering.max.messages", (options.queue_bytes / message_bytes(options)).max(1000).to_string())
        // Never ends by itself: see `flush`.
        .set("linger.ms", "900000")
        // Bodies stay in their batches, whose memory is bounded by the budget.
        .set("queue.buffering.max.kbytes", i32::MAX.to_string());
    // librdkafka's error repeats the value, which may be a secret: only the description is passed on.
    config.create_native_config().map_err(|error| Error::Configuration {
        reason: match error {
            KafkaError::ClientConfig(_, description, name, _) => format!("\"{name}\": {description}"),
            other => other.to_string(),
        },
    })?;
    Ok(config)
}

/// The configuration of the client for administrative requests. Its connections are not tracked.
pub(super) fn admin(options: &Options) -> Result<ClientConfig, Error> {
    let mut config = client(options, LIMIT_BYTES_DEFAULT, LIMIT_BYTES_DEFAULT)?;
    config.remove("debug");
    Ok(config)
}
