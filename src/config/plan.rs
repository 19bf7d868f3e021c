//! What a configuration comes to: every value typed, every default in place.

use crate::feed::resolve::FeedRule;
use crate::feed::route::Template;
use crate::net::secret::Secret;
use crate::net::{RequireAuth, Trust};
use crate::pipeline::OnGap;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A pipeline, ready to be assembled.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pipeline's name.
    pub name: Arc<str>,
    /// Hash of the settings on which the records of all tables depend: the format, and whether there are tombstones. The
    /// engine compares name and keys with those in the checkpoint, so that a new feed never changes this.
    pub configuration: String,
    /// The database.
    pub source: SourcePlan,
    /// What happens when its log no longer holds what comes next.
    pub on_gap: OnGap,
    /// The tables, as they are configured.
    pub feeds: Vec<FeedRule>,
    /// The sink.
    pub sink: SinkPlan,
    /// The template of destinations.
    pub topic: Template,
    /// Where the checkpoint is kept.
    pub checkpoint: CheckpointPlan,
    /// How often it is saved while events flow.
    pub checkpoint_interval: Duration,
    /// Room from the source's socket to the broker's confirmation.
    pub memory_bytes: usize,
    /// How long a stop waits for confirmations.
    pub shutdown_deadline: Duration,
    /// How long one snapshot is held while nothing is live yet.
    pub prefeed_slice: Duration,
    /// Sessions that read existing rows at once.
    pub prefeed_readers: usize,
    /// How fast existing rows are read; `None` is without a limit.
    pub prefeed_bytes_per_second: Option<NonZeroU64>,
    /// How long a start waits for what another instance holds.
    pub takeover_timeout: Duration,
    /// Where metrics and health are served; `None` for nowhere.
    pub admin: Option<SocketAddr>,
    /// How logs are written.
    pub log: LogPlan,
}

/// The database.
#[derive(Clone, Debug)]
pub enum SourcePlan {
    /// SQLite.
    Sqlite {
        /// The database file.
        path: PathBuf,
    },
    /// PostgreSQL.
    Postgres(Box<PostgresPlan>),
}

impl SourcePlan {
    /// The schema of a table pattern that names none.
    #[must_use]
    pub const fn default_schema(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "main",
            Self::Postgres(_) => "public",
        }
    }

    /// The backend's name in events and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }
}

/// How PostgreSQL is reached and what is made there.
#[derive(Clone, Debug)]
pub struct PostgresPlan {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// The role's password.
    pub password: Option<Secret>,
    /// Database.
    pub database: String,
    /// Encryption.
    pub trust: Trust,
    /// Which login is accepted where the server's certificate is not verified.
    pub require_auth: RequireAuth,
    /// Replication slot.
    pub slot: String,
    /// Publication.
    pub publication: String,
    /// Whether slot and publication are made where they are missing.
    pub manage: bool,
    /// Whether a column's stored default is left to the readers.
    pub ignores_added_defaults: bool,
}

/// The sink.
#[derive(Clone, Debug)]
pub enum SinkPlan {
    /// Kafka.
    Kafka(Box<KafkaPlan>),
    /// RabbitMQ.
    Amqp(Box<AmqpPlan>),
    /// Standard output, JSON lines.
    Stdout,
    /// A file, JSON lines.
    File {
        /// The file.
        path: PathBuf,
    },
}

impl SinkPlan {
    /// The sink's kind in metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "kafka",
            Self::Amqp(_) => "amqp",
            Self::Stdout => "stdout",
            Self::File { .. } => "file",
        }
    }

    /// What it promises, in metrics.
    #[must_use]
    pub const fn delivery(&self) -> &'static str {
        "at_least_once"
    }

    /// Whether deletes are followed by tombstones.
    #[must_use]
    pub fn tombstones(&self) -> bool {
        match self {
            Self::Kafka(kafka) => kafka.tombstones,
            Self::Amqp(_) | Self::Stdout | Self::File { .. } => false,
        }
    }
}

/// Where the checkpoint is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointPlan {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
    },
    /// In the sink's broker: in a topic or a queue of its own.
    Broker {
        /// Its name.
        place: String,
    },
}

impl CheckpointPlan {
    /// As messages name it.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::File { path } => path.display().to_string(),
            Self::Broker { place } => format!("{place} in the broker"),
        }
    }
}

/// How Kafka is reached.
#[derive(Clone, Debug)]
pub struct KafkaPlan {
    /// Brokers to begin with.
    pub bootstrap_servers: String,
    /// Whether records carry headers.
    pub headers: bool,
    /// Whether deletes are followed by tombstones.
    pub tombstones: bool,
    /// Whether records carry the time of their arrival, and not of their commit.
    pub is_stamped_on_arrival: bool,
    /// How topics are made; `None`: none are made.
    pub create_topics: Option<CreateTopicsPlan>,
    /// The topic of events that their own does not accept; `None` stops at the first.
    pub dead_letter: Option<Arc<str>>,
    /// Passed on to librdkafka.
    pub properties: BTreeMap<String, String>,
    /// SASL password.
    pub sasl_password: Option<Secret>,
    /// Password of the client's private key.
    pub ssl_key_password: Option<Secret>,
}

/// How topics are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopicsPlan {
    /// Partitions of each.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication: i32,
    /// Their settings, by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// How RabbitMQ is reached, and what is made there.
#[derive(Clone, Debug)]
pub struct AmqpPlan {
    /// Host names or addresses with their ports, in the order in which they are tried.
    pub hosts: Vec<(String, u16)>,
    /// Encryption.
    pub trust: Trust,
    /// Whether the broker knows the user by the client's certificate.
    pub external: bool,
    /// User.
    pub user: String,
    /// The user's password.
    pub password: Option<Secret>,
    /// Virtual host.
    pub vhost: String,
    /// The topic exchange.
    pub exchange: String,
    /// Whether it is made where it is missing.
    pub declare: bool,
    /// The exchange, and its queue, of events that no queue takes; `None` stops at the first.
    pub dead_letter: Option<Arc<str>>,
    /// Queues that are made and bound.
    pub queues: Vec<QueuePlan>,
    /// What is kept of the order when an event is refused.
    pub ordering: AmqpOrdering,
    /// The management API: host, port, and whether it is encrypted.
    pub management: Option<(String, u16, bool)>,
    /// How many events may wait for their confirms.
    pub window: usize,
}

/// A queue that is made and bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePlan {
    /// Its name.
    pub name: String,
    /// Its binding keys.
    pub keys: Vec<String>,
    /// Its type.
    pub kind: QueueType,
}

/// The type of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated.
    Quorum,
    /// On one node.
    Classic,
    /// A log that is read and not consumed.
    Stream,
}

/// What is kept of the order on RabbitMQ when an event is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmqpOrdering {
    /// All from the refused event on are sent again; those after it may have been stored before.
    GoBack,
    /// No event is sent while an earlier one of its key is unconfirmed.
    PerKey,
}

/// How logs are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlan {
    /// As what.
    pub format: LogFormat,
    /// Filter directives.
    pub level: String,
}

/// As what logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// Lines for people.
    Pretty,
}
