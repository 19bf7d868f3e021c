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
mod kind;
mod log;
mod options;
pub mod pgoutput;
mod prefeed;
mod preflight;
mod probe;
mod publication;
mod quote;
mod requirements;
mod row;
mod server_error;
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
pub use error::Error;
pub use instance::SameServer;
pub use log::Log;
pub use options::{OnAddedDefault, Options};
pub use prefeed::Rows;
pub use probe::Probe;
pub use server_error::ServerError;
