//! The PostgreSQL source, for version 14 and later: reads a logical replication slot with the `pgoutput` plugin, by a client of its own.
//!
//! The stream uses protocol version 1 without streaming of open transactions, so every row that arrives belongs to a committed transaction.
//! The server is told to discard log only up to a durable checkpoint (I1).
//!
//! | question | file |
//! |---|---|
//! | how is a server set up and opened? | `connector.rs` |
//! | what is there, what must hold before a start, what would it change, what may go wrong? | `preflight.rs`; `facts.rs`, `requirements.rs` |
//! | how is the server reached, and is it the right one? | `session.rs`, `wire.rs`; `instance.rs`, `identity.rs`, `history.rs` |
//! | how is the log read? | `log.rs`, `pgoutput.rs`, `flow.rs`, `token.rs`, `slot.rs` |
//! | what is observed while it is read? | `monitor.rs`, `log/catalogue_watch.rs`, `probe.rs` |
//! | how are existing rows read? | `prefeed.rs` |
//! | what does the log not show? | `survey.rs` |
//! | what is published, and by which key? | `publication.rs`, `tables.rs` |
//! | how does text become a cell? | `types.rs`, `kind.rs`, `array.rs`, `charset.rs` |

mod array;
mod catalogue;
mod channel_binding;
mod charset;
mod connector;
mod error;
mod facts;
mod flow;
mod history;
mod identity;
mod instance;
mod kind;
mod log;
mod monitor;
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
pub use token::{LogRow, Token};
