//! The typed configuration, with all defaults filled in.

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

/// The configuration of a pipeline.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pipeline's name.
    pub name: Arc<str>,
    /// Hash of the settings that shape the records of every table: format and tombstones. Feeds are not part of it: the engine compares
    /// their names and keys with the checkpoint itself.
    pub configuration: String,
    /// The database.
    pub source: SourcePlan,
    /// What to do if the log no longer holds the next changes.
    pub on_gap: OnGap,
    /// The feeds, as configured.
    pub feeds: Vec<FeedRule>,
    /// The sink.
    pub sink: SinkPlan,
    /// The format of events.
    pub format: FormatPlan,
    /// The template of topics or routing keys.
    pub topic: Template,
    /// Where the checkpoint is stored.
    pub checkpoint: CheckpointPlan,
    /// How often the checkpoint is saved while events flow.
    pub checkpoint_interval: Duration,
    /// Memory for events from the source's socket to the broker's confirmation.
    pub memory_bytes: usize,
    /// How long a stop waits for confirmations.
    pub shutdown_deadline: Duration,
    /// How long one snapshot is held while no feed is live.
    pub prefeed_slice: Duration,
    /// Number of sessions that read existing rows in parallel.
    pub prefeed_readers: usize,
    /// Limit of the rate at which existing rows are read; `None` for no limit.
    pub prefeed_bytes_per_second: Option<NonZeroU64>,
    /// How long to wait for a slot, lock or queue that another instance holds.
    pub takeover_timeout: Duration,
    /// Address of the HTTP server for metrics and health; `None` for no server.
    pub admin: Option<SocketAddr>,
    /// Logging.
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
    /// The schema of a table pattern without a schema.
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

/// Connection to PostgreSQL, and objects that are created there.
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
    /// TLS.
    pub trust: Trust,
    /// Weakest login that is accepted from a server whose certificate is not verified.
    pub require_auth: RequireAuth,
    /// Replication slot.
    pub slot: String,
    /// Publication.
    pub publication: String,
    /// Whether missing slot and publication are created.
    pub manage: bool,
    /// Whether a table is not read again after a column was added with a default.
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

    /// The delivery guarantee, in metrics.
    #[must_use]
    pub const fn delivery(&self) -> &'static str {
        "at_least_once"
    }

    /// Whether a tombstone follows each delete.
    #[must_use]
    pub fn tombstones(&self) -> bool {
        match self {
            Self::Kafka(kafka) => kafka.tombstones,
            Self::Amqp(_) | Self::Stdout | Self::File { .. } => false,
        }
    }
}

/// The format of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatPlan {
    /// feedline's own JSON.
    Json,
    /// CloudEvents, attributes in headers.
    CloudEventsBinary,
    /// CloudEvents, attributes in the body.
    CloudEventsStructured,
}

impl FormatPlan {
    /// What the checkpoint's hash says of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::CloudEventsBinary => "cloudevents binary",
            Self::CloudEventsStructured => "cloudevents structured",
        }
    }
}

/// Where the checkpoint is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointPlan {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
    },
    /// In the sink's broker, in its own topic or queue.
    Broker {
        /// The name of the topic or queue.
        name: String,
    },
}

impl CheckpointPlan {
    /// The file or broker object, for messages.
    #[must_use]
    pub fn location(&self) -> String {
        match self {
            Self::File { path } => path.display().to_string(),
            Self::Broker { name } => format!("{name} in the broker"),
        }
    }
}

/// Connection to Kafka, and the form of records.
#[derive(Clone, Debug)]
pub struct KafkaPlan {
    /// Bootstrap servers.
    pub bootstrap_servers: String,
    /// Whether records carry headers.
    pub headers: bool,
    /// Whether a tombstone follows each delete.
    pub tombstones: bool,
    /// Whether a record's timestamp is the time of its arrival instead of the commit time.
    pub is_stamped_on_arrival: bool,
    /// How missing topics are created; `None` if they are not.
    pub create_topics: Option<CreateTopicsPlan>,
    /// The dead-letter topic; `None` if the first rejected event stops the pipeline.
    pub dead_letter: Option<Arc<str>>,
    /// Properties for librdkafka.
    pub properties: BTreeMap<String, String>,
    /// SASL password.
    pub sasl_password: Option<Secret>,
    /// Password of the client's private key.
    pub ssl_key_password: Option<Secret>,
}

/// How missing topics are created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopicsPlan {
    /// Partitions of each.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication: i32,
    /// Topic settings, by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// Connection to RabbitMQ, and objects that are created there.
#[derive(Clone, Debug)]
pub struct AmqpPlan {
    /// Hosts and ports, in the order in which they are tried.
    pub hosts: Vec<(String, u16)>,
    /// TLS.
    pub trust: Trust,
    /// Whether the client certificate identifies the user (SASL EXTERNAL).
    pub external: bool,
    /// User.
    pub user: String,
    /// The user's password.
    pub password: Option<Secret>,
    /// Virtual host.
    pub vhost: String,
    /// The topic exchange.
    pub exchange: String,
    /// Whether a missing exchange is declared.
    pub declare: bool,
    /// The dead-letter exchange and queue; `None` if the first unroutable event stops the pipeline.
    pub dead_letter: Option<Arc<str>>,
    /// Queues to declare and bind.
    pub queues: Vec<QueuePlan>,
    /// The order of events after one is refused.
    pub ordering: AmqpOrdering,
    /// The management API: host, port, and whether it is encrypted.
    pub management: Option<(String, u16, bool)>,
    /// Maximum number of unconfirmed events.
    pub window: usize,
}

/// A queue to declare and bind.
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
    /// An append-only log: reading does not remove messages.
    Stream,
}

/// The order of events on RabbitMQ after one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmqpOrdering {
    /// The refused event and all later ones are sent again. Later ones may have been stored before it.
    GoBack,
    /// No event is sent while an earlier one of the same key is unconfirmed.
    PerKey,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlan {
    /// The format of log lines.
    pub format: LogFormat,
    /// Filter directives.
    pub level: String,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `Pretty` on a terminal, else `Json`.
    Auto,
    /// One JSON object per line.
    Json,
    /// Human-readable lines.
    Pretty,
}
