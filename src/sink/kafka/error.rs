//! Errors of the Kafka sink, and what each of Kafka's error codes means for a session.

use super::hosts::unresolved;
use crate::fault::{Classify, Code, Fault};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode;

/// Why a session with Kafka could not be opened, or could not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No broker answered in time.
    #[error("no broker of {servers} can be reached: {reason}; check `sink.bootstrap_servers` and the network")]
    Unreachable {
        /// The configured brokers.
        servers: String,
        /// The client's last error.
        reason: String,
    },
    /// A broker advertises a host name that does not resolve on this machine.
    #[error(
        "a broker of {servers} advertises the host {name}, which does not resolve here; add it to DNS, or correct advertised.listeners"
    )]
    Unresolved {
        /// The configured brokers.
        servers: String,
        /// The host name.
        name: String,
    },
    /// The user or its password was refused.
    #[error("the broker refused the user: {reason}; check \"sasl.mechanism\", \"sasl.username\" and `sink.sasl_password_file`")]
    Authentication {
        /// The broker's message.
        reason: String,
    },
    /// A certificate was refused.
    #[error("TLS with the broker failed: {reason}; check \"security.protocol\" and the \"ssl.*\" files in `sink.properties`")]
    Tls {
        /// The client's message.
        reason: String,
    },
    /// The user lacks a privilege.
    #[error("the broker's user may not {action}: {reason}; grant Describe and Write on topics (Create to make them), and IdempotentWrite")]
    Privilege {
        /// What was tried.
        action: String,
        /// The broker's message.
        reason: String,
    },
    /// Topics do not exist and `create_topics` is not configured, or a topic was deleted.
    #[error(
        "{} missing: {}; create {}, or set `sink.create_topics`:{}",
        topics_are(topics),
        topics.join(", "),
        them(topics),
        commands(servers, topics, *brokers)
    )]
    TopicsMissing {
        /// The configured brokers.
        servers: String,
        /// The topics' names.
        topics: Vec<String>,
        /// How many brokers the cluster has; 0 if unknown.
        brokers: usize,
    },
    /// A topic's name breaks Kafka's rules.
    #[error("table {table} cannot go to topic \"{topic}\": {rule}; change `topic` of the feed or of the sink")]
    TopicName {
        /// `schema.table`.
        table: String,
        /// The topic's name.
        topic: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A topic could not be created.
    #[error("topic {topic} could not be created: {reason}; check `sink.create_topics`, or create the topic by hand")]
    NotCreated {
        /// The topic.
        topic: String,
        /// The broker's message.
        reason: String,
    },
    /// The cluster has fewer brokers than a new topic needs. This may pass: brokers may still be starting.
    #[error(
        "topic {topic} was not created: {replication} replicas need as many brokers, {brokers} are there; start more, or lower \
         `sink.create_topics.replication`"
    )]
    BrokersMissing {
        /// The topic.
        topic: String,
        /// The configured number of replicas.
        replication: i32,
        /// How many brokers the cluster has.
        brokers: usize,
    },
    /// A record is larger than its topic accepts.
    #[error(
        "record {id} of table {table} has {size_bytes} bytes, topic {topic} accepts {limit_bytes}; raise its max.message.bytes, or set \
         sink.on_unpublishable = \"dead_letter\""
    )]
    TooLarge {
        /// The topic.
        topic: String,
        /// `schema.table`.
        table: String,
        /// The record's id.
        id: String,
        /// The record's size with headers and framing.
        size_bytes: usize,
        /// The topic's limit.
        limit_bytes: usize,
    },
    /// The broker refused a record because of its contents.
    #[error(
        "topic {topic} refused a record: {reason}; compare its configuration with the record, or set sink.on_unpublishable = \"dead_letter\""
    )]
    Refused {
        /// The topic.
        topic: String,
        /// The broker's message.
        reason: String,
    },
    /// A record is older than its topic accepts.
    #[error(
        "record {id} of table {table} was committed {hours} hours ago, topic {topic} accepts {limit_ms} ms \
         (message.timestamp.before.max.ms); set sink.timestamp = \"append\""
    )]
    TooOld {
        /// The topic.
        topic: String,
        /// `schema.table`.
        table: String,
        /// The record's id.
        id: String,
        /// The record's age.
        hours: i64,
        /// The age that the topic accepts.
        limit_ms: i64,
    },
    /// A request of several records was larger than its topic accepts. Each of the records may be small enough.
    #[error("topic {topic} refused a request for its size; the records are sent again in smaller requests")]
    BatchTooLarge {
        /// The topic.
        topic: String,
    },
    /// The broker does not support what the client's settings ask for.
    #[error(
        "the brokers of topic {topic} lack a feature: {reason}; check \"compression.type\" in `sink.properties`, or update the brokers"
    )]
    Unsupported {
        /// The topic.
        topic: String,
        /// The broker's message.
        reason: String,
    },
    /// The cluster is not the one whose topics were verified.
    #[error("another Kafka cluster answers at this address: {now}, not {known}, which has what was sent before; point the pipeline back")]
    Foreign {
        /// The id of the known cluster.
        known: String,
        /// The id of the cluster that answers.
        now: String,
    },
    /// Records were not confirmed. The next session sends them again.
    #[error("records were not confirmed: {reason}; they are sent again")]
    Unconfirmed {
        /// The first error that the client reported.
        reason: String,
    },
    /// The client library refused its settings.
    #[error("the Kafka client refused its settings: {reason}; check `sink.properties`")]
    Configuration {
        /// The library's message.
        reason: String,
    },
}

const fn topics_are(topics: &[String]) -> &'static str {
    if topics.len() == 1 { "a topic is" } else { "topics are" }
}

const fn them(topics: &[String]) -> &'static str {
    if topics.len() == 1 { "it" } else { "them" }
}

/// The number of replicas that a message recommends for a topic: three, or as many as there are brokers.
pub(super) const fn replicas_for(brokers: usize) -> usize {
    if 1 <= brokers && brokers < 3 { brokers } else { 3 }
}

fn commands(servers: &str, topics: &[String], brokers: usize) -> String {
    use std::fmt::Write as _;
    topics.iter().fold(String::new(), |mut lines, topic| {
        let _infallible = write!(
            lines,
            "\n  kafka-topics.sh --bootstrap-server {servers} --create --topic {topic} --partitions 3 --replication-factor {}",
            replicas_for(brokers)
        );
        lines
    })
}

impl Error {
    /// The error for a fatal error of the idempotent producer. One cause is that the broker gives it no producer id, for which the user
    /// needs `IdempotentWrite`, or Write on any topic.
    pub(super) fn of_fatal(code: RDKafkaErrorCode, reason: String) -> Self {
        match code {
            RDKafkaErrorCode::ClusterAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed => {
                Self::Privilege { action: "write idempotently".to_owned(), reason }
            }
            _ => Self::Unconfirmed { reason },
        }
    }

    /// The error for a failed delivery. Every code that is not listed here is transient: the broker is busy, in an election,
    /// away or out of disk; a timeout; a producer that the broker has forgotten; a topic that the broker does not know, which
    /// the next session looks at. The table for users is in `docs/kafka.md`.
    pub(super) fn of_delivery(code: RDKafkaErrorCode, topic: &str) -> Self {
        use RDKafkaErrorCode as Is;
        let (topic, reason) = (topic.to_owned(), code.to_string());
        match code {
            Is::MessageSizeTooLarge
            | Is::InvalidMessageSize
            | Is::InvalidRecord
            | Is::InvalidDifferentRecord
            | Is::InvalidTimestamp
            | Is::PolicyViolation => Self::Refused { topic, reason },
            Is::UnsupportedForMessageFormat | Is::UnsupportedCompressionType | Is::UnsupportedVersion => {
                Self::Unsupported { topic, reason }
            }
            Is::TopicAuthorizationFailed => Self::Privilege { action: format!("write to topic {topic}"), reason },
            Is::ClusterAuthorizationFailed => Self::Privilege { action: "write idempotently to the cluster".to_owned(), reason },
            Is::Authentication | Is::SaslAuthenticationFailed => Self::Authentication { reason },
            _ => Self::Unconfirmed { reason: format!("{reason} (topic {topic})") },
        }
    }

    /// The error for a topic that was not created. It is fatal only where another attempt would get the same answer.
    pub(super) fn of_creation(code: RDKafkaErrorCode, topic: &str, replication: i32, reason: String) -> Self {
        use RDKafkaErrorCode as Is;
        let topic = topic.to_owned();
        match code {
            Is::TopicAuthorizationFailed | Is::ClusterAuthorizationFailed => {
                Self::Privilege { action: format!("create topic {topic}"), reason }
            }
            // Brokers that are still starting are not counted yet.
            Is::InvalidReplicationFactor => Self::BrokersMissing { topic, replication, brokers: 0 },
            Is::InvalidTopic
            | Is::InvalidPartitions
            | Is::InvalidReplicaAssignment
            | Is::InvalidConfig
            | Is::PolicyViolation
            | Is::UnsupportedVersion => Self::NotCreated { topic, reason },
            _ => Self::Unconfirmed { reason: format!("create topic {topic}: {reason}") },
        }
    }

    /// Adds what the cluster's metadata says about the cause: the number of brokers, or a host name that does not resolve.
    pub(super) fn with_metadata(self, servers: &str, metadata: &Metadata) -> Self {
        match self {
            Self::BrokersMissing { topic, replication, .. } => {
                Self::BrokersMissing { topic, replication, brokers: metadata.brokers().len() }
            }
            Self::Unconfirmed { reason } => match unresolved(metadata.brokers()) {
                Some(name) => Self::Unresolved { servers: servers.to_owned(), name: name.to_owned() },
                None => Self::Unconfirmed { reason },
            },
            other => other,
        }
    }
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. }
            | Self::Unresolved { .. }
            | Self::BrokersMissing { .. }
            | Self::BatchTooLarge { .. }
            | Self::Unconfirmed { .. } => Fault::Transient,
            Self::Foreign { .. } => Fault::Gap,
            Self::Authentication { .. }
            | Self::Tls { .. }
            | Self::Privilege { .. }
            | Self::TopicsMissing { .. }
            | Self::TopicName { .. }
            | Self::NotCreated { .. }
            | Self::TooLarge { .. }
            | Self::TooOld { .. }
            | Self::Refused { .. }
            | Self::Unsupported { .. }
            | Self::Configuration { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } | Self::Unresolved { .. } => Code::SinkUnreachable,
            Self::Authentication { .. } => Code::SinkAuthentication,
            Self::Tls { .. } => Code::SinkTls,
            Self::Privilege { .. } => Code::SinkPrivilege,
            Self::TopicsMissing { .. } => Code::TopicMissing,
            Self::TopicName { .. } => Code::DestinationInvalid,
            Self::NotCreated { .. } | Self::BrokersMissing { .. } => Code::TopicNotCreated,
            Self::TooLarge { .. } => Code::RecordTooLarge,
            Self::Refused { .. } | Self::TooOld { .. } => Code::RecordRefused,
            Self::Unconfirmed { .. } | Self::BatchTooLarge { .. } => Code::RecordsUnconfirmed,
            Self::Foreign { .. } => Code::SinkForeign,
            Self::Configuration { .. } | Self::Unsupported { .. } => Code::SinkConfiguration,
        }
    }
}
