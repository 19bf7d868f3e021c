//! Reads where a database server is, and how feedline logs in.

use super::address::is_host;
use super::setting_reader::SettingReader;
use super::tls::TlsKeys;
use super::url;
use crate::config::settings::source;
use crate::fault::Code;
use crate::net::Trust;

/// What the connection to a kind of server looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) url: url::Form,
    pub(super) port: u16,
}

/// Where a server is, as which user feedline logs in, and which certificate it trusts.
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) trust: Trust,
}

impl SettingReader<'_> {
    pub(super) fn server(&mut self, kind: Kind) -> Server {
        let instead_of = [&*source::HOST, &*source::PORT, &*source::USER, &*source::DATABASE];
        let parts = self.url(&source::URL, kind.url, &instead_of);
        // An invalid URL has no scheme, and was refused already.
        if parts.scheme.is_some() && parts.path.is_none() {
            self.refuse(Code::ConfigMissing, &source::URL, format!("names no database: {}", kind.url.expected));
        }
        let is_in_url = parts.scheme.is_some();
        let host = self.given_or_get(parts.host, &source::HOST);
        self.check_host(&host, is_in_url);
        let tls = TlsKeys::SOURCE;
        let port = parts.port.or_else(|| self.optional(&source::PORT)).unwrap_or(kind.port);
        self.note(&source::PORT, &port.to_string());
        Server {
            trust: self.trust(&tls, self.get(&tls.mode), [host.as_str()]),
            host,
            port,
            user: self.given_or_get(parts.user, &source::USER),
            database: parts.path.unwrap_or_else(|| self.get(&source::DATABASE)),
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
}
