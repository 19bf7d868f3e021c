//! Why records do not reach Kafka.

use crate::fault::{Classify, Code, Fault};
use rdkafka::types::RDKafkaErrorCode;

/// Why a session with Kafka could not be opened or go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No broker answered in time.
    #[error("no broker of {servers} can be reached: {reason}; check `sink.bootstrap_servers`, the network and the brokers")]
    Unreachable {
        /// The configured brokers.
        servers: String,
        /// What the client saw last.
        reason: String,
    },
    /// The user or its password was refused.
    #[error(
        "the broker refused the user: {reason}; check \"sasl.mechanism\" and \"sasl.username\" in `sink.properties`, and `sink.sasl_password_file`"
    )]
    Authentication {
        /// The broker's words.
        reason: String,
    },
    /// A certificate was refused.
    #[error("TLS with the broker failed: {reason}; check \"security.protocol\" and the \"ssl.*\" files in `sink.properties`")]
    Tls {
        /// The client's words.
        reason: String,
    },
    /// The user lacks a privilege.
    #[error(
        "the broker's user may not {action}: {reason}; grant Describe and Write on its topics, IdempotentWrite on the cluster, and Create where feedline makes topics"
    )]
    Privilege {
        /// What was tried.
        action: String,
        /// The broker's words.
        reason: String,
    },
    /// Topics do not exist, and `create_topics` is not configured, or one vanished.
    #[error("{} missing: {}; create {} or set `sink.create_topics`:{}", topics_are(topics), topics.join(", "), them(topics), commands(servers, topics))]
    TopicsMissing {
        /// The configured brokers.
        servers: String,
        /// Their names.
        topics: Vec<String>,
    },
    /// A topic's name breaks Kafka's rules.
    #[error("table {table} would go to the topic \"{topic}\": {rule}; change `topic` of the feed or of the sink")]
    TopicName {
        /// `schema.table`.
        table: String,
        /// The name.
        topic: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A topic could not be created.
    #[error("create topic {topic}: {reason}; check `sink.create_topics` against the cluster, or create the topic by hand")]
    NotCreated {
        /// Its name.
        topic: String,
        /// The broker's words.
        reason: String,
    },
    /// A record is larger than its topic accepts.
    #[error(
        "record {id} of table {table} has {size_bytes} bytes, topic {topic} accepts {limit_bytes}; raise the topic's max.message.bytes to {size_bytes} at least (and the consumers' fetch sizes), leave the table out, or let such events go to the dead letters (sink.on_unpublishable = \"dead_letter\")"
    )]
    TooLarge {
        /// The topic.
        topic: String,
        /// `schema.table`.
        table: String,
        /// The record's id.
        id: String,
        /// What it needs, with headers and framing.
        size_bytes: usize,
        /// What the topic accepts.
        limit_bytes: usize,
    },
    /// The broker refused a record for what it is.
    #[error(
        "topic {topic} refused a record: {reason}; compare the topic's configuration with the records (compaction, timestamps, size), or let such events go to the \
         dead letters (sink.on_unpublishable = \"dead_letter\")"
    )]
    Refused {
        /// The topic.
        topic: String,
        /// The broker's words.
        reason: String,
    },
    /// Records were not confirmed; the next session sends them again.
    #[error("records were not confirmed: {reason}; they are sent again")]
    Unconfirmed {
        /// What the client reported first.
        reason: String,
    },
    /// The client library refused its settings.
    #[error("the Kafka client refused its settings: {reason}; check `sink.properties`")]
    Configuration {
        /// Its words.
        reason: String,
    },
}

const fn topics_are(topics: &[String]) -> &'static str {
    if topics.len() == 1 { "a topic is" } else { "topics are" }
}

const fn them(topics: &[String]) -> &'static str {
    if topics.len() == 1 { "it" } else { "them" }
}

fn commands(servers: &str, topics: &[String]) -> String {
    use std::fmt::Write as _;
    topics.iter().fold(String::new(), |mut lines, topic| {
        let _infallible = write!(
            lines,
            "\n  kafka-topics.sh --bootstrap-server {servers} --create --topic {topic} --partitions 3 --replication-factor 3"
        );
        lines
    })
}

impl Error {
    /// Why an idempotent producer gave up: among others where it is given no id, for which `IdempotentWrite` is needed, or Write on
    /// any topic.
    pub(super) fn of_giving_up(code: RDKafkaErrorCode, reason: String) -> Self {
        match code {
            RDKafkaErrorCode::ClusterAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed => {
                Self::Privilege { action: "write idempotently".to_owned(), reason }
            }
            _ => Self::Unconfirmed { reason },
        }
    }

    /// What a message's delivery error says of the session.
    pub(super) fn of_delivery(code: RDKafkaErrorCode, topic: &str, servers: &str) -> Self {
        use RDKafkaErrorCode as Is;
        let (topic, reason) = (topic.to_owned(), code.to_string());
        match code {
            Is::MessageSizeTooLarge
            | Is::InvalidMessageSize
            | Is::InvalidRecord
            | Is::InvalidDifferentRecord
            | Is::InvalidTimestamp
            | Is::UnsupportedForMessageFormat
            | Is::PolicyViolation => Self::Refused { topic, reason },
            Is::TopicAuthorizationFailed => Self::Privilege { action: format!("write to topic {topic}"), reason },
            Is::ClusterAuthorizationFailed => Self::Privilege { action: "write idempotently to the cluster".to_owned(), reason },
            Is::Authentication | Is::SaslAuthenticationFailed => Self::Authentication { reason },
            Is::UnknownTopic | Is::UnknownTopicOrPartition | Is::InvalidTopic => {
                Self::TopicsMissing { servers: servers.to_owned(), topics: vec![topic] }
            }
            _ => Self::Unconfirmed { reason: format!("{reason} (topic {topic})") },
        }
    }
}

impl Classify for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. } | Self::Unconfirmed { .. } => Fault::Transient,
            Self::Authentication { .. }
            | Self::Tls { .. }
            | Self::Privilege { .. }
            | Self::TopicsMissing { .. }
            | Self::TopicName { .. }
            | Self::NotCreated { .. }
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::Configuration { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } => Code::SinkUnreachable,
            Self::Authentication { .. } => Code::SinkAuthentication,
            Self::Tls { .. } => Code::SinkTls,
            Self::Privilege { .. } => Code::SinkPrivilege,
            Self::TopicsMissing { .. } => Code::TopicMissing,
            Self::TopicName { .. } => Code::DestinationInvalid,
            Self::NotCreated { .. } => Code::TopicNotCreated,
            Self::TooLarge { .. } => Code::RecordTooLarge,
            Self::Refused { .. } => Code::RecordRefused,
            Self::Unconfirmed { .. } => Code::RecordsUnconfirmed,
            Self::Configuration { .. } => Code::SinkConfiguration,
        }
    }
}
