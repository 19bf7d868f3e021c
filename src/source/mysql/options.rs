//! The settings of a MySQL source.

use super::instance::SameServer;
use crate::net::secret::Secret;
use crate::net::{RequireAuth, Trust};
use std::sync::Arc;

/// How to reach the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User to log in as.
    pub user: String,
    /// Password; `None` for a user without one, and for client certificates.
    pub password: Option<Secret>,
    /// The schema of tables that are named without one. MySQL calls schemas databases.
    pub database: String,
    /// Encryption.
    pub trust: Trust,
    /// The weakest login method that is accepted from a server whose certificate is not verified.
    pub require_auth: RequireAuth,
    /// The number by which the server knows this reader of its log: no replica and no other reader may have it.
    pub server_id: u32,
    /// How many sessions read existing rows at the same time.
    pub prefeed_readers: usize,
    /// Name of the pipeline; the server shows it among the attributes of each session.
    pub pipeline: Arc<str>,
    /// The server that all sessions must reach.
    pub server: SameServer,
}

impl Options {
    /// Host and port, for messages.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}
