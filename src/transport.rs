//! Sockets to servers, encrypted or not: whom they trust, and what they do when nobody is there any more.

use std::path::PathBuf;

#[cfg(feature = "tls")]
mod socket;
#[cfg(feature = "tls")]
mod tls;

#[cfg(feature = "tls")]
pub use socket::{Socket, connect};
#[cfg(feature = "tls")]
pub use tls::encrypt;

/// How far a server's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Not encrypted.
    Disable,
    /// Encrypted; the server may be anybody, unless an authority is named.
    Require,
    /// Encrypted; the server's certificate is signed by a trusted authority.
    VerifyCa,
    /// As before, and the certificate is for the configured host.
    #[default]
    VerifyFull,
}

/// Whom a connection trusts, and what it shows of itself.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Encryption.
    pub mode: TlsMode,
    /// Authorities to trust instead of the system's: PEM.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and its private key: PEM.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The section of the configuration that says so, for errors: `source` or `sink`.
    pub section: &'static str,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Failure {
    /// The server is not there, or went away.
    Connection(std::io::Error),
    /// It is there, and is not trusted or does not trust us; with the remedy.
    Tls(String),
}
