//! PostgreSQL 14 and later: a logical replication slot with the `pgoutput` plugin, read by a thin client of our own.
//!
//! The stream is protocol version 1 without streaming, so that a row on the wire belongs to a transaction that has
//! committed and is never taken back. What the server may forget is told to it only from a durable checkpoint (I1).

mod array;
mod aside;
mod catalogue;
mod channel_binding;
mod charset;
mod connector;
mod error;
mod flow;
mod history;
mod identity;
mod instance;
mod log;
pub mod pgoutput;
mod prefeed;
mod preflight;
mod probe;
mod publication;
mod requirements;
mod row;
mod session;
mod slot;
mod standby;
mod survey;
mod tables;
mod token;
mod types;
mod version;
mod wire;

pub use connector::Connector;
pub use error::{Error, ServerError};
pub use instance::SameServer;
pub use log::Log;
pub use prefeed::Rows;
pub use probe::Probe;

use crate::net::secret::Secret;
use crate::net::{RequireAuth, Trust};
use std::sync::Arc;

/// What follows when a column is added whose default changes existing rows, of which the log says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAddedDefault {
    /// The table's rows are read again.
    #[default]
    Prefeed,
    /// Nothing: readers know the default.
    Ignore,
}

/// Where the source is, and what is ours in it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role; it needs REPLICATION.
    pub user: String,
    /// Password; none for trust and client certificates.
    pub password: Option<Secret>,
    /// Database.
    pub database: String,
    /// Encryption.
    pub trust: Trust,
    /// Which login is accepted where the server's certificate is not verified.
    pub require_auth: RequireAuth,
    /// Replication slot.
    pub slot: String,
    /// Publication.
    pub publication: String,
    /// Whether slot and publication are made and kept by us; else they are only verified.
    pub manage: bool,
    /// How many sessions read existing rows at once.
    pub prefeed_readers: usize,
    /// What follows when a column is added whose default changes existing rows.
    pub on_added_default: OnAddedDefault,
    /// The pipeline's name, shown to the server as the application's.
    pub pipeline: Arc<str>,
    /// The server that all sessions must reach.
    pub server: SameServer,
}

impl Options {
    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// A name as SQL writes it.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Text as SQL writes it. The server's `standard_conforming_strings` is on since version 9.1.
fn literal(text: &str) -> String {
    if text.contains('\\') {
        return format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// A table as SQL writes it.
fn table(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}
