//! Why records do not reach Kafka.

use super::identity::unresolved;
use crate::fault::{Classify, Code, Fault};
use rdkafka::metadata::Metadata;
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
    /// The brokers call themselves by a name that is not known here.
    #[error(
        "a broker of {servers} calls itself {name}, a name that is not known here: make it known, or correct the broker's advertised.listeners"
    )]
    Unresolved {
        /// The configured brokers.
        servers: String,
        /// The name.
        name: String,
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
    #[error("{} missing: {}; create {} or set `sink.create_topics`:{}", topics_are(topics), topics.join(", "), them(topics), commands(servers, topics, *brokers))]
    TopicsMissing {
        /// The configured brokers.
        servers: String,
        /// Their names.
        topics: Vec<String>,
        /// The brokers that are there; 0 where that is not known.
        brokers: usize,
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
    /// There are not enough brokers for a topic's replicas, as while they start.
    #[error(
        "create topic {topic}: its {replication} replicas need as many brokers, and {brokers} are there; it is tried again: start the others, or \
         lower `sink.create_topics.replication`"
    )]
    BrokersMissing {
        /// Its name.
        topic: String,
        /// The replicas that are asked for.
        replication: i32,
        /// The brokers that are there.
        brokers: usize,
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
    /// A record is older than its topic accepts.
    #[error(
        "record {id} of table {table} was committed {hours} hours ago, topic {topic} accepts {limit_ms} ms (message.timestamp.before.max.ms): raise \
         that, or set sink.timestamp = \"append\""
    )]
    TooOld {
        /// The topic.
        topic: String,
        /// `schema.table`.
        table: String,
        /// The record's id.
        id: String,
        /// How long ago.
        hours: i64,
        /// How long ago it may be.
        limit_ms: i64,
    },
    /// A request of several records was larger than its topic accepts; each of them may fit.
    #[error("topic {topic} takes smaller requests than it did; they are made smaller, and records are sent again")]
    BatchTooLarge {
        /// The topic.
        topic: String,
    },
    /// The broker lacks what the client's settings ask for.
    #[error(
        "the brokers of topic {topic} do not support what is asked: {reason}; check \"compression.type\" and other `sink.properties`, or update the brokers"
    )]
    Unsupported {
        /// The topic.
        topic: String,
        /// The broker's words.
        reason: String,
    },
    /// Another cluster than the one whose topics were verified.
    #[error(
        "another Kafka cluster stands behind the address: {now}, and not {known}: what was sent there is missing here; point the pipeline back, \
         or begin anew here after `feedline checkpoint reset` and `feedline detach`"
    )]
    Foreign {
        /// The cluster of the topics.
        known: String,
        /// The one that answers.
        now: String,
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

/// How many replicas a topic is advised to have: three, or as many as there are brokers.
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

    /// What a message's delivery error says of the session. What is not named here passes: the broker is busy, in an election, away, or
    /// out of disk; a time-out; a producer that the broker has forgotten; a topic that it has not heard of, or no more, of which the
    /// next session finds out. `docs/kafka.md` has a table for people.
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

    /// Why a topic was not created. A person is asked only where asking the cluster again gives the same answer.
    pub(super) fn of_creation(code: RDKafkaErrorCode, topic: &str, replication: i32, reason: String) -> Self {
        use RDKafkaErrorCode as Is;
        let topic = topic.to_owned();
        match code {
            Is::TopicAuthorizationFailed | Is::ClusterAuthorizationFailed => {
                Self::Privilege { action: format!("create topic {topic}"), reason }
            }
            // Brokers count when they have started.
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

    /// Says what the brokers' own words about themselves explain of it.
    pub(super) fn of_brokers(self, servers: &str, seen: &Metadata) -> Self {
        match self {
            Self::BrokersMissing { topic, replication, .. } => Self::BrokersMissing { topic, replication, brokers: seen.brokers().len() },
            Self::Unconfirmed { reason } => match unresolved(seen.brokers()) {
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
