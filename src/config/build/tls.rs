//! The TLS settings of a server.

use super::address::{is_this_machine, unreadable};
use super::setting_reader::SettingReader;
use crate::config::key::{Key, OptionalKey};
#[cfg(feature = "amqp")]
use crate::config::settings::sink;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb", feature = "rethinkdb"))]
use crate::config::settings::source;
use crate::fault::Code;
use crate::net::{TlsMode, Trust};
use std::path::PathBuf;

/// The TLS settings of a section.
pub(super) struct TlsKeys {
    section: &'static str,
    pub(super) mode: Key<TlsMode>,
    ca_file: OptionalKey<PathBuf>,
    cert_file: OptionalKey<PathBuf>,
    key_file: OptionalKey<PathBuf>,
}

impl TlsKeys {
    #[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb", feature = "rethinkdb"))]
    pub(super) const SOURCE: Self =
        Self { section: "source", mode: source::TLS, ca_file: source::CA_FILE, cert_file: source::CERT_FILE, key_file: source::KEY_FILE };
    #[cfg(feature = "amqp")]
    pub(super) const SINK: Self =
        Self { section: "sink", mode: sink::TLS, ca_file: sink::CA_FILE, cert_file: sink::CERT_FILE, key_file: sink::KEY_FILE };
}

impl SettingReader<'_> {
    /// Which servers to trust. Warns of plain text to another machine.
    pub(super) fn trust<'h>(&mut self, keys: &TlsKeys, mode: TlsMode, hosts: impl IntoIterator<Item = &'h str>) -> Trust {
        let TlsKeys { section, mode: tls, ca_file: ca, cert_file: certificate, key_file: key } = keys;
        let ca_file = self.optional(ca);
        if mode == TlsMode::Disable {
            if let Some(host) = hosts.into_iter().find(|host| !is_this_machine(host)) {
                let message = format!("password and rows are sent to {host} in plain text: set {section}.tls = \"verify_full\"");
                self.warn(Code::PlainText, tls, message);
            }
            if ca_file.is_some() {
                let message = format!("unused with {section}.tls = \"disable\": leave it out, or change {section}.tls");
                self.refuse(Code::ConfigContradictory, ca, message);
            }
        }
        let client = match (self.optional(certificate), self.optional(key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                let message = format!("a certificate needs its private key: set {section}.key_file");
                self.refuse(Code::ConfigContradictory, certificate, message);
                None
            }
            (None, Some(_)) => {
                let message = format!("a private key needs its certificate: set {section}.cert_file");
                self.refuse(Code::ConfigContradictory, key, message);
                None
            }
        };
        let trusted = ca_file.iter().filter(|_| mode != TlsMode::Disable).map(|path| (ca, path));
        let own = client.iter().flat_map(|(own, private)| [(certificate, own), (key, private)]);
        for (key, path) in trusted.chain(own) {
            if let Some(reason) = unreadable(path) {
                self.refuse(Code::SecretUnreadable, key, reason);
            }
        }
        Trust { mode, ca_file, client, section }
    }
}
