//! TLS with OpenSSL: authorities, the four modes, and errors with a remedy.

use super::failure::{Failure, Untrusted};
use super::trust::{TlsMode, Trust};
use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use openssl::x509::X509VerifyResult;
use openssl::x509::store::X509StoreBuilder;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Results of `X509_verify_cert`, from OpenSSL's `x509_vfy.h`.
const CERTIFICATE_EXPIRED: i32 = 10;
const SELF_SIGNED: [i32; 2] = [18, 19];
const ISSUER_UNKNOWN: [i32; 3] = [2, 20, 21];
const NAME_MISMATCH: [i32; 2] = [62, 64];

/// One TLS handshake: verifies the server's certificate as the mode demands, and presents the client's.
pub struct Handshake {
    /// Performs the handshake.
    pub connector: SslConnector,
    /// The result of the verification.
    verify_result: Arc<Mutex<X509VerifyResult>>,
    host: String,
    section: &'static str,
}

impl Handshake {
    /// Reads the certificate files.
    ///
    /// # Errors
    /// Names the file that cannot be used, and why.
    pub fn new(host: String, trust: &Trust) -> Result<Self, Failure> {
        let verify_result = Arc::new(Mutex::new(X509VerifyResult::OK));
        let connector = connector(trust, &verify_result).map_err(Failure::Tls)?;
        Ok(Self { connector, verify_result, host, section: trust.section })
    }

    /// Why the handshake failed: one side refused the other, or the connection broke.
    #[must_use]
    pub fn failed(&self, error: std::io::Error) -> Failure {
        let verify_result = *self.verify_result.lock().unwrap_or_else(PoisonError::into_inner);
        match refusal(&error, verify_result, &self.host, self.section) {
            Some(refusal) => Failure::Tls(refusal),
            None => Failure::Connection(error),
        }
    }
}

/// Why one side refused the other, with the remedy; `None` if the connection broke.
fn refusal(error: &impl fmt::Display, verify_result: X509VerifyResult, host: &str, section: &str) -> Option<String> {
    let text = error.to_string();
    let problem = match verify_result.as_raw() {
        code if NAME_MISMATCH.contains(&code) => Untrusted::Name,
        code if SELF_SIGNED.contains(&code) || ISSUER_UNKNOWN.contains(&code) => Untrusted::Authority,
        CERTIFICATE_EXPIRED => Untrusted::Expired,
        _ if verify_result != X509VerifyResult::OK => {
            return Some(format!("the server's certificate is refused: {}", verify_result.error_string()));
        }
        _ if text.contains("wrong version number") => Untrusted::Unencrypted,
        // The server sent an alert, or something that is not TLS. Everything else is a failure of the socket.
        _ if text.contains("SSL routines") => return Some(text),
        _ => return None,
    };
    Some(problem.remedy(host, section))
}

/// Names a file and what is wrong with it. If it cannot be opened, the system's error is shorter than OpenSSL's.
fn unfit_file(path: &Path, error: &ErrorStack) -> String {
    let reason = File::open(path).err().map_or_else(|| error.to_string(), |unopened| unopened.to_string());
    format!("{}: {reason}", path.display())
}

fn connector(trust: &Trust, verify_result: &Arc<Mutex<X509VerifyResult>>) -> Result<SslConnector, String> {
    let section = trust.section;
    let unfit = |error: ErrorStack| error.to_string();
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(unfit)?;
    if let Some(path) = &trust.ca_file {
        // Replaces the system's authorities, which a new builder trusts.
        builder.set_cert_store(X509StoreBuilder::new().map_err(unfit)?.build());
        builder.set_ca_file(path).map_err(|error| format!("{section}.ca_file {}", unfit_file(path, &error)))?;
    }
    if let Some((certificate, key)) = &trust.client {
        builder
            .set_certificate_chain_file(certificate)
            .map_err(|error| format!("{section}.cert_file {}", unfit_file(certificate, &error)))?;
        builder
            .set_private_key_file(key, SslFiletype::PEM)
            .and_then(|()| builder.check_private_key())
            .map_err(|error| format!("{section}.key_file {}", unfit_file(key, &error)))?;
    }
    let mode = trust.effective_mode();
    let verify_result = Arc::clone(verify_result);
    builder.set_verify_callback(SslVerifyMode::PEER, move |is_fit, context| {
        let is_accepted = match mode {
            TlsMode::Disable | TlsMode::Require => true,
            TlsMode::VerifyCa => is_fit || NAME_MISMATCH.contains(&context.error().as_raw()),
            TlsMode::VerifyFull => is_fit,
        };
        if !is_accepted {
            *verify_result.lock().unwrap_or_else(PoisonError::into_inner) = context.error();
        }
        is_accepted
    });
    Ok(builder.build())
}
