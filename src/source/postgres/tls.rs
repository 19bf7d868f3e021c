//! TLS with a PostgreSQL server: roots, the four modes, channel binding, and errors that say what to do.

use super::error::Error;
use super::{Options, TlsMode};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, SignatureScheme, SupportedCipherSuite,
};

/// Encrypts a connection whose server has agreed to it.
pub(super) async fn encrypt(stream: TcpStream, options: &Options, address: &str) -> Result<Box<TlsStream<TcpStream>>, Error> {
    let failed = |reason: String| Error::Tls { address: address.to_owned(), reason };
    let name = ServerName::try_from(options.host.clone())
        .map_err(|_| failed(format!("{:?} is neither a host name nor an address", options.host)))?;
    let for_thread = options.clone();
    // Reading the system's roots takes milliseconds.
    let config = tokio::task::spawn_blocking(move || configuration(&for_thread)).await;
    let config = config.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    stream.map(Box::new).map_err(|error| handshake_failed(error, options, address))
}

fn handshake_failed(error: io::Error, options: &Options, address: &str) -> Error {
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<RustlsError>()) else {
        return Error::Connection { address: address.to_owned(), source: error };
    };
    let reason = match cause {
        RustlsError::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            format!("the server's certificate is not for {:?}; set source.host to a name in it, or source.tls to verify_ca", options.host)
        }
        RustlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is signed by an unknown authority; set source.ca_file to that authority's certificate".to_owned()
        }
        RustlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the server's certificate has expired; renew it".to_owned()
        }
        other => other.to_string(),
    };
    Error::Tls { address: address.to_owned(), reason }
}

fn configuration(options: &Options) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    // As libpq does: an authority that is named is checked even where only encryption is required.
    let mode = match options.tls {
        TlsMode::Require if options.ca_file.is_some() => TlsMode::VerifyCa,
        mode => mode,
    };
    let verifier =
        Arc::new(Verifier { provider: Arc::clone(&provider), roots: roots(mode, options, &provider)?, named: mode == TlsMode::VerifyFull });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (&options.client_cert, &options.client_key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("source.client_key {}: {error}", key.display()))?;
            builder.with_client_auth_cert(certificates(cert)?, key).map_err(|error| format!("source.client_cert: {error}"))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("{}: no certificate in it", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn roots(mode: TlsMode, options: &Options, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<WebPkiServerVerifier>>, String> {
    if !matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
        return Ok(None);
    }
    let mut store = RootCertStore::empty();
    match &options.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                store.add(certificate).map_err(|error| format!("source.ca_file {}: {error}", path.display()))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .map(Some)
        .map_err(|_| "this system has no trusted authorities; set source.ca_file".to_owned())
}

/// Verifies as much as the mode asks for: nothing, the authority, or the authority and the name.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: Option<Arc<WebPkiServerVerifier>>,
    named: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        match roots.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at last: all else was in order.
            Err(RustlsError::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }))
                if !self.named =>
            {
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

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
