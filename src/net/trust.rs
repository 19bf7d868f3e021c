//! Which servers a connection trusts: TLS modes, certificate files, accepted logins.

use std::path::PathBuf;

/// How a server's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Not encrypted.
    Disable,
    /// Encrypted. The certificate is verified only if an authority is configured.
    Require,
    /// Encrypted. The certificate must be signed by a trusted authority.
    VerifyCa,
    /// Like `VerifyCa`, and the certificate must be for the configured host.
    #[default]
    VerifyFull,
}

/// Which servers a connection trusts, and the certificate that it presents.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Encryption and verification.
    pub mode: TlsMode,
    /// Authorities to trust instead of the system's (PEM).
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and private key (PEM).
    pub client: Option<(PathBuf, PathBuf)>,
    /// The section of the configuration, for error messages: `source` or `sink`.
    pub section: &'static str,
}

impl Trust {
    /// The mode that applies. As in libpq, a configured authority is verified even if the mode is `Require`.
    #[must_use]
    pub fn effective_mode(&self) -> TlsMode {
        match self.mode {
            TlsMode::Require if self.ca_file.is_some() => TlsMode::VerifyCa,
            mode => mode,
        }
    }

    /// Whether a connection proves by the certificate that the server is trusted.
    #[must_use]
    pub fn verifies(&self) -> bool {
        matches!(self.effective_mode(), TlsMode::VerifyCa | TlsMode::VerifyFull)
    }
}

/// The weakest login method that is accepted from a server whose certificate is not verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequireAuth {
    /// No login, although a password is configured.
    None,
    /// The password in clear text.
    Password,
    /// The password hashed with MD5, from which it can be guessed.
    Md5,
    /// SCRAM-SHA-256, with which the server proves that it knows the password.
    #[default]
    Scram,
}

impl RequireAuth {
    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::Scram => "scram",
        }
    }
}
