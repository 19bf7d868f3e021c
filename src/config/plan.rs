//! The typed configuration, with all defaults filled in.

use crate::pipeline::Settings;
#[cfg(feature = "amqp")]
use crate::sink::amqp;
#[cfg(feature = "kafka")]
use crate::sink::kafka;
use crate::sink::stdout::{self, Target};
#[cfg(feature = "mongodb")]
use crate::source::mongodb;
#[cfg(feature = "mysql")]
use crate::source::mysql;
#[cfg(feature = "postgres")]
use crate::source::postgres;
#[cfg(feature = "rethinkdb")]
use crate::source::rethinkdb;
#[cfg(feature = "sqlite")]
use crate::source::sqlite;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The configuration of a pipeline: the settings of the engine, and the options of the adapters that were chosen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The settings of the engine.
    pub pipeline: Settings,
    /// The database.
    pub source: SourcePlan,
    /// The sink.
    pub sink: SinkPlan,
    /// Where the checkpoint is stored.
    pub checkpoint: CheckpointPlan,
    /// Address of the HTTP server for metrics and health; `None` for no server.
    pub admin: Option<SocketAddr>,
    /// Logging.
    pub log: LogPlan,
}

/// The database.
#[derive(Clone, Debug)]
pub enum SourcePlan {
    /// SQLite.
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Options),
    /// PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(Box<postgres::Options>),
    /// MySQL or MariaDB.
    #[cfg(feature = "mysql")]
    MySql(Box<mysql::Options>),
    /// MongoDB.
    #[cfg(feature = "mongodb")]
    MongoDb(Box<mongodb::Options>),
    /// RethinkDB.
    #[cfg(feature = "rethinkdb")]
    RethinkDb(Box<rethinkdb::Options>),
}

impl SourcePlan {
    /// The schema of a table pattern without a schema.
    #[must_use]
    pub fn default_schema(&self) -> &str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "main",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "public",
            #[cfg(feature = "mysql")]
            Self::MySql(options) => &options.database,
            #[cfg(feature = "mongodb")]
            Self::MongoDb(options) => &options.database,
            #[cfg(feature = "rethinkdb")]
            Self::RethinkDb(options) => &options.database,
        }
    }

    /// Whether the source keeps a store of its own on this machine, without which a checkpoint is of no use.
    #[must_use]
    pub const fn needs_volume(&self) -> bool {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => false,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => false,
            #[cfg(feature = "mysql")]
            Self::MySql(_) => false,
            #[cfg(feature = "mongodb")]
            Self::MongoDb(_) => false,
            #[cfg(feature = "rethinkdb")]
            Self::RethinkDb(_) => true,
        }
    }

    /// The backend's name in events and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "sqlite",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "postgres",
            #[cfg(feature = "mysql")]
            Self::MySql(_) => "mysql",
            #[cfg(feature = "mongodb")]
            Self::MongoDb(_) => "mongodb",
            #[cfg(feature = "rethinkdb")]
            Self::RethinkDb(_) => "rethinkdb",
        }
    }
}

/// The sink.
#[derive(Clone, Debug)]
pub enum SinkPlan {
    /// Kafka.
    #[cfg(feature = "kafka")]
    Kafka(Box<kafka::Options>),
    /// RabbitMQ.
    #[cfg(feature = "amqp")]
    Amqp(Box<amqp::Options>),
    /// Standard output or a file, JSON lines.
    Stdout(stdout::Options),
}

impl SinkPlan {
    /// The sink's kind in metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "kafka",
            #[cfg(feature = "amqp")]
            Self::Amqp(_) => "amqp",
            Self::Stdout(stdout::Options { target: Target::Stdout, .. }) => "stdout",
            Self::Stdout(stdout::Options { target: Target::File(_), .. }) => "file",
        }
    }

    /// The delivery guarantee, in metrics.
    #[must_use]
    pub const fn delivery(&self) -> &'static str {
        "at_least_once"
    }

    /// Whether a tombstone follows each delete.
    #[must_use]
    pub const fn tombstones(&self) -> bool {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(options) => options.tombstones,
            #[cfg(feature = "amqp")]
            Self::Amqp(_) => false,
            Self::Stdout(_) => false,
        }
    }
}

/// Where the checkpoint is stored.
#[derive(Clone, Debug)]
pub enum CheckpointPlan {
    /// In this file.
    File(PathBuf),
    /// In a topic of the sink's broker.
    #[cfg(feature = "kafka")]
    Kafka(Box<kafka::Options>),
    /// In a queue of the sink's broker.
    #[cfg(feature = "amqp")]
    Amqp(Box<amqp::Options>),
}

impl CheckpointPlan {
    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => None,
            #[cfg(feature = "amqp")]
            Self::Amqp(_) => None,
        }
    }

    /// The file or broker object, for messages.
    #[must_use]
    pub fn location(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            #[cfg(feature = "kafka")]
            Self::Kafka(options) => format!("{}.checkpoint in the broker", options.pipeline),
            #[cfg(feature = "amqp")]
            Self::Amqp(options) => format!("{}.checkpoint in the broker", options.pipeline),
        }
    }
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
