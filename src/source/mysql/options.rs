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
    /// Encryption.
    pub trust: Trust,
    /// The weakest login method that is accepted from a server whose certificate is not verified.
    pub require_auth: RequireAuth,
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
