//! Connections to servers: sockets, TLS, trust, secrets.

#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb", feature = "rethinkdb"))]
mod buffered;
mod failure;
#[cfg(any(feature = "mongodb", feature = "rethinkdb"))]
mod scram;
pub mod secret;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb", feature = "rethinkdb"))]
mod socket;
#[cfg(feature = "tls")]
mod tls;
mod trust;

#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb", feature = "rethinkdb"))]
pub use buffered::Buffered;
pub use failure::Failure;
#[cfg(any(feature = "mongodb", feature = "rethinkdb"))]
pub use scram::{Scram, ScramError, ScramHash};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb", feature = "rethinkdb"))]
pub use socket::{Socket, connect, encrypt};
#[cfg(feature = "tls")]
pub use tls::Handshake;
pub use trust::{RequireAuth, TlsMode, Trust};
