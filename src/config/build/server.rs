//! Settings that all servers share: URL and TLS.

use super::setting_reader::SettingReader;
use crate::config::url;
use crate::fault::Code;
use crate::net::{TlsMode, Trust};
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

impl SettingReader<'_> {
    /// The parts of a URL. Settings for the same parts (`instead_of`) are refused.
    pub(super) fn url(&mut self, path: &str, form: url::Form, instead_of: &[&str]) -> url::Parts {
        let Some(text) = self.optional_text(path) else { return url::Parts::default() };
        for setting in instead_of {
            if self.given(setting).is_some() {
                self.refuse(Code::ConfigContradictory, setting, format!("is also set by {path}: keep one of the two"));
            }
        }
        url::parse(&text, form).unwrap_or_else(|message| {
            self.refuse(Code::ConfigInvalid, path, message);
            url::Parts::default()
        })
    }

    /// The mode that a section's `tls` names.
    pub(super) fn tls_mode(&self, section: &str) -> TlsMode {
        match self.text(&format!("{section}.tls")).as_str() {
            "disable" => TlsMode::Disable,
            "require" => TlsMode::Require,
            "verify_ca" => TlsMode::VerifyCa,
            _ => TlsMode::VerifyFull,
        }
    }

    /// The TLS settings of a section. Warns of plain text to another machine.
    pub(super) fn trust<'h>(&mut self, section: &'static str, mode: TlsMode, hosts: impl IntoIterator<Item = &'h str>) -> Trust {
        let setting = |key: &str| format!("{section}.{key}");
        let ca_file = self.optional_path(&setting("ca_file"));
        if mode == TlsMode::Disable {
            if let Some(host) = hosts.into_iter().find(|host| !is_this_machine(host)) {
                let message = format!("password and rows are sent to {host} in plain text: set {section}.tls = \"verify_full\"");
                self.warn(Code::PlainText, &setting("tls"), message);
            }
            if ca_file.is_some() {
                let message = format!("unused with {section}.tls = \"disable\": leave it out, or change {section}.tls");
                self.refuse(Code::ConfigContradictory, &setting("ca_file"), message);
            }
        }
        let client = match (self.optional_path(&setting("cert_file")), self.optional_path(&setting("key_file"))) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                let message = format!("a certificate needs its private key: set {section}.key_file");
                self.refuse(Code::ConfigContradictory, &setting("cert_file"), message);
                None
            }
            (None, Some(_)) => {
                let message = format!("a private key needs its certificate: set {section}.cert_file");
                self.refuse(Code::ConfigContradictory, &setting("key_file"), message);
                None
            }
        };
        let ca = ca_file.iter().filter(|_| mode != TlsMode::Disable).map(|path| ("ca_file", path));
        let own = client.iter().flat_map(|(certificate, key)| [("cert_file", certificate), ("key_file", key)]);
        for (key, path) in ca.chain(own) {
            if let Some(reason) = unreadable(path) {
                self.refuse(Code::SecretUnreadable, &setting(key), reason);
            }
        }
        Trust { mode, ca_file, client, section }
    }
}

/// Why a file cannot be read; `None` if it can.
pub(super) fn unreadable(path: &Path) -> Option<String> {
    let is_directory = || path.is_dir().then(|| "the file cannot be read: it is a directory; name the file in it".to_owned());
    match File::open(path) {
        Ok(_) => is_directory(),
        Err(error) => Some(format!("the file cannot be read: {error}; correct the path, or mount the file there")),
    }
}

/// Whether a server on this host is reached without a network.
pub(super) fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
