//! Every setting. The configuration is read, checked, documented and printed from this table alone.

use crate::config::schema::{
    Choice,
    Default::{Absent, Derived, Is, Required},
    Section, Setting, Type, no, yes,
};
use std::time::Duration;

const NOT_YET: &str = "not in this version: set source.kind = \"sqlite\" or \"postgres\"";
const NO_TRANSACTIONS: &str = "not in this version: set delivery = \"at_least_once\"";

const fn feature(present: bool, value: &'static str, absent: &'static str) -> Choice {
    if present { yes(value) } else { no(value, absent) }
}

const SOURCES: &[Choice] = &[
    feature(cfg!(feature = "sqlite"), "sqlite", "not in this build: it was made without the feature `sqlite`"),
    feature(cfg!(feature = "postgres"), "postgres", "not in this build: it was made without the feature `postgres`"),
    no("mysql", NOT_YET),
    no("mongodb", NOT_YET),
    no("rethinkdb", NOT_YET),
];
const SINKS: &[Choice] = &[
    feature(cfg!(feature = "kafka"), "kafka", "not in this build: it was made without the feature `kafka`"),
    yes("stdout"),
    yes("file"),
    feature(cfg!(feature = "amqp"), "amqp", "not in this build: it was made without the feature `amqp`"),
];
const TLS: &[Choice] = &[yes("disable"), yes("require"), yes("verify_ca"), yes("verify_full")];

const SQLITE: &[&str] = &["sqlite"];
const POSTGRES: &[&str] = &["postgres"];
const KAFKA: &[&str] = &["kafka"];
const AMQP: &[&str] = &["amqp"];
const BROKERS: &[&str] = &["kafka", "amqp"];
const FILE: &[&str] = &["file"];
const TOPICS: &[&str] = &["kafka", "stdout", "file"];
const ALL: &[&str] = &[];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn setting(
    path: &'static str,
    kinds: &'static [&'static str],
    kind: Type,
    default: super::schema::Default,
    meaning: &'static str,
) -> Setting {
    Setting { path, kinds, kind, default, meaning }
}

/// The sections, in the order of the documentation.
pub const SECTIONS: &[Section] = &[
    Section { path: "", meaning: "The pipeline.", repeated: false, optional: false },
    Section { path: "source", meaning: "The database whose changes are published.", repeated: false, optional: false },
    Section { path: "feeds", meaning: "The tables that are published; at least one such section.", repeated: true, optional: false },
    Section { path: "sink", meaning: "Where events go.", repeated: false, optional: false },
    Section {
        path: "sink.create_topics",
        meaning: "Topics that do not exist are made so; without this section they are verified, never made.",
        repeated: false,
        optional: true,
    },
    Section {
        path: "sink.queues",
        meaning: "A queue that is made and bound to the exchange; any number of such sections. Others may bind queues of their own.",
        repeated: true,
        optional: true,
    },
    Section { path: "format", meaning: "How an event is written down.", repeated: false, optional: false },
    Section { path: "checkpoint", meaning: "Where the place to resume is kept.", repeated: false, optional: false },
    Section { path: "pipeline", meaning: "Memory and times.", repeated: false, optional: false },
    Section { path: "admin", meaning: "The HTTP server for metrics and health.", repeated: false, optional: false },
    Section { path: "log", meaning: "Logs, on standard error.", repeated: false, optional: false },
];

/// The settings, in the order of the documentation.
pub const SETTINGS: &[Setting] = &[
    setting(
        "name",
        ALL,
        Type::Name,
        Required("shop"),
        "The pipeline's name: part of event ids, topics, slot, checkpoint and metric labels. A changed name is another pipeline.",
    ),
    setting("source.kind", ALL, Type::Choice(SOURCES), Required("sqlite"), "The kind of database."),
    setting(
        "source.path",
        SQLITE,
        Type::Path,
        Required("shop.db"),
        "The database file. It must exist; feedline adds triggers and a log table to it.",
    ),
    setting(
        "source.url",
        POSTGRES,
        Type::Text,
        Absent("postgres://feedline@db.example.com:5432/shop"),
        "Host, port, user and database in one, without a password; in place of `host`, `port`, `user`, `database`.",
    ),
    setting("source.host", POSTGRES, Type::Text, Is("127.0.0.1"), "Host name or address of the server."),
    setting("source.port", POSTGRES, Type::Integer { least: 1, most: 65_535 }, Is("5432"), "Port of the server."),
    setting("source.user", POSTGRES, Type::Text, Is("feedline"), "The role to log in as; it needs REPLICATION, and SELECT on the tables."),
    setting(
        "source.password",
        POSTGRES,
        Type::Secret,
        Absent("/run/secrets/postgres"),
        "The role's password; none is needed for trust, peer or certificate authentication.",
    ),
    setting("source.database", POSTGRES, Type::Text, Required("shop"), "The database."),
    setting(
        "source.tls",
        POSTGRES,
        Type::Choice(TLS),
        Is("verify_full"),
        "`verify_full` checks certificate and host name, `verify_ca` the certificate, `require` encrypts only, `disable` is plain text (a warning unless the host is this machine).",
    ),
    setting(
        "source.ca_file",
        POSTGRES,
        Type::Path,
        Absent("/etc/ssl/postgres-ca.pem"),
        "Certificates of the authorities to trust, PEM; without it those of the operating system.",
    ),
    setting("source.cert_file", POSTGRES, Type::Path, Absent("/run/secrets/client.crt"), "The client's certificate, PEM; with `key_file`."),
    setting("source.key_file", POSTGRES, Type::Path, Absent("/run/secrets/client.key"), "The client's private key, PEM; with `cert_file`."),
    setting(
        "source.require_auth",
        POSTGRES,
        Type::Choice(&[yes("scram"), yes("md5"), yes("password"), yes("none")]),
        Is("scram"),
        "Which login is accepted of a server whose certificate is not verified: this one or a stronger one. `scram` proves the server too; `md5` and `password` show it the password; `none` lets it ask for none although one is configured.",
    ),
    setting("source.slot", POSTGRES, Type::Text, Derived("feedline_{name}"), "The replication slot."),
    setting("source.publication", POSTGRES, Type::Text, Derived("feedline_{name}"), "The publication."),
    setting(
        "source.manage",
        POSTGRES,
        Type::Boolean,
        Is("true"),
        "Whether slot and publication are made where they are missing; `false`: they are only verified.",
    ),
    setting(
        "source.on_gap",
        ALL,
        Type::Choice(&[yes("stop"), yes("prefeed")]),
        Is("stop"),
        "What happens when the log no longer holds what comes next: the pipeline stops and names the range, or the tables of which something is missing are read again after a reset event.",
    ),
    setting(
        "source.on_added_default",
        POSTGRES,
        Type::Choice(&[yes("prefeed"), yes("ignore")]),
        Is("prefeed"),
        "What happens when a column is added with a default, which changes existing rows without a word in the log: the table is read again, or nothing.",
    ),
    setting(
        "feeds.tables",
        ALL,
        Type::List,
        Required("[\"orders\", \"customer_*\"]"),
        "Tables by name or pattern, `schema.table` or `table`; `*` stands for any text. A table may be in one feed only.",
    ),
    setting("feeds.operations", ALL, Type::Operations, Is("[\"insert\", \"update\", \"delete\"]"), "Which live changes are published."),
    setting(
        "feeds.prefeed",
        ALL,
        Type::Prefeed,
        Is("snapshot"),
        "What is published before the live changes: `snapshot`, the rows that are there already; `none`; `{ query = \"SELECT ...\" }`, the rows of a query with the key's columns (PostgreSQL); or `{ file = \"rows.jsonl\" }`, the rows of a file, a JSON object a line. A query or a file stands for one table.",
    ),
    setting(
        "feeds.stage",
        ALL,
        Type::Integer { least: 0, most: 1000 },
        Is("1"),
        "The prefeed of lower stages is delivered whole before that of higher ones begins.",
    ),
    setting(
        "feeds.key",
        ALL,
        Type::List,
        Absent("[\"id\"]"),
        "The columns of the key; without it the primary key. Required for tables without one.",
    ),
    setting("feeds.topic", ALL, Type::Template, Absent("{name}.{table}"), "Overrides `sink.topic` for these tables."),
    setting("feeds.routing_key", ALL, Type::Template, Absent("{table}.{operation}"), "Overrides `sink.routing_key` for these tables."),
    setting("sink.kind", ALL, Type::Choice(SINKS), Required("kafka"), "The kind of sink."),
    setting("sink.path", FILE, Type::Path, Required("shop.jsonl"), "The file to which events are appended, one JSON line each."),
    setting(
        "sink.bootstrap_servers",
        KAFKA,
        Type::Text,
        Required("127.0.0.1:9092"),
        "Brokers to begin with: `host:port`, separated by commas.",
    ),
    setting("sink.topic", TOPICS, Type::Template, Is("{name}.{schema}.{table}"), "The topic of each event."),
    setting(
        "sink.url",
        AMQP,
        Type::Text,
        Absent("amqps://feedline@rabbit.example.com:5671/shop"),
        "Host, port, user and virtual host in one, without a password; in place of `host`, `port`, `user`, `vhost`. `amqp://` is plain text.",
    ),
    setting(
        "sink.host",
        AMQP,
        Type::Text,
        Is("127.0.0.1"),
        "Host name or address of RabbitMQ. Several of one cluster are separated by commas, each alone or as `host:port`: the first that answers is used.",
    ),
    setting(
        "sink.port",
        AMQP,
        Type::Integer { least: 1, most: 65_535 },
        Derived("5671, or 5672 with `tls = \"disable\"`"),
        "Port of AMQP 0-9-1.",
    ),
    setting(
        "sink.user",
        AMQP,
        Type::Text,
        Is("guest"),
        "User; it needs the permissions to configure and write the exchange, and to configure and read the queue `{name}.lock`.",
    ),
    setting(
        "sink.auth",
        AMQP,
        Type::Choice(&[yes("plain"), yes("external")]),
        Is("plain"),
        "`plain`: user and password; `external`: the user that the client's certificate names (RabbitMQ's plugin `rabbitmq_auth_mechanism_ssl`).",
    ),
    setting("sink.password", AMQP, Type::Secret, Absent("/run/secrets/rabbitmq"), "The user's password."),
    setting("sink.vhost", AMQP, Type::Text, Is("/"), "Virtual host."),
    setting(
        "sink.tls",
        AMQP,
        Type::Choice(TLS),
        Is("verify_full"),
        "`verify_full` checks certificate and host name, `verify_ca` the certificate, `require` encrypts only, `disable` is plain text (a warning unless the host is this machine).",
    ),
    setting(
        "sink.ca_file",
        AMQP,
        Type::Path,
        Absent("/etc/ssl/rabbitmq-ca.pem"),
        "Certificates of the authorities to trust, PEM; without it those of the operating system.",
    ),
    setting("sink.cert_file", AMQP, Type::Path, Absent("/run/secrets/client.crt"), "The client's certificate, PEM; with `key_file`."),
    setting("sink.key_file", AMQP, Type::Path, Absent("/run/secrets/client.key"), "The client's private key, PEM; with `cert_file`."),
    setting(
        "sink.management_url",
        AMQP,
        Type::Text,
        Absent("https://rabbit-1:15671"),
        "RabbitMQ's management API, for `feedline check` alone: it shows which events no queue would take. The same user, with the tag `management`.",
    ),
    setting("sink.exchange", AMQP, Type::Text, Derived("{name}"), "The durable topic exchange to which events are published."),
    setting(
        "sink.routing_key",
        AMQP,
        Type::Template,
        Is("{schema}.{table}.{operation}"),
        "The routing key of each event; `{operation}` is also `read`, `truncate` and `reset`.",
    ),
    setting(
        "sink.declare",
        AMQP,
        Type::Boolean,
        Is("true"),
        "Whether the exchange is made where it is missing; `false`: it is only verified.",
    ),
    setting(
        "sink.window",
        AMQP,
        Type::Integer { least: 1, most: 100_000 },
        Is("1000"),
        "How many events may wait for the broker's confirms.",
    ),
    setting(
        "sink.ordering",
        AMQP,
        Type::Choice(&[yes("go_back"), yes("per_key")]),
        Is("go_back"),
        "`go_back`: after a refused event all from it on are sent again, and later ones of its key may have been stored before it; `per_key`: no event is sent while an earlier one of its key is unconfirmed, for readers that cannot compare positions.",
    ),
    setting(
        "sink.delivery",
        KAFKA,
        Type::Choice(&[yes("at_least_once"), no("exactly_once", NO_TRANSACTIONS)]),
        Is("at_least_once"),
        "`at_least_once`: after a fault, events since the last checkpoint may come twice, with the same id and the same bytes.",
    ),
    setting(
        "sink.headers",
        KAFKA,
        Type::Boolean,
        Is("true"),
        "Whether records carry the headers `feedline-id`, `feedline-op` and `feedline-table`.",
    ),
    setting(
        "sink.tombstones",
        KAFKA,
        Type::Boolean,
        Is("true"),
        "Whether each delete is followed by a record with its key and no value, for compacted topics.",
    ),
    setting(
        "sink.timestamp",
        KAFKA,
        Type::Choice(&[yes("commit"), yes("append")]),
        Is("commit"),
        "The time that a record carries, from which its topic's `retention.ms` counts: its commit's, or that of its arrival. Events say when they were committed either way.",
    ),
    setting(
        "sink.on_unpublishable",
        BROKERS,
        Type::Choice(&[yes("stop"), yes("dead_letter")]),
        Is("stop"),
        "What happens to an event that is larger than its destination accepts, that Kafka refuses for what it is, or that no queue takes: the pipeline stops and names it, or the event goes to the dead letters and the others go on.",
    ),
    setting(
        "sink.dead_letter",
        BROKERS,
        Type::Text,
        Derived("{name}.dead_letter"),
        "With `on_unpublishable = \"dead_letter\"`: the topic, or the exchange and its queue, of dead letters. It is made where topics or exchanges are; else it must exist.",
    ),
    setting(
        "sink.sasl_password",
        KAFKA,
        Type::Secret,
        Absent("/run/secrets/kafka"),
        "The SASL password; user and mechanism (`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`) are `sink.properties`.",
    ),
    setting("sink.ssl_key_password", KAFKA, Type::Secret, Absent("/run/secrets/kafka-key"), "The password of the client's private key."),
    setting(
        "sink.properties",
        KAFKA,
        Type::Properties,
        Absent("{ \"compression.type\" = \"zstd\" }"),
        "Passed on to librdkafka; those that the guarantees rest on (acks, idempotence, timeouts, ...) are refused.",
    ),
    setting(
        "sink.create_topics.partitions",
        KAFKA,
        Type::Integer { least: 1, most: 100_000 },
        Is("3"),
        "Partitions of a topic that is made.",
    ),
    setting("sink.create_topics.replication", KAFKA, Type::Integer { least: 1, most: 100 }, Is("1"), "Replicas of a topic that is made."),
    setting(
        "sink.create_topics.config",
        KAFKA,
        Type::Properties,
        Absent("{ \"retention.ms\" = -1 }"),
        "Settings of a topic that is made, by Kafka's names, such as `cleanup.policy` and `retention.ms`; without them the cluster's defaults hold. The checkpoint's topic and the dead letters' have their own.",
    ),
    setting("sink.queues.name", AMQP, Type::Text, Required("billing"), "The queue's name; it is durable."),
    setting(
        "sink.queues.keys",
        AMQP,
        Type::List,
        Required("[\"public.orders.*\"]"),
        "Binding keys: words between dots, where `*` stands for one word and `#` for any number.",
    ),
    setting(
        "sink.queues.type",
        AMQP,
        Type::Choice(&[yes("quorum"), yes("classic"), yes("stream")]),
        Is("quorum"),
        "`quorum` is replicated, `classic` lies on one node, `stream` is a log that is read and not consumed.",
    ),
    setting("format.kind", ALL, Type::Choice(&[yes("json")]), Is("json"), "feedline's own JSON, version 1."),
    setting(
        "checkpoint.kind",
        ALL,
        Type::Choice(&[yes("file"), yes("kafka"), yes("amqp")]),
        Is("file"),
        "Where the checkpoint is kept: in a file, or in the broker to which events go, in the topic or queue `{name}.checkpoint`.",
    ),
    setting(
        "checkpoint.path",
        ALL,
        Type::Path,
        Derived("{name}.checkpoint"),
        "The checkpoint's file, for `checkpoint.kind = \"file\"`; it belongs on a disk that survives a restart.",
    ),
    setting(
        "checkpoint.interval",
        ALL,
        Type::Period { least: Duration::from_millis(10), most: seconds(60) },
        Is("500ms"),
        "How often it is saved while events flow; events since then may come twice after a crash.",
    ),
    setting(
        "pipeline.memory",
        ALL,
        Type::Size { least: 1 << 20, most: 64 << 30 },
        Is("32MiB"),
        "Room for events from the source's socket to the broker's confirmation; the process takes about twice this and 32 MB.",
    ),
    setting(
        "pipeline.shutdown_deadline",
        ALL,
        Type::Period { least: seconds(0), most: seconds(3600) },
        Is("20s"),
        "How long a stop waits for confirmations.",
    ),
    setting(
        "pipeline.prefeed_slice",
        ALL,
        Type::Period { least: seconds(1), most: seconds(3600) },
        Is("1min"),
        "How long one snapshot is held while nothing is live yet; 15 s at most once any feed is live.",
    ),
    setting(
        "pipeline.prefeed_readers",
        ALL,
        Type::Integer { least: 1, most: 16 },
        Is("2"),
        "How many sessions read existing rows at once, where the database is a server.",
    ),
    setting("pipeline.prefeed_rate", ALL, Type::Rate, Is("unlimited"), "How fast existing rows are read at most, in bytes of events."),
    setting(
        "pipeline.takeover_timeout",
        ALL,
        Type::Period { least: seconds(0), most: seconds(3600) },
        Is("90s"),
        "How long a slot, a lock or an exclusive queue that another instance holds is waited for, at a start and later.",
    ),
    setting(
        "admin.listen",
        ALL,
        Type::Listen,
        Is("127.0.0.1:9464"),
        "Where `/metrics`, `/livez`, `/readyz`, `/startupz` and `/version` are served.",
    ),
    setting(
        "log.format",
        ALL,
        Type::Choice(&[yes("auto"), yes("json"), yes("pretty")]),
        Is("auto"),
        "`auto`: `pretty` on a terminal, else `json`.",
    ),
    setting(
        "log.level",
        ALL,
        Type::Text,
        Is("info"),
        "`error`, `warn`, `info`, `debug`, `trace` or `off`; also by module, such as `info,feedline::pipeline=debug`. Why a run stopped is said at every level.",
    ),
];

/// The setting at this path in a section of this kind; where the kind is not known, or has none, that of any kind.
#[must_use]
pub fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.path == path)
}

/// The setting that a key path writes to: a secret's three keys lead to it too.
#[must_use]
pub fn written_by(path: &str) -> Option<&'static Setting> {
    find(path).or_else(|| {
        let secret = path.strip_suffix("_file").or_else(|| path.strip_suffix("_env"))?;
        find(secret).filter(|setting| setting.kind == Type::Secret)
    })
}
