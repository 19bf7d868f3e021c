//! TLS: roots, the four modes, and errors that say what to do.

use super::{Distrust, Failure, TlsMode, Trust};
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
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, SignatureScheme};

/// Encrypts a connection whose server expects that.
///
/// # Errors
/// [`Failure::Tls`] where one side does not trust the other, with the remedy.
pub async fn encrypt(stream: TcpStream, host: &str, trust: &Trust) -> Result<Box<TlsStream<TcpStream>>, Failure> {
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| Failure::Tls(format!("{host:?} is neither a host name nor an address")))?;
    let for_thread = trust.clone();
    // Reading the system's roots takes milliseconds.
    let config = tokio::task::spawn_blocking(move || configuration(&for_thread)).await;
    let config = config.map_err(|error| Failure::Tls(error.to_string()))?.map_err(Failure::Tls)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    stream.map(Box::new).map_err(|error| handshake_failed(error, host, trust.section))
}

fn handshake_failed(error: io::Error, host: &str, section: &str) -> Failure {
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<RustlsError>()) else { return Failure::Connection(error) };
    let distrust = match cause {
        RustlsError::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            Distrust::Name
        }
        RustlsError::InvalidCertificate(CertificateError::UnknownIssuer) => Distrust::Authority,
        RustlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => Distrust::Expired,
        RustlsError::InvalidMessage(_) => Distrust::Unencrypted,
        other => return Failure::Tls(other.to_string()),
    };
    Failure::Tls(distrust.remedy(host, section))
}

fn configuration(trust: &Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let mode = trust.effective_mode();
    let verifier =
        Arc::new(Verifier { provider: Arc::clone(&provider), roots: roots(mode, trust, &provider)?, named: mode == TlsMode::VerifyFull });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let section = trust.section;
    match &trust.client {
        Some((cert, key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{section}.key_file {}: {error}", key.display()))?;
            let certificates = certificates(cert).map_err(|reason| format!("{section}.cert_file {reason}"))?;
            builder.with_client_auth_cert(certificates, key).map_err(|error| format!("{section}.cert_file: {error}"))
        }
        None => Ok(builder.with_no_client_auth()),
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

fn roots(mode: TlsMode, trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<WebPkiServerVerifier>>, String> {
    if !matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
        return Ok(None);
    }
    let section = trust.section;
    let mut store = RootCertStore::empty();
    match &trust.ca_file {
        Some(path) => {
            for certificate in certificates(path).map_err(|reason| format!("{section}.ca_file {reason}"))? {
                store.add(certificate).map_err(|error| format!("{section}.ca_file {}: {error}", path.display()))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .map(Some)
        .map_err(|_| format!("this system has no trusted authorities; set {section}.ca_file"))
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
