//! The settings of `[sink]` and of its sections.

use super::choices::{ALL, AMQP, Auth, BROKERS, Delivery, FILE, KAFKA, OnUnpublishable, Ordering, QueueType, SinkKind, Stamp, TOPICS};
use crate::config::key::{Key, OptionalKey};
use crate::config::kind;
use crate::config::schema::Default::{Absent, Derived, Is, Required};
use crate::feed::route::Template;
use crate::net::TlsMode;
use crate::net::secret::Secret;
use std::collections::BTreeMap;
use std::path::PathBuf;

settings! {
    KIND: Key<SinkKind> = "sink.kind", ALL, kind::choice(), Required("kafka"), "The kind of sink.";
    PATH: Key<PathBuf> = "sink.path", FILE, kind::PATH, Required("shop.jsonl"),
        "The file that events are appended to, one JSON line each.";
    BOOTSTRAP_SERVERS: Key<String> = "sink.bootstrap_servers", KAFKA, kind::TEXT, Required("127.0.0.1:9092"),
        "Bootstrap servers: `host:port`, separated by commas.";
    TOPIC: Key<Template> = "sink.topic", TOPICS, kind::TOPIC, Is("{name}.{schema}.{table}"), "The topic of each event.";
    URL: OptionalKey<String> = "sink.url", AMQP, kind::TEXT, Absent("amqps://feedline@rabbit.example.com:5671/shop"),
        "Host, port, user and virtual host in one URL, without a password. Replaces `host`, `port`, `user`, `vhost`. `amqp://` is plain text.";
    HOST: Key<String> = "sink.host", AMQP, kind::TEXT, Is("127.0.0.1"),
        "Host name or address of RabbitMQ. For a cluster, several separated by commas, each as `host` or `host:port`: the first that answers is used.";
    PORT: OptionalKey<u16> = "sink.port", AMQP, kind::integer(1, 65_535), Derived("5671, or 5672 with `tls = \"disable\"`"),
        "Port of AMQP 0-9-1.";
    USER: Key<String> = "sink.user", AMQP, kind::TEXT, Is("guest"),
        "User. Needs permission to configure and write the exchange, and to configure and read the queue `{name}.lock`.";
    AUTH: Key<Auth> = "sink.auth", AMQP, kind::choice(), Is("plain"),
        "`plain`: user and password. `external`: the user named by the client certificate (RabbitMQ plugin `rabbitmq_auth_mechanism_ssl`).";
    PASSWORD: OptionalKey<Secret> = "sink.password", AMQP, kind::SECRET, Absent("/run/secrets/rabbitmq"), "The user's password.";
    VHOST: Key<String> = "sink.vhost", AMQP, kind::TEXT, Is("/"), "Virtual host.";
    TLS: Key<TlsMode> = "sink.tls", AMQP, kind::choice(), Is("verify_full"),
        "`verify_full`: verify certificate and host name. `verify_ca`: verify the certificate. `require`: only encrypt. `disable`: plain text (a warning, unless the host is this machine).";
    CA_FILE: OptionalKey<PathBuf> = "sink.ca_file", AMQP, kind::PATH, Absent("/etc/ssl/rabbitmq-ca.pem"),
        "Trusted CA certificates, PEM. Default: those of the operating system.";
    CERT_FILE: OptionalKey<PathBuf> = "sink.cert_file", AMQP, kind::PATH, Absent("/run/secrets/client.crt"),
        "Client certificate, PEM. Requires `key_file`.";
    KEY_FILE: OptionalKey<PathBuf> = "sink.key_file", AMQP, kind::PATH, Absent("/run/secrets/client.key"),
        "Private key of the client certificate, PEM. Requires `cert_file`.";
    MANAGEMENT_URL: OptionalKey<String> = "sink.management_url", AMQP, kind::TEXT, Absent("https://rabbit-1:15671"),
        "RabbitMQ's management API. Only `feedline check` uses it, to find events that no queue would receive. The user needs the tag `management`.";
    EXCHANGE: OptionalKey<String> = "sink.exchange", AMQP, kind::TEXT, Derived("{name}"),
        "The durable topic exchange that events are published to.";
    ROUTING_KEY: Key<Template> = "sink.routing_key", AMQP, kind::ROUTING_KEY, Is("{schema}.{table}.{operation}"),
        "The routing key of each event. `{operation}` can also be `read`, `truncate` or `reset`.";
    DECLARE: Key<bool> = "sink.declare", AMQP, kind::BOOLEAN, Is("true"),
        "`true`: declare the exchange if it is missing. `false`: only verify it.";
    WINDOW: Key<usize> = "sink.window", AMQP, kind::integer(1, 100_000), Is("1000"),
        "Maximum number of events that wait for the broker's confirms.";
    ORDERING: Key<Ordering> = "sink.ordering", AMQP, kind::choice(), Is("go_back"),
        "`go_back`: a refused event and all later ones are sent again; later ones of its key may have been stored before it. `per_key`: no event is sent while an earlier one of its key is unconfirmed; for readers that cannot compare positions.";
    DELIVERY: Key<Delivery> = "sink.delivery", KAFKA, kind::choice(), Is("at_least_once"),
        "`at_least_once`: after a fault, events since the last checkpoint may be sent again, with the same id and the same bytes.";
    HEADERS: Key<bool> = "sink.headers", KAFKA, kind::BOOLEAN, Is("true"),
        "Whether records carry the headers `feedline-id`, `feedline-op` and `feedline-table`.";
    TOMBSTONES: Key<bool> = "sink.tombstones", KAFKA, kind::BOOLEAN, Is("true"),
        "Whether each delete is followed by a tombstone: a record with its key and no value, for compacted topics.";
    TIMESTAMP: Key<Stamp> = "sink.timestamp", KAFKA, kind::choice(), Is("commit"),
        "The timestamp of records, from which the topic's `retention.ms` counts: the commit time, or the time of arrival at the broker. The event itself always contains the commit time.";
    ON_UNPUBLISHABLE: Key<OnUnpublishable> = "sink.on_unpublishable", BROKERS, kind::choice(), Is("stop"),
        "What to do with an event that is too large for its destination, that Kafka rejects, or that no queue receives. `stop`: stop and name the event. `dead_letter`: send it to the dead letters and go on.";
    DEAD_LETTER: OptionalKey<String> = "sink.dead_letter", BROKERS, kind::TEXT, Derived("{name}.dead_letter"),
        "The topic, or the exchange and its queue, for dead letters. Needs `on_unpublishable = \"dead_letter\"`. It is created with `create_topics` or `declare = true`; otherwise it must exist.";
    SASL_PASSWORD: OptionalKey<Secret> = "sink.sasl_password", KAFKA, kind::SECRET, Absent("/run/secrets/kafka"),
        "The SASL password. Set user and mechanism (`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`) in `sink.properties`.";
    SSL_KEY_PASSWORD: OptionalKey<Secret> = "sink.ssl_key_password", KAFKA, kind::SECRET, Absent("/run/secrets/kafka-key"),
        "The password of the client's private key.";
    PROPERTIES: OptionalKey<BTreeMap<String, String>> =
        "sink.properties", KAFKA, kind::PROPERTIES, Absent("{ \"compression.type\" = \"zstd\" }"),
        "Properties for librdkafka. Those that feedline's guarantees depend on (acks, idempotence, timeouts, ...) are refused.";
    CREATE_TOPICS_PARTITIONS: Key<i32> = "sink.create_topics.partitions", KAFKA, kind::integer(1, 100_000), Is("3"),
        "Number of partitions of a created topic.";
    CREATE_TOPICS_REPLICATION: Key<i32> = "sink.create_topics.replication", KAFKA, kind::integer(1, 100), Is("1"),
        "Number of replicas of a created topic.";
    CREATE_TOPICS_CONFIG: OptionalKey<BTreeMap<String, String>> =
        "sink.create_topics.config", KAFKA, kind::PROPERTIES, Absent("{ \"retention.ms\" = -1 }"),
        "Settings of a created topic, by Kafka's names, such as `cleanup.policy` and `retention.ms`. Default: those of the cluster. The topics of checkpoint and dead letters have their own settings.";
    QUEUES_NAME: Key<String> = "sink.queues.name", AMQP, kind::TEXT, Required("billing"), "The name of the durable queue.";
    QUEUES_KEYS: Key<Vec<String>> = "sink.queues.keys", AMQP, kind::LIST, Required("[\"public.orders.*\"]"),
        "Binding keys: words separated by dots; `*` matches one word, `#` any number of words.";
    QUEUES_TYPE: Key<QueueType> = "sink.queues.type", AMQP, kind::choice(), Is("quorum"),
        "`quorum`: replicated. `classic`: on one node. `stream`: an append-only log; reading does not remove messages.";
}
