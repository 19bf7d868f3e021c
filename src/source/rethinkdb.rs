//! RethinkDB.

mod document;
mod error;
mod handshake;
mod key;
mod options;
mod query;
mod response;
mod scan;
mod scram;
mod server_error;
mod session;
mod time;
mod value;
mod wire;

pub use error::Error;
pub use handshake::HandshakeError;
pub use options::Options;
pub use scram::ScramError;
pub use server_error::{ErrorKind, ServerError};
