//! The MySQL and MariaDB source.
//!
//! | question | file |
//! |---|---|
//! | what do the bytes of the log say? | `binlog.rs` |
//! | how does a row become cells? | `row.rs`, `kind.rs`, `charset.rs`; what is a table's relation? `relation.rs` |
//! | how is the server reached, and is it the right one? | `session.rs`, `wire.rs`; `instance.rs` |
//! | what does the catalogue say, and what does a checkpoint remember of it? | `catalogue.rs`, `tables.rs`; `layout.rs` |
//! | how is the log opened, and where? | `events.rs`, `gtid_set.rs` |
//! | what is a place in the log, and the name of a transaction? | `token.rs`, `transaction_id.rs` |
//! | how is the log read? | `connector.rs`, `log.rs`, `flow.rs`; the rows of XA transactions: `replay.rs`, `xa.rs` |
//! | is it the log that was read, and does it go on? | `history.rs`, `identity.rs`, `head.rs`, `probe.rs` |
//! | what must hold before a start, and how long is the log kept? | `preflight.rs`, `requirements.rs`, `grants.rs`, `cascades.rs`, `variables.rs`; `retention.rs` |
//! | what differs between the products and their versions? | `version.rs` |

pub mod binlog;
mod cascades;
mod catalogue;
pub mod charset;
mod clock;
mod connector;
mod error;
mod events;
mod flow;
mod grants;
mod gtid_set;
mod head;
mod hex;
mod history;
mod identity;
mod instance;
pub mod kind;
mod layout;
mod log;
mod lookup;
mod options;
mod prefeed;
mod preflight;
mod probe;
mod quote;
mod relation;
mod replay;
mod requirements;
mod retention;
pub mod row;
mod server_error;
mod session;
mod tables;
mod token;
mod transaction_id;
mod variables;
mod version;
mod wire;
mod xa;

pub use connector::Connector;
pub use error::Error;
pub use events::{Arrived, Events, Start};
pub use gtid_set::{GtidSet, NotASet};
pub use instance::SameServer;
pub use log::Log;
pub use options::Options;
pub use prefeed::Rows;
pub use probe::Probe;
pub use server_error::ServerError;
pub use session::Session;
pub use token::{Change, Token};
