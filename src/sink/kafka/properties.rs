//! Checks the operator's properties for librdkafka, and settings for new topics.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;

/// Properties that cannot be set, and why.
const OWNED: &[(&str, &str)] = &[
    ("acks", "every record is confirmed by all replicas in sync"),
    ("request.required.acks", "every record is confirmed by all replicas in sync"),
    ("enable.idempotence", "it is always on, so that retries neither repeat nor reorder records"),
    ("enable.gapless.guarantee", "feedline itself goes back to the first unconfirmed record"),
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
    ("delivery.report.only.error", "feedline needs every delivery report"),
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
    ("log_level", "the log level is the setting `log.level`"),
    ("log.queue", "feedline reads the client's log itself"),
    ("opaque", "it is a pointer that feedline sets"),
];

/// Properties with this prefix cannot be set: the queue's bounds follow `pipeline.memory`. One of them is an alias of `linger.ms`, which can.
const OWNED_PREFIX: (&str, &str) = ("queue.buffering.", "the client's queue is bounded by `pipeline.memory`; \"linger.ms\" may be set");

/// Common properties. An unknown name is compared with them, to suggest what was meant.
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

/// Checks all properties of the operator. Contacts no broker.
///
/// # Errors
/// One entry for each property that feedline sets itself, that is unknown, or whose value librdkafka refuses.
pub fn check(properties: &BTreeMap<String, String>) -> Result<(), Vec<Refused>> {
    check_each(properties, refusal)
}

fn check_each(properties: &BTreeMap<String, String>, refusal: fn(&str, &str) -> Option<String>) -> Result<(), Vec<Refused>> {
    let refused: Vec<Refused> =
        properties.iter().filter_map(|(name, value)| refusal(name, value).map(|reason| Refused { name: name.clone(), reason })).collect();
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

/// The known name that is most similar to this one.
fn nearest(name: &str, known: &[&'static str]) -> &'static str {
    let similarity = |known: &&&str| strsim::jaro_winkler(name, known);
    known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b))).copied().unwrap_or_default()
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
            format!("is not a property of librdkafka; did you mean \"{}\"?", nearest(name, COMMON))
        }
        KafkaError::ClientConfig(_, description, ..) => format!("is refused by librdkafka: {description}"),
        other => format!("is refused by librdkafka: {other}"),
    })
}

/// Settings that a topic can have (Kafka's `TopicConfig`, up to 4.1).
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

/// Checks all settings for new topics: their names, the type of numbers, and the values of `cleanup.policy` and
/// `message.timestamp.type`. Contacts no broker.
///
/// # Errors
/// One entry for each setting that no topic has, or whose value Kafka does not know.
pub fn check_topic(config: &BTreeMap<String, String>) -> Result<(), Vec<Refused>> {
    check_each(config, topic_refusal)
}

fn topic_refusal(name: &str, value: &str) -> Option<String> {
    if !OF_TOPICS.contains(&name) {
        return Some(format!("is not a setting of a topic; did you mean \"{}\"?", nearest(name, OF_TOPICS)));
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
            // The last part of a name is its unit.
            let unit = match name.rsplit('.').next() {
                Some("ms") => "milliseconds",
                Some("bytes") => "bytes",
                _ => return None,
            };
            value.parse::<i64>().is_err().then(|| format!("= {value:?}: expected a number of {unit}"))
        }
    }
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
    fn properties_that_feedline_sets_are_refused_with_the_reason() {
        for (name, why) in OWNED {
            assert_eq!(refusal(name, "1"), Some(format!("\"{name}\" cannot be set: {why}; leave it out")));
        }
        assert!(refusal("queue.buffering.max.messages", "1").unwrap().contains("pipeline.memory"));
    }

    #[test]
    fn all_errors_are_returned_at_once_and_suggest_a_name() {
        let properties = [("acks", "1"), ("compresion.type", "zstd"), ("linger.ms", "soon"), ("client.id", "me")];
        let refused = check(&properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into()).unwrap_err();
        assert_eq!(refused.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["acks", "compresion.type", "linger.ms"]);
        assert!(refused[1].reason.contains("did you mean \"compression.type\"?"), "{}", refused[1]);
    }

    #[test]
    fn only_settings_of_a_topic_are_accepted() {
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
    fn suggested_properties_exist_and_can_be_set() {
        for name in COMMON {
            let reason = refusal(name, "none of its values");
            assert!(
                !reason.as_ref().is_some_and(|reason| reason.contains("not a property") || reason.contains("cannot be set")),
                "{reason:?}"
            );
        }
    }
}
