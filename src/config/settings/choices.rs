//! The accepted names of settings with a closed set of values, depending on the features of the build.

use crate::config::kind::Chosen;
use crate::config::plan::LogFormat;
use crate::format::cloudevents::Mode;
use crate::net::{RequireAuth, TlsMode};
use crate::pipeline::OnGap;
#[cfg(feature = "amqp")]
pub(super) use crate::sink::amqp::{Ordering, QueueType};
#[cfg(feature = "kafka")]
pub(super) use crate::sink::kafka::Stamp;
#[cfg(feature = "mongodb")]
pub(super) use crate::source::mongodb::{Image, Spelling};
#[cfg(feature = "postgres")]
pub(super) use crate::source::postgres::OnAddedDefault;

pub(super) const SQLITE: &[&str] = &["sqlite"];
pub(super) const POSTGRES: &[&str] = &["postgres"];
pub(super) const MYSQL: &[&str] = &["mysql"];
pub(super) const MONGODB: &[&str] = &["mongodb"];
pub(super) const RETHINKDB: &[&str] = &["rethinkdb"];
pub(super) const SERVERS: &[&str] = &["postgres", "mysql", "mongodb", "rethinkdb"];
pub(super) const SQL_SERVERS: &[&str] = &["postgres", "mysql"];
pub(super) const KAFKA: &[&str] = &["kafka"];
pub(super) const AMQP: &[&str] = &["amqp"];
pub(super) const BROKERS: &[&str] = &["kafka", "amqp"];
pub(super) const FILE: &[&str] = &["file"];
pub(super) const TOPICS: &[&str] = &["kafka", "stdout", "file"];
pub(super) const ALL: &[&str] = &[];

type Choices<T> = &'static [(&'static str, Result<T, &'static str>)];

macro_rules! chosen {
    ($type:ty: $($name:literal => $value:ident),+) => {
        impl Chosen for $type {
            const CHOICES: Choices<Self> = &[$(($name, Ok(Self::$value))),+];
        }
    };
}

/// A kind of adapter, which is refused in a build without its feature.
macro_rules! adapter {
    ($name:literal => $value:ident) => {
        ($name, {
            #[cfg(feature = $name)]
            {
                Ok(Self::$value)
            }
            #[cfg(not(feature = $name))]
            {
                Err(concat!("not in this build: build it with the feature `", $name, "`"))
            }
        })
    };
}

/// The sources of this build.
#[derive(Clone, Copy)]
pub(in crate::config) enum SourceKind {
    #[cfg(feature = "sqlite")]
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "mysql")]
    MySql,
    #[cfg(feature = "mongodb")]
    MongoDb,
    #[cfg(feature = "rethinkdb")]
    RethinkDb,
}

impl Chosen for SourceKind {
    const CHOICES: Choices<Self> = &[
        adapter!("sqlite" => Sqlite),
        adapter!("postgres" => Postgres),
        adapter!("mysql" => MySql),
        adapter!("mongodb" => MongoDb),
        adapter!("rethinkdb" => RethinkDb),
    ];
}

/// The sinks of this build.
#[derive(Clone, Copy)]
pub(in crate::config) enum SinkKind {
    #[cfg(feature = "kafka")]
    Kafka,
    Stdout,
    File,
    #[cfg(feature = "amqp")]
    Amqp,
}

impl Chosen for SinkKind {
    const CHOICES: Choices<Self> =
        &[adapter!("kafka" => Kafka), ("stdout", Ok(Self::Stdout)), ("file", Ok(Self::File)), adapter!("amqp" => Amqp)];
}

chosen!(TlsMode: "disable" => Disable, "require" => Require, "verify_ca" => VerifyCa, "verify_full" => VerifyFull);
chosen!(RequireAuth: "scram" => Scram, "md5" => Md5, "password" => Password, "none" => None);
chosen!(OnGap: "stop" => Stop, "prefeed" => Prefeed);
chosen!(OnAddedDefault: "prefeed" => Prefeed, "ignore" => Ignore);

/// How feedline logs in to MongoDB.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum SourceAuth {
    Scram,
    X509,
}

chosen!(SourceAuth: "scram" => Scram, "x509" => X509);
chosen!(Image: "off" => Off, "when_available" => WhenAvailable, "required" => Required);
chosen!(Spelling: "plain" => Plain, "relaxed" => Relaxed, "canonical" => Canonical);

/// How feedline logs in to RabbitMQ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Auth {
    Plain,
    External,
}

chosen!(Auth: "plain" => Plain, "external" => External);
chosen!(Ordering: "go_back" => GoBack, "per_key" => PerKey);
chosen!(QueueType: "quorum" => Quorum, "classic" => Classic, "stream" => Stream);

/// The delivery guarantee.
#[derive(Clone, Copy)]
pub(in crate::config) enum Delivery {
    AtLeastOnce,
}

impl Chosen for Delivery {
    const CHOICES: Choices<Self> =
        &[("at_least_once", Ok(Self::AtLeastOnce)), ("exactly_once", Err("not in this version: set delivery = \"at_least_once\""))];
}

chosen!(Stamp: "commit" => Commit, "append" => Append);

/// What happens to an event that the broker does not take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum OnUnpublishable {
    Stop,
    DeadLetter,
}

chosen!(OnUnpublishable: "stop" => Stop, "dead_letter" => DeadLetter);

/// The format of events.
#[derive(Clone, Copy)]
pub(in crate::config) enum FormatKind {
    Json,
    CloudEvents,
}

const NO_SUCH_FORMAT: &str = "not in this version: set format.kind = \"json\" or \"cloudevents\"";

impl Chosen for FormatKind {
    const CHOICES: Choices<Self> = &[
        ("json", Ok(Self::Json)),
        ("cloudevents", Ok(Self::CloudEvents)),
        ("debezium", Err(NO_SUCH_FORMAT)),
        ("maxwell", Err(NO_SUCH_FORMAT)),
        ("avro", Err(NO_SUCH_FORMAT)),
        ("protobuf", Err(NO_SUCH_FORMAT)),
    ];
}

chosen!(Mode: "binary" => Binary, "structured" => Structured);

/// Where the checkpoint is stored.
#[derive(Clone, Copy)]
pub(in crate::config) enum CheckpointKind {
    File,
    /// In the sink's broker, which must be of this kind.
    Broker(&'static str),
}

impl Chosen for CheckpointKind {
    const CHOICES: Choices<Self> = &[("file", Ok(Self::File)), ("kafka", Ok(Self::Broker("kafka"))), ("amqp", Ok(Self::Broker("amqp")))];
}

chosen!(LogFormat: "auto" => Auto, "json" => Json, "pretty" => Pretty);

// In a build without an adapter, its settings keep their names and values, so that errors are about the adapter alone.
macro_rules! without {
    ($feature:literal, $type:ident: $($value:ident),+) => {
        #[cfg(not(feature = $feature))]
        #[derive(Clone, Copy)]
        pub(in crate::config) enum $type {
            $($value),+
        }
    };
}

without!("postgres", OnAddedDefault: Prefeed, Ignore);
without!("mongodb", Image: Off, WhenAvailable, Required);
without!("mongodb", Spelling: Plain, Relaxed, Canonical);
without!("amqp", Ordering: GoBack, PerKey);
without!("amqp", QueueType: Quorum, Classic, Stream);
without!("kafka", Stamp: Commit, Append);
