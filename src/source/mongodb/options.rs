//! The settings of a MongoDB source.

use super::cluster::SameCluster;
use crate::net::Trust;
use crate::net::secret::Secret;
use std::sync::Arc;

/// How to reach the cluster, and how its documents are published.
#[derive(Clone, Debug)]
pub struct Options {
    /// Members of the replica set, or routers of the sharded cluster: host and port. They are asked in this order; one that answers tells the
    /// primary.
    pub hosts: Vec<(String, u16)>,
    /// How to log in; `None` for a server without access control.
    pub login: Option<Login>,
    /// The database whose collections are followed.
    pub database: String,
    /// Encryption.
    pub trust: Trust,
    /// Whether an update carries the whole document: the post-image.
    pub full_document: Image,
    /// Whether changes carry the document before: the pre-image.
    pub pre_images: Image,
    /// How values of BSON are spelled that JSON does not have.
    pub spelling: Spelling,
    /// How many sessions read a collection at once.
    pub prefeed_readers: usize,
    /// Name of the pipeline, as the server logs it.
    pub pipeline: Arc<str>,
    /// The cluster that all sessions must reach.
    pub cluster: SameCluster,
}

/// How to log in.
#[derive(Clone, Debug)]
pub enum Login {
    /// SCRAM-SHA-256, or SCRAM-SHA-1 where the user has no other.
    Scram {
        /// The user.
        user: String,
        /// The user's password.
        password: Secret,
        /// The database that holds the user.
        database: String,
    },
    /// With the client certificate of the connection: the user is its subject.
    X509,
}

impl Login {
    /// The user, for messages.
    pub(super) fn user(&self) -> &str {
        match self {
            Self::Scram { user, .. } => user,
            Self::X509 => "of the certificate",
        }
    }
}

/// Whether an image of a document is asked for, which the server stores only where the collection says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Image {
    /// It is not asked for.
    Off,
    /// It is published where the server has it.
    #[default]
    WhenAvailable,
    /// Each collection must store it, and a change without it stops the pipeline.
    Required,
}

impl Image {
    /// The value of the change stream's option; `None` where the option is left out.
    pub(super) const fn option(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            Self::WhenAvailable => Some("whenAvailable"),
            Self::Required => Some("required"),
        }
    }
}

/// How values of BSON are spelled that JSON does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spelling {
    /// As what they mean: an `ObjectId` is a text, a date a timestamp. `_id` is spelled as with `Relaxed`, so that no two keys look alike.
    #[default]
    Plain,
    /// MongoDB Extended JSON v2, relaxed: numbers and dates are readable.
    Relaxed,
    /// MongoDB Extended JSON v2, canonical: every value has its type.
    Canonical,
}

impl Options {
    /// The hosts, for messages.
    pub(super) fn addresses(&self) -> String {
        self.hosts.iter().map(|(host, port)| address(host, *port)).collect::<Vec<_>>().join(", ")
    }
}

/// Host and port, for messages and as servers name each other.
pub(super) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
