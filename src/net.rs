//! Connections to servers: sockets, TLS, trust, secrets.

mod failure;
pub mod secret;
#[cfg(feature = "postgres")]
mod socket;
#[cfg(feature = "tls")]
mod tls;
mod trust;

pub use failure::Failure;
#[cfg(feature = "postgres")]
pub use socket::{Socket, connect, encrypt};
#[cfg(feature = "tls")]
pub use tls::Handshake;
pub use trust::{RequireAuth, TlsMode, Trust};
