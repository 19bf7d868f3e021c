//! The TLS channel binding for SCRAM, from the server's certificate.

use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::SslRef;

/// The `tls-server-end-point` binding (RFC 5929, 4): the server's certificate under the hash of its signature, SHA-256 for
/// older ones. `None` for signatures that name no hash (RSA-PSS, Ed25519): SCRAM is then used without channel binding.
pub(super) fn server_end_point(session: &SslRef) -> Option<Vec<u8>> {
    let certificate = session.peer_certificate()?;
    let hash = match certificate.signature_algorithm().object().nid().signature_algorithms()?.digest {
        Nid::MD5 | Nid::SHA1 => Nid::SHA256,
        hash => hash,
    };
    certificate.digest(MessageDigest::from_nid(hash)?).ok().map(|digest| digest.to_vec())
}
