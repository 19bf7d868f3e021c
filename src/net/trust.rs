//! Which servers a connection trusts: TLS modes, certificate files, accepted logins.

use std::path::PathBuf;

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

impl Trust {
    /// How far the certificate is checked in the end: as libpq does, an authority that is named is checked even where only
    /// encryption is required.
    #[must_use]
    pub fn effective_mode(&self) -> TlsMode {
        match self.mode {
            TlsMode::Require if self.ca_file.is_some() => TlsMode::VerifyCa,
            mode => mode,
        }
    }

    /// Whether a server has shown by its certificate that it is the one that is meant, once a connection is made.
    #[must_use]
    pub fn verifies(&self) -> bool {
        matches!(self.effective_mode(), TlsMode::VerifyCa | TlsMode::VerifyFull)
    }
}

/// Which login is accepted of a server whose certificate is not verified: this one, or a stronger one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequireAuth {
    /// None at all, although a password is configured.
    None,
    /// The password in clear text.
    Password,
    /// The password under MD5, from which it can be guessed.
    Md5,
    /// SCRAM-SHA-256, by which the server proves that it knows the password.
    #[default]
    Scram,
}

impl RequireAuth {
    /// As the configuration writes it.
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
