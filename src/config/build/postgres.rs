//! Builds the options of a PostgreSQL source.

use super::address::is_host;
use super::setting_reader::SettingReader;
use super::tls::TlsKeys;
use super::url;
use crate::config::settings::{process, source};
use crate::fault::Code;
use crate::source::postgres::{Options, SameServer};
use std::sync::Arc;

const URL: url::Form = url::Form { schemes: &["postgres", "postgresql"], expected: "expected postgres://user@host:port/database" };

impl SettingReader<'_> {
    pub(super) fn postgres(&mut self, name: &Arc<str>) -> Options {
        let parts = self.url(&source::URL, URL, &[&source::HOST, &source::PORT, &source::USER, &source::DATABASE]);
        // An invalid URL has no scheme, and was refused already.
        if parts.scheme.is_some() && parts.path.is_none() {
            self.refuse(Code::ConfigMissing, &source::URL, "names no database: expected postgres://user@host:port/database");
        }
        let is_in_url = parts.scheme.is_some();
        let host = self.given_or_get(parts.host, &source::HOST);
        self.check_host(&host, is_in_url);
        let tls = TlsKeys::SOURCE;
        Options {
            trust: self.trust(&tls, self.get(&tls.mode), [host.as_str()]),
            host,
            port: self.given_or_get(parts.port, &source::PORT),
            user: self.given_or_get(parts.user, &source::USER),
            password: self.optional(&source::PASSWORD),
            database: parts.path.unwrap_or_else(|| self.get(&source::DATABASE)),
            require_auth: self.get(&source::REQUIRE_AUTH),
            slot: self.slot(name),
            publication: self.optional_or(&source::PUBLICATION, format!("feedline_{name}")),
            manage: self.get(&source::MANAGE),
            prefeed_readers: self.get(&process::PREFEED_READERS),
            on_added_default: self.get(&source::ON_ADDED_DEFAULT),
            pipeline: Arc::clone(name),
            server: SameServer::default(),
        }
    }

    fn check_host(&mut self, host: &str, is_in_url: bool) {
        let setting = if is_in_url { source::URL.setting() } else { source::HOST.setting() };
        if host.starts_with('/') {
            self.refuse(Code::ConfigUnsupported, &setting, "Unix sockets are not supported in this version: name a host");
        } else if !host.is_empty() && !is_host(host) {
            let message = "expected one host name or address; set the port in source.port, or use source.url";
            self.refuse(Code::ConfigInvalid, &setting, message);
        }
    }

    fn slot(&mut self, name: &str) -> String {
        let slot = self.optional_or(&source::SLOT, format!("feedline_{name}"));
        // ReplicationSlotValidateName of PostgreSQL's slot.c: lower-case letters, digits, underscores, at most 63 bytes.
        if 63 < slot.len() || !slot.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
            self.refuse(Code::ConfigInvalid, &source::SLOT, "expected at most 63 lower-case letters, digits or underscores");
        }
        slot
    }
}
