//! TLS by OpenSSL: authorities, the four modes, and errors that say what to do.

use super::failure::{Distrust, Failure};
use super::trust::{TlsMode, Trust};
use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use openssl::x509::X509VerifyResult;
use openssl::x509::store::X509StoreBuilder;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Results of `X509_verify_cert` (OpenSSL's `x509_vfy.h`).
const CERTIFICATE_EXPIRED: i32 = 10;
const SELF_SIGNED: [i32; 2] = [18, 19];
const ISSUER_UNKNOWN: [i32; 3] = [2, 20, 21];
const NAME_MISMATCH: [i32; 2] = [62, 64];

/// One handshake: what checks the server's certificate as far as the mode asks for, and shows ours.
pub struct Handshake {
    /// Makes the connection.
    pub connector: SslConnector,
    /// What was wrong with the server's certificate, if anything was.
    verdict: Arc<Mutex<X509VerifyResult>>,
    host: String,
    section: &'static str,
}

impl Handshake {
    /// Reads the files that the trust names.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn new(host: String, trust: &Trust) -> Result<Self, Failure> {
        let verdict = Arc::new(Mutex::new(X509VerifyResult::OK));
        let connector = connector(trust, &verdict).map_err(Failure::Tls)?;
        Ok(Self { connector, verdict, host, section: trust.section })
    }

    /// Why it failed: what to do where one side refused the other; else the connection broke in its middle.
    #[must_use]
    pub fn failed(&self, error: std::io::Error) -> Failure {
        let verdict = *self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        match refusal(&error, verdict, &self.host, self.section) {
            Some(refusal) => Failure::Tls(refusal),
            None => Failure::Connection(error),
        }
    }
}

/// Says why one side refused the handshake, and what to do; `None` where the connection broke in its middle.
fn refusal(error: &impl fmt::Display, verdict: X509VerifyResult, host: &str, section: &str) -> Option<String> {
    let text = error.to_string();
    let distrust = match verdict.as_raw() {
        code if NAME_MISMATCH.contains(&code) => Distrust::Name,
        code if SELF_SIGNED.contains(&code) || ISSUER_UNKNOWN.contains(&code) => Distrust::Authority,
        CERTIFICATE_EXPIRED => Distrust::Expired,
        _ if verdict != X509VerifyResult::OK => return Some(format!("the server's certificate is refused: {}", verdict.error_string())),
        _ if text.contains("wrong version number") => Distrust::Unencrypted,
        // An alert of the server, or what is no TLS; else the socket ended or failed.
        _ if text.contains("SSL routines") => return Some(text),
        _ => return None,
    };
    Some(distrust.remedy(host, section))
}

/// A file and what is wrong with it: in the system's words where it cannot be opened, which OpenSSL would wrap in its own.
fn unfit_file(path: &Path, error: &ErrorStack) -> String {
    let reason = File::open(path).err().map_or_else(|| error.to_string(), |unopened| unopened.to_string());
    format!("{}: {reason}", path.display())
}

fn connector(trust: &Trust, verdict: &Arc<Mutex<X509VerifyResult>>) -> Result<SslConnector, String> {
    let section = trust.section;
    let unfit = |error: ErrorStack| error.to_string();
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(unfit)?;
    if let Some(path) = &trust.ca_file {
        // Instead of the system's authorities, which a new builder trusts.
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
    let verdict = Arc::clone(verdict);
    builder.set_verify_callback(SslVerifyMode::PEER, move |is_fit, context| {
        let is_accepted = match mode {
            TlsMode::Disable | TlsMode::Require => true,
            TlsMode::VerifyCa => is_fit || NAME_MISMATCH.contains(&context.error().as_raw()),
            TlsMode::VerifyFull => is_fit,
        };
        if !is_accepted {
            *verdict.lock().unwrap_or_else(PoisonError::into_inner) = context.error();
        }
        is_accepted
    });
    Ok(builder.build())
}
