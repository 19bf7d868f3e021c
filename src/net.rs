//! Connections to servers: sockets, TLS, trust, secrets.

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod buffered;
mod failure;
pub mod secret;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod socket;
#[cfg(feature = "tls")]
mod tls;
mod trust;

#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use buffered::Buffered;
pub use failure::Failure;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use socket::{Socket, connect, encrypt};
#[cfg(feature = "tls")]
pub use tls::Handshake;
pub use trust::{RequireAuth, TlsMode, Trust};
