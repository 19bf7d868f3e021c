//! Why a connection could not be made, with the remedy.

/// Why a server is not trusted, in the cases that have a known remedy.
#[cfg(feature = "tls")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untrusted {
    /// The certificate is for another host name.
    Name,
    /// The certificate is not signed by a trusted authority.
    Authority,
    /// The certificate has expired.
    Expired,
    /// The server does not speak TLS.
    Unencrypted,
}

#[cfg(feature = "tls")]
impl Untrusted {
    /// The problem, and which setting to change.
    pub(super) fn remedy(self, host: &str, section: &str) -> String {
        match self {
            Self::Name => {
                format!("the server's certificate is not for {host:?}; set {section}.host to a name in it, or {section}.tls to verify_ca")
            }
            Self::Authority => {
                format!("the server's certificate is signed by an unknown authority; set {section}.ca_file to that authority's certificate")
            }
            Self::Expired => "the server's certificate has expired; renew it".to_owned(),
            Self::Unencrypted => format!("the server does not speak TLS; check {section}.port, or set {section}.tls"),
        }
    }
}

/// Why a connection failed.
#[derive(Debug)]
pub enum Failure {
    /// The server cannot be reached, or closed the connection.
    Connection(std::io::Error),
    /// One side does not trust the other. The text says why, with the remedy.
    Tls(String),
}
