//! The accepted kinds and values of settings, depending on the features of the build.

use crate::config::schema::{Choice, accepted, refused};

const NOT_YET: &str = "not in this version: set source.kind = \"sqlite\" or \"postgres\"";
const NO_SUCH_FORMAT: &str = "not in this version: set format.kind = \"json\" or \"cloudevents\"";
pub(super) const NO_TRANSACTIONS: &str = "not in this version: set delivery = \"at_least_once\"";

const fn feature(present: bool, value: &'static str, absent: &'static str) -> Choice {
    if present { accepted(value) } else { refused(value, absent) }
}

pub(super) const SOURCES: &[Choice] = &[
    feature(cfg!(feature = "sqlite"), "sqlite", "not in this build: build it with the feature `sqlite`"),
    feature(cfg!(feature = "postgres"), "postgres", "not in this build: build it with the feature `postgres`"),
    refused("mysql", NOT_YET),
    refused("mongodb", NOT_YET),
    refused("rethinkdb", NOT_YET),
];
pub(super) const SINKS: &[Choice] = &[
    feature(cfg!(feature = "kafka"), "kafka", "not in this build: build it with the feature `kafka`"),
    accepted("stdout"),
    accepted("file"),
    feature(cfg!(feature = "amqp"), "amqp", "not in this build: build it with the feature `amqp`"),
];
pub(super) const FORMATS: &[Choice] = &[
    accepted("json"),
    accepted("cloudevents"),
    refused("debezium", NO_SUCH_FORMAT),
    refused("maxwell", NO_SUCH_FORMAT),
    refused("avro", NO_SUCH_FORMAT),
    refused("protobuf", NO_SUCH_FORMAT),
];
pub(super) const TLS: &[Choice] = &[accepted("disable"), accepted("require"), accepted("verify_ca"), accepted("verify_full")];

pub(super) const SQLITE: &[&str] = &["sqlite"];
pub(super) const POSTGRES: &[&str] = &["postgres"];
pub(super) const KAFKA: &[&str] = &["kafka"];
pub(super) const AMQP: &[&str] = &["amqp"];
pub(super) const BROKERS: &[&str] = &["kafka", "amqp"];
pub(super) const FILE: &[&str] = &["file"];
pub(super) const TOPICS: &[&str] = &["kafka", "stdout", "file"];
pub(super) const ALL: &[&str] = &[];
