//! Settings of librdkafka: which are feedline's own, which are a person's.

use super::{Error, Options, trust};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;

/// What a person may not set, and why.
const OWNED: &[(&str, &str)] = &[
    ("acks", "every record is confirmed by all replicas in sync"),
    ("request.required.acks", "every record is confirmed by all replicas in sync"),
    ("enable.idempotence", "it is always on, so that retries neither repeat nor reorder"),
    ("enable.gapless.guarantee", "feedline goes back itself to the first unconfirmed record"),
    ("transactional.id", "it belongs to exactly-once delivery, and is derived from the pipeline's name"),
    ("transaction.timeout.ms", "it belongs to exactly-once delivery"),
    ("message.timeout.ms", "a record that times out would be skipped; feedline waits for the broker instead"),
    ("delivery.timeout.ms", "a record that times out would be skipped; feedline waits for the broker instead"),
    ("retries", "a record is tried until it is confirmed"),
    ("message.send.max.retries", "a record is tried until it is confirmed"),
    ("max.in.flight", "it is 1, since a request behind one that was refused could hide that records are missing"),
    ("max.in.flight.requests.per.connection", "it is 1, since a request behind one that was refused could hide that records are missing"),
    ("partitioner", "keys go where a Java producer sends them (murmur2)"),
    ("queuing.strategy", "the order of records depends on it"),
    ("delivery.report.only.error", "feedline lives on delivery reports"),
    ("bootstrap.servers", "it is the setting `sink.bootstrap_servers`"),
    ("metadata.broker.list", "it is the setting `sink.bootstrap_servers`"),
    ("allow.auto.create.topics", "topics are created by `sink.create_topics` or not at all"),
    ("message.max.bytes", "it follows the topics' own limits"),
    ("message.copy.max.bytes", "bodies are never copied"),
    ("statistics.interval.ms", "nothing reads librdkafka's statistics; feedline has its own metrics"),
    ("sasl.password", "secrets are not properties; use `sink.sasl_password_file` or `sink.sasl_password_env`"),
    ("sasl.oauthbearer.client.secret", "secrets are not properties, and this mechanism is not supported"),
    ("ssl.key.password", "secrets are not properties; use `sink.ssl_key_password_file` or `sink.ssl_key_password_env`"),
    ("ssl.key.pem", "secrets are not properties; name a file in \"ssl.key.location\""),
    ("ssl.keystore.password", "secrets are not properties; use PEM files and `sink.ssl_key_password_file`"),
    ("test.mock.num.brokers", "records would go nowhere"),
    ("log_level", "the log's level is the setting `log.level`"),
    ("log.queue", "feedline reads the client's log itself"),
    ("opaque", "it is a pointer"),
];

/// Owned as a family: the queue's bounds follow `pipeline.memory`.
const OWNED_PREFIX: (&str, &str) = ("queue.buffering.", "the client's queue is bounded by `pipeline.memory`; \"linger.ms\" may be set");

/// What a misspelt name is compared with: the properties that people set.
const COMMON: &[&str] = &[
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "debug",
    "enable.ssl.certificate.verification",
    "linger.ms",
    "metadata.max.age.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.cipher.suites",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.interval.ms",
];

/// Why a property is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{name}\" {reason}")]
pub struct Refused {
    /// The property.
    pub name: String,
    /// Why, and what to do instead.
    pub reason: String,
}

/// Checks a person's properties, all of them, without a broker.
///
/// # Errors
/// One entry for each that is feedline's own, unknown, or has a value that librdkafka refuses.
pub fn check(properties: &BTreeMap<String, String>) -> Result<(), Vec<Refused>> {
    check_each(properties, refusal)
}

fn check_each(properties: &BTreeMap<String, String>, refusal: fn(&str, &str) -> Option<String>) -> Result<(), Vec<Refused>> {
    let refused: Vec<Refused> =
        properties.iter().filter_map(|(name, value)| refusal(name, value).map(|reason| Refused { name: name.clone(), reason })).collect();
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

/// The known name that is most like this one.
fn nearest(name: &str, known: &[&'static str]) -> &'static str {
    let likeness = |known: &&&str| strsim::jaro_winkler(name, known);
    known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).copied().unwrap_or_default()
}

fn refusal(name: &str, value: &str) -> Option<String> {
    if let Some((_, why)) = OWNED.iter().find(|(owned, _)| *owned == name) {
        return Some(format!("cannot be set: {why}; leave it out"));
    }
    if name.starts_with(OWNED_PREFIX.0) {
        return Some(format!("cannot be set: {}; leave it out", OWNED_PREFIX.1));
    }
    let error = ClientConfig::new().set(name, value).create_native_config().err()?;
    Some(match error {
        KafkaError::ClientConfig(_, description, ..) if description.starts_with("No such") => {
            format!("is no property of librdkafka; did you mean \"{}\"?", nearest(name, COMMON))
        }
        KafkaError::ClientConfig(_, description, ..) => format!("is refused by librdkafka: {description}"),
        other => format!("is refused by librdkafka: {other}"),
    })
}

/// Settings of a topic (Kafka's `TopicConfig`, up to 4.1).
const OF_TOPICS: &[&str] = &[
    "cleanup.policy",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.downconversion.enable",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.difference.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
];

/// Checks the settings of topics that are made, all of them, without a broker: names, and the values that Kafka knows for the two that
/// say what becomes of events.
///
/// # Errors
/// One entry for each that no topic has, or that has a value which Kafka does not know.
pub fn check_topic(config: &BTreeMap<String, String>) -> Result<(), Vec<Refused>> {
    check_each(config, topic_refusal)
}

fn topic_refusal(name: &str, value: &str) -> Option<String> {
    if !OF_TOPICS.contains(&name) {
        return Some(format!("is no setting of a topic; did you mean \"{}\"?", nearest(name, OF_TOPICS)));
    }
    let is_policy = |policy: &str| matches!(policy.trim(), "delete" | "compact");
    match name {
        "cleanup.policy" if !value.split(',').all(is_policy) => {
            Some(format!("= {value:?}: expected \"delete\", \"compact\" or \"compact,delete\""))
        }
        "message.timestamp.type" if !matches!(value, "CreateTime" | "LogAppendTime") => {
            Some(format!("= {value:?}: expected \"CreateTime\" or \"LogAppendTime\""))
        }
        _ => {
            // What the last word of a name counts.
            let unit = match name.rsplit('.').next() {
                Some("ms") => "milliseconds",
                Some("bytes") => "bytes",
                _ => return None,
            };
            value.parse::<i64>().is_err().then(|| format!("= {value:?}: expected a number of {unit}"))
        }
    }
}

/// What a message costs in librdkafka beside its body, which stays in its batch: its own structure and its key,
/// and a list with an allocation for each header (malloc's own overhead included).
const fn message_bytes(headers: bool) -> usize {
    if headers { 512 } else { 256 }
}

/// The largest message that librdkafka takes.
pub(super) const LARGEST_BYTES: usize = 1_000_000_000;

/// The configuration of a session that sends up to `largest_bytes` in one message, and to topics that accept
/// `smallest_limit_bytes` at least.
pub(super) fn client(options: &Options, largest_bytes: usize, smallest_limit_bytes: usize) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::new();
    // The client's notices are read in `context`, those of its connections among them; without this the crate would follow another
    // logger's level.
    config.set_log_level(RDKafkaLogLevel::Debug);
    // A person may change these.
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
    let debug = options.properties.get("debug").map_or_else(|| trust::DEBUG.to_owned(), |asked| format!("{},{asked}", trust::DEBUG));
    config.set("debug", debug);
    if let Some(password) = &options.sasl_password {
        config.set("sasl.password", password.reveal());
    }
    if let Some(password) = &options.ssl_key_password {
        config.set("ssl.key.password", password.reveal());
    }
    // A broker refuses a batch that is larger than its topic's limit, however small its records.
    let batch_bytes = config.get("batch.size").and_then(|size| size.parse().ok()).unwrap_or(1_000_000).min(smallest_limit_bytes);
    config
        .set("bootstrap.servers", &*options.bootstrap_servers)
        // A broker that does not know a producer yet accepts any sequence number (Kafka's `ProducerAppendInfo.checkSequence`, KIP-360).
        // Where it refuses a partition's first request for a moment and accepts the second, librdkafka takes the first for stored
        // (`rd_kafka_dr_implicit_ack`). So no request is sent before the one in front of it is answered. A broker handles a
        // connection's requests one after the other in any case.
        .set("max.in.flight.requests.per.connection", "1")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("allow.auto.create.topics", "false")
        .set("batch.size", batch_bytes.max(1).to_string())
        .set("message.max.bytes", largest_bytes.clamp(1_000_000, LARGEST_BYTES).to_string())
        .set("queue.buffering.max.messages", (options.queue_bytes / message_bytes(options.headers)).max(1000).to_string())
        // It never ends by itself: see `flush`.
        .set("linger.ms", "900000")
        // Bodies lie in their batches and are bounded there.
        .set("queue.buffering.max.kbytes", i32::MAX.to_string());
    // Errors of librdkafka repeat the value: only its description goes on.
    config.create_native_config().map_err(|error| Error::Configuration {
        reason: match error {
            KafkaError::ClientConfig(_, description, name, _) => format!("\"{name}\": {description}"),
            other => other.to_string(),
        },
    })?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::{COMMON, OWNED, check, check_topic};
    use std::collections::BTreeMap;

    fn refusal(name: &str, value: &str) -> Option<String> {
        let refused = check(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        refused.err().map(|list| list[0].to_string())
    }

    #[test]
    fn properties_of_feedline_are_refused_with_the_reason() {
        for (name, why) in OWNED {
            assert_eq!(refusal(name, "1"), Some(format!("\"{name}\" cannot be set: {why}; leave it out")));
        }
        assert!(refusal("queue.buffering.max.messages", "1").unwrap().contains("pipeline.memory"));
    }

    #[test]
    fn all_errors_come_at_once_and_name_what_was_meant() {
        let properties = [("acks", "1"), ("compresion.type", "zstd"), ("linger.ms", "soon"), ("client.id", "me")];
        let refused = check(&properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into()).unwrap_err();
        assert_eq!(refused.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["acks", "compresion.type", "linger.ms"]);
        assert!(refused[1].reason.contains("did you mean \"compression.type\"?"), "{}", refused[1]);
    }

    #[test]
    fn a_topics_settings_are_those_that_kafka_knows() {
        let reason = |name: &str, value: &str| {
            check_topic(&BTreeMap::from([(name.to_owned(), value.to_owned())])).err().map(|refused| refused[0].to_string())
        };
        for (name, value) in [("cleanup.policy", "compact,delete"), ("retention.ms", "-1"), ("min.insync.replicas", "2")] {
            assert_eq!(reason(name, value), None);
        }
        for (name, value, words) in [
            ("cleanup.polisy", "compact", "did you mean \"cleanup.policy\"?"),
            ("retention", "1", "did you mean \"retention.ms\"?"),
            ("cleanup.policy", "compacted", "expected \"delete\", \"compact\""),
            ("retention.ms", "7d", "milliseconds"),
            ("message.timestamp.type", "append", "\"LogAppendTime\""),
        ] {
            assert!(reason(name, value).is_some_and(|reason| reason.contains(words)), "{name}={value}: {:?}", reason(name, value));
        }
    }

    #[test]
    fn what_is_suggested_exists_and_may_be_set() {
        for name in COMMON {
            let reason = refusal(name, "none of its values");
            assert!(
                !reason.as_ref().is_some_and(|reason| reason.contains("no property") || reason.contains("cannot be set")),
                "{reason:?}"
            );
        }
    }
}
