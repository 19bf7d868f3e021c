//! What a proof of identity is bound to: the server's certificate as this side sees it.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::SupportedCipherSuite;
use tokio_rustls::rustls::crypto::ring;

/// The `tls-server-end-point` binding (RFC 5929, 4): the server's certificate under the hash of its signature, SHA-256 for
/// older ones. `None` for signatures whose hash is not at hand (SHA-512, RSA-PSS, Ed25519): SCRAM then goes unbound.
pub(super) fn server_end_point(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let length = signature_hash_bytes(certificate)?;
    let hash = ring::ALL_CIPHER_SUITES.iter().find_map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) => {
            let hash = suite.common.hash_provider;
            (hash.output_len() == length).then_some(hash)
        }
        SupportedCipherSuite::Tls12(_) => None,
    })?;
    Some(hash.hash(certificate).as_ref().to_vec())
}

/// How many bytes the hash of the certificate's signature has: 32 or 48.
fn signature_hash_bytes(certificate: &[u8]) -> Option<usize> {
    let (_, certificate, _) = der(certificate)?;
    let (_, _, after_body) = der(certificate)?;
    let (_, algorithm, _) = der(after_body)?;
    let (_, name, _) = der(algorithm)?;
    match name {
        // RSA (PKCS #1) with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256: RFC 8017, RFC 5758.
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 4 | 5 | 11]
        | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 1]
        | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2] => Some(32),
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 12] | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 3] => Some(48),
        _ => None,
    }
}

/// Tag, contents and rest of the first DER element.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}
