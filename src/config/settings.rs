//! The table of all settings. Parsing, validation, documentation and `config print` all use it.

use crate::config::schema::{
    Default::{Absent, Derived, Is, Required},
    Section, Setting, Type, accepted, refused,
};
use choices::{ALL, AMQP, BROKERS, FILE, FORMATS, KAFKA, NO_TRANSACTIONS, POSTGRES, SINKS, SOURCES, SQLITE, TLS, TOPICS};
use std::time::Duration;

mod choices;

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
    Section { path: "feeds", meaning: "The published tables. At least one section is required.", repeated: true, optional: false },
    Section { path: "sink", meaning: "Where events go.", repeated: false, optional: false },
    Section {
        path: "sink.create_topics",
        meaning: "How missing topics are created. Without this section, missing topics are an error.",
        repeated: false,
        optional: true,
    },
    Section {
        path: "sink.queues",
        meaning: "A queue that is declared and bound to the exchange. Repeatable. Other clients may bind their own queues.",
        repeated: true,
        optional: true,
    },
    Section { path: "format", meaning: "The format of events.", repeated: false, optional: false },
    Section {
        path: "checkpoint",
        meaning: "Where the checkpoint (the position to resume from) is stored.",
        repeated: false,
        optional: false,
    },
    Section { path: "pipeline", meaning: "Memory and timeouts.", repeated: false, optional: false },
    Section { path: "admin", meaning: "The HTTP server for metrics and health.", repeated: false, optional: false },
    Section { path: "log", meaning: "Logging, on standard error.", repeated: false, optional: false },
];

/// The settings, in the order of the documentation.
pub const SETTINGS: &[Setting] = &[
    setting(
        "name",
        ALL,
        Type::Name,
        Required("shop"),
        "The pipeline's name. Part of event ids, topics, slot, checkpoint and metric labels: with another name it is another pipeline.",
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
        "Host, port, user and database in one URL, without a password. Replaces `host`, `port`, `user`, `database`.",
    ),
    setting("source.host", POSTGRES, Type::Text, Is("127.0.0.1"), "Host name or address of the server."),
    setting("source.port", POSTGRES, Type::Integer { least: 1, most: 65_535 }, Is("5432"), "Port of the server."),
    setting("source.user", POSTGRES, Type::Text, Is("feedline"), "The role. Needs REPLICATION, and SELECT on the tables."),
    setting(
        "source.password",
        POSTGRES,
        Type::Secret,
        Absent("/run/secrets/postgres"),
        "The role's password. Not needed for trust, peer or certificate authentication.",
    ),
    setting("source.database", POSTGRES, Type::Text, Required("shop"), "The database."),
    setting(
        "source.tls",
        POSTGRES,
        Type::Choice(TLS),
        Is("verify_full"),
        "`verify_full`: verify certificate and host name. `verify_ca`: verify the certificate. `require`: only encrypt. `disable`: plain text (a warning, unless the host is this machine).",
    ),
    setting(
        "source.ca_file",
        POSTGRES,
        Type::Path,
        Absent("/etc/ssl/postgres-ca.pem"),
        "Trusted CA certificates, PEM. Default: those of the operating system.",
    ),
    setting("source.cert_file", POSTGRES, Type::Path, Absent("/run/secrets/client.crt"), "Client certificate, PEM. Requires `key_file`."),
    setting(
        "source.key_file",
        POSTGRES,
        Type::Path,
        Absent("/run/secrets/client.key"),
        "Private key of the client certificate, PEM. Requires `cert_file`.",
    ),
    setting(
        "source.require_auth",
        POSTGRES,
        Type::Choice(&[accepted("scram"), accepted("md5"), accepted("password"), accepted("none")]),
        Is("scram"),
        "The weakest login that is accepted from a server whose certificate is not verified. `scram` also authenticates the server; `md5` and `password` reveal the password to it; `none` allows it to skip the configured password.",
    ),
    setting("source.slot", POSTGRES, Type::Text, Derived("feedline_{name}"), "The replication slot."),
    setting("source.publication", POSTGRES, Type::Text, Derived("feedline_{name}"), "The publication."),
    setting(
        "source.manage",
        POSTGRES,
        Type::Boolean,
        Is("true"),
        "`true`: create the slot and the publication if they are missing. `false`: only verify them.",
    ),
    setting(
        "source.on_gap",
        ALL,
        Type::Choice(&[accepted("stop"), accepted("prefeed")]),
        Is("stop"),
        "What to do if the log no longer holds the next changes. `stop`: stop and name the missing range. `prefeed`: send a reset event and read the affected tables again.",
    ),
    setting(
        "source.on_added_default",
        POSTGRES,
        Type::Choice(&[accepted("prefeed"), accepted("ignore")]),
        Is("prefeed"),
        "What to do if a column is added with a default. It changes existing rows, but the changes are not in the log. `prefeed`: read the table again. `ignore`: do nothing.",
    ),
    setting(
        "feeds.tables",
        ALL,
        Type::List,
        Required("[\"orders\", \"customer_*\"]"),
        "Tables by name or pattern: `schema.table` or `table`; `*` matches any characters. A table may be in one feed only.",
    ),
    setting("feeds.operations", ALL, Type::Operations, Is("[\"insert\", \"update\", \"delete\"]"), "The live changes that are published."),
    setting(
        "feeds.prefeed",
        ALL,
        Type::Prefeed,
        Is("snapshot"),
        "The rows that are published before the live changes. `snapshot`: the existing rows. `none`: no rows. `{ query = \"SELECT ...\" }`: the rows of a query that returns the key columns (PostgreSQL). `{ file = \"rows.jsonl\" }`: the rows of a file, one JSON object per line. A feed with a query or a file has exactly one table.",
    ),
    setting(
        "feeds.stage",
        ALL,
        Type::Integer { least: 0, most: 1000 },
        Is("1"),
        "The prefeed of a stage begins when the prefeeds of all lower stages are delivered.",
    ),
    setting(
        "feeds.key",
        ALL,
        Type::List,
        Absent("[\"id\"]"),
        "The key columns. Default: the primary key. Required for tables without a primary key.",
    ),
    setting("feeds.topic", ALL, Type::Template, Absent("{name}.{table}"), "Overrides `sink.topic` for these tables."),
    setting("feeds.routing_key", ALL, Type::Template, Absent("{table}.{operation}"), "Overrides `sink.routing_key` for these tables."),
    setting("sink.kind", ALL, Type::Choice(SINKS), Required("kafka"), "The kind of sink."),
    setting("sink.path", FILE, Type::Path, Required("shop.jsonl"), "The file that events are appended to, one JSON line each."),
    setting(
        "sink.bootstrap_servers",
        KAFKA,
        Type::Text,
        Required("127.0.0.1:9092"),
        "Bootstrap servers: `host:port`, separated by commas.",
    ),
    setting("sink.topic", TOPICS, Type::Template, Is("{name}.{schema}.{table}"), "The topic of each event."),
    setting(
        "sink.url",
        AMQP,
        Type::Text,
        Absent("amqps://feedline@rabbit.example.com:5671/shop"),
        "Host, port, user and virtual host in one URL, without a password. Replaces `host`, `port`, `user`, `vhost`. `amqp://` is plain text.",
    ),
    setting(
        "sink.host",
        AMQP,
        Type::Text,
        Is("127.0.0.1"),
        "Host name or address of RabbitMQ. For a cluster, several separated by commas, each as `host` or `host:port`: the first that answers is used.",
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
        "User. Needs permission to configure and write the exchange, and to configure and read the queue `{name}.lock`.",
    ),
    setting(
        "sink.auth",
        AMQP,
        Type::Choice(&[accepted("plain"), accepted("external")]),
        Is("plain"),
        "`plain`: user and password. `external`: the user named by the client certificate (RabbitMQ plugin `rabbitmq_auth_mechanism_ssl`).",
    ),
    setting("sink.password", AMQP, Type::Secret, Absent("/run/secrets/rabbitmq"), "The user's password."),
    setting("sink.vhost", AMQP, Type::Text, Is("/"), "Virtual host."),
    setting(
        "sink.tls",
        AMQP,
        Type::Choice(TLS),
        Is("verify_full"),
        "`verify_full`: verify certificate and host name. `verify_ca`: verify the certificate. `require`: only encrypt. `disable`: plain text (a warning, unless the host is this machine).",
    ),
    setting(
        "sink.ca_file",
        AMQP,
        Type::Path,
        Absent("/etc/ssl/rabbitmq-ca.pem"),
        "Trusted CA certificates, PEM. Default: those of the operating system.",
    ),
    setting("sink.cert_file", AMQP, Type::Path, Absent("/run/secrets/client.crt"), "Client certificate, PEM. Requires `key_file`."),
    setting(
        "sink.key_file",
        AMQP,
        Type::Path,
        Absent("/run/secrets/client.key"),
        "Private key of the client certificate, PEM. Requires `cert_file`.",
    ),
    setting(
        "sink.management_url",
        AMQP,
        Type::Text,
        Absent("https://rabbit-1:15671"),
        "RabbitMQ's management API. Only `feedline check` uses it, to find events that no queue would receive. The user needs the tag `management`.",
    ),
    setting("sink.exchange", AMQP, Type::Text, Derived("{name}"), "The durable topic exchange that events are published to."),
    setting(
        "sink.routing_key",
        AMQP,
        Type::Template,
        Is("{schema}.{table}.{operation}"),
        "The routing key of each event. `{operation}` can also be `read`, `truncate` or `reset`.",
    ),
    setting("sink.declare", AMQP, Type::Boolean, Is("true"), "`true`: declare the exchange if it is missing. `false`: only verify it."),
    setting(
        "sink.window",
        AMQP,
        Type::Integer { least: 1, most: 100_000 },
        Is("1000"),
        "Maximum number of events that wait for the broker's confirms.",
    ),
    setting(
        "sink.ordering",
        AMQP,
        Type::Choice(&[accepted("go_back"), accepted("per_key")]),
        Is("go_back"),
        "`go_back`: a refused event and all later ones are sent again; later ones of its key may have been stored before it. `per_key`: no event is sent while an earlier one of its key is unconfirmed; for readers that cannot compare positions.",
    ),
    setting(
        "sink.delivery",
        KAFKA,
        Type::Choice(&[accepted("at_least_once"), refused("exactly_once", NO_TRANSACTIONS)]),
        Is("at_least_once"),
        "`at_least_once`: after a fault, events since the last checkpoint may be sent again, with the same id and the same bytes.",
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
        "Whether each delete is followed by a tombstone: a record with its key and no value, for compacted topics.",
    ),
    setting(
        "sink.timestamp",
        KAFKA,
        Type::Choice(&[accepted("commit"), accepted("append")]),
        Is("commit"),
        "The timestamp of records, from which the topic's `retention.ms` counts: the commit time, or the time of arrival at the broker. The event itself always contains the commit time.",
    ),
    setting(
        "sink.on_unpublishable",
        BROKERS,
        Type::Choice(&[accepted("stop"), accepted("dead_letter")]),
        Is("stop"),
        "What to do with an event that is too large for its destination, that Kafka rejects, or that no queue receives. `stop`: stop and name the event. `dead_letter`: send it to the dead letters and go on.",
    ),
    setting(
        "sink.dead_letter",
        BROKERS,
        Type::Text,
        Derived("{name}.dead_letter"),
        "The topic, or the exchange and its queue, for dead letters. Needs `on_unpublishable = \"dead_letter\"`. It is created with `create_topics` or `declare = true`; otherwise it must exist.",
    ),
    setting(
        "sink.sasl_password",
        KAFKA,
        Type::Secret,
        Absent("/run/secrets/kafka"),
        "The SASL password. Set user and mechanism (`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`) in `sink.properties`.",
    ),
    setting("sink.ssl_key_password", KAFKA, Type::Secret, Absent("/run/secrets/kafka-key"), "The password of the client's private key."),
    setting(
        "sink.properties",
        KAFKA,
        Type::Properties,
        Absent("{ \"compression.type\" = \"zstd\" }"),
        "Properties for librdkafka. Those that feedline's guarantees depend on (acks, idempotence, timeouts, ...) are refused.",
    ),
    setting(
        "sink.create_topics.partitions",
        KAFKA,
        Type::Integer { least: 1, most: 100_000 },
        Is("3"),
        "Number of partitions of a created topic.",
    ),
    setting(
        "sink.create_topics.replication",
        KAFKA,
        Type::Integer { least: 1, most: 100 },
        Is("1"),
        "Number of replicas of a created topic.",
    ),
    setting(
        "sink.create_topics.config",
        KAFKA,
        Type::Properties,
        Absent("{ \"retention.ms\" = -1 }"),
        "Settings of a created topic, by Kafka's names, such as `cleanup.policy` and `retention.ms`. Default: those of the cluster. The topics of checkpoint and dead letters have their own settings.",
    ),
    setting("sink.queues.name", AMQP, Type::Text, Required("billing"), "The name of the durable queue."),
    setting(
        "sink.queues.keys",
        AMQP,
        Type::List,
        Required("[\"public.orders.*\"]"),
        "Binding keys: words separated by dots; `*` matches one word, `#` any number of words.",
    ),
    setting(
        "sink.queues.type",
        AMQP,
        Type::Choice(&[accepted("quorum"), accepted("classic"), accepted("stream")]),
        Is("quorum"),
        "`quorum`: replicated. `classic`: on one node. `stream`: an append-only log; reading does not remove messages.",
    ),
    setting(
        "format.kind",
        ALL,
        Type::Choice(FORMATS),
        Is("json"),
        "`json`: feedline's own JSON, version 1. `cloudevents`: CloudEvents 1.0, with that JSON as data.",
    ),
    setting(
        "format.mode",
        ALL,
        Type::Choice(&[accepted("binary"), accepted("structured")]),
        Is("binary"),
        "Where the attributes of CloudEvents are. `binary`: in headers. `structured`: in the body; so always on standard output and in files.",
    ),
    setting(
        "checkpoint.kind",
        ALL,
        Type::Choice(&[accepted("file"), accepted("kafka"), accepted("amqp")]),
        Is("file"),
        "Where the checkpoint is stored: in a file, or in the sink's broker, in the topic or queue `{name}.checkpoint`.",
    ),
    setting(
        "checkpoint.path",
        ALL,
        Type::Path,
        Derived("{name}.checkpoint"),
        "The checkpoint file, for `checkpoint.kind = \"file\"`. It must be on a disk that survives a restart.",
    ),
    setting(
        "checkpoint.interval",
        ALL,
        Type::Period { least: Duration::from_millis(10), most: seconds(60) },
        Is("500ms"),
        "How often the checkpoint is saved while events flow. After a crash, events since the last save may be sent again.",
    ),
    setting(
        "pipeline.memory",
        ALL,
        Type::Size { least: 1 << 20, most: 64 << 30 },
        Is("32MiB"),
        "Memory for events from the source's socket to the broker's confirmation. The process needs about twice this plus 32 MB.",
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
        "How long one snapshot is held while no feed is live. At most 15 s once any feed is live.",
    ),
    setting(
        "pipeline.prefeed_readers",
        ALL,
        Type::Integer { least: 1, most: 16 },
        Is("2"),
        "Number of sessions that read existing rows in parallel, if the database is a server.",
    ),
    setting(
        "pipeline.prefeed_rate",
        ALL,
        Type::Rate,
        Is("unlimited"),
        "Limit of the rate at which existing rows are read, in bytes of events.",
    ),
    setting(
        "pipeline.takeover_timeout",
        ALL,
        Type::Period { least: seconds(0), most: seconds(3600) },
        Is("90s"),
        "How long to wait for a slot, lock or exclusive queue that another instance holds, at a start and later.",
    ),
    setting(
        "admin.listen",
        ALL,
        Type::Listen,
        Is("127.0.0.1:9464"),
        "Address of the HTTP server for `/metrics`, `/livez`, `/readyz`, `/startupz` and `/version`.",
    ),
    setting(
        "log.format",
        ALL,
        Type::Choice(&[accepted("auto"), accepted("json"), accepted("pretty")]),
        Is("auto"),
        "`auto`: `pretty` on a terminal, else `json`.",
    ),
    setting(
        "log.level",
        ALL,
        Type::Text,
        Is("info"),
        "`error`, `warn`, `info`, `debug`, `trace` or `off`; also per module, such as `info,feedline::pipeline=debug`. The reason why a run stopped is logged at every level.",
    ),
];

/// The setting with this path.
#[must_use]
pub fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.path == path)
}

/// The setting that a key path sets. `NAME_file` and `NAME_env` set the secret `NAME`.
#[must_use]
pub fn written_by(path: &str) -> Option<&'static Setting> {
    find(path).or_else(|| {
        let secret = path.strip_suffix("_file").or_else(|| path.strip_suffix("_env"))?;
        find(secret).filter(|setting| setting.kind == Type::Secret)
    })
}
