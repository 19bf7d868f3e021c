//! Why a connection could not be made, with the remedy.

/// What is wrong with a server that shall be trusted, where there is a remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// The certificate is for another name.
    Name,
    /// Nobody who is trusted signed it.
    Authority,
    /// It is too old.
    Expired,
    /// There is no TLS.
    Unencrypted,
}

impl Distrust {
    /// What is wrong, and what to set.
    #[must_use]
    pub fn remedy(self, host: &str, section: &str) -> String {
        match self {
            Self::Name => {
                format!("the server's certificate is not for {host:?}; set {section}.host to a name in it, or {section}.tls to verify_ca")
            }
            Self::Authority => {
                format!("the server's certificate is signed by an unknown authority; set {section}.ca_file to that authority's certificate")
            }
            Self::Expired => "the server's certificate has expired; renew it".to_owned(),
            Self::Unencrypted => format!("what answers there does not speak TLS; check {section}.port, or set {section}.tls"),
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Failure {
    /// The server is not there, or went away.
    Connection(std::io::Error),
    /// It is there, and is not trusted or does not trust us; with the remedy.
    Tls(String),
}
