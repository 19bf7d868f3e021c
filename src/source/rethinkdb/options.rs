//! The settings of a RethinkDB source.

use crate::net::Trust;
use crate::net::secret::Secret;
use std::path::PathBuf;
use std::sync::Arc;

/// How to reach the server, and where the source keeps what it has received.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host name or address.
    pub host: String,
    /// Port of the driver protocol.
    pub port: u16,
    /// User to log in as.
    pub user: String,
    /// Password; `None` for a user without one.
    pub password: Option<Secret>,
    /// The database whose tables are followed.
    pub database: String,
    /// Encryption.
    pub trust: Trust,
    /// The file of the local store. It must outlive the process.
    pub store: PathBuf,
    /// How many bytes of changes may wait in the local store. Beyond, no more changes are asked for.
    pub store_log_max_bytes: u64,
    /// How many changes of one table the server may queue for us (`changefeed_queue_size`).
    pub queue_size: u32,
    /// Name of the pipeline, to which the store belongs.
    pub pipeline: Arc<str>,
}

impl Options {
    /// Host and port, for messages.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}
