//! The settings of a PostgreSQL source.

use super::instance::SameServer;
use crate::net::secret::Secret;
use crate::net::{RequireAuth, Trust};
use std::sync::Arc;

/// What to do when a column is added whose default changes existing rows. The log does not show such a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAddedDefault {
    /// Read the table's rows again.
    #[default]
    Prefeed,
    /// Nothing: readers know the default.
    Ignore,
}

/// How to reach the server, and which slot and publication to use there.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role to log in as; it needs REPLICATION.
    pub user: String,
    /// Password; `None` for `trust` and client certificates.
    pub password: Option<Secret>,
    /// Database.
    pub database: String,
    /// Encryption.
    pub trust: Trust,
    /// The weakest login method that is accepted from a server whose certificate is not verified.
    pub require_auth: RequireAuth,
    /// Name of the replication slot.
    pub slot: String,
    /// Name of the publication.
    pub publication: String,
    /// Whether feedline creates and changes the slot and the publication; otherwise it only verifies them.
    pub manage: bool,
    /// How many sessions read existing rows at the same time.
    pub prefeed_readers: usize,
    /// What to do when a column is added whose default changes existing rows.
    pub on_added_default: OnAddedDefault,
    /// Name of the pipeline; part of the sessions' `application_name`.
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
