//! Builds the options of a RabbitMQ sink.

use super::address::{host_and_port, is_host, is_this_machine};
use super::setting_reader::SettingReader;
use super::tls::TlsKeys;
use super::url;
use crate::config::settings::choices::{Auth, CheckpointKind};
use crate::config::settings::{process, sink};
use crate::config::validate::Values;
use crate::fault::Code;
use crate::format::Format;
use crate::net::TlsMode;
use crate::sink::amqp::{Address, Management, Options, Queue};
use std::sync::Arc;

const URL: url::Form = url::Form { schemes: &["amqp", "amqps"], expected: "expected amqps://user@host:port/vhost" };
const HTTP: url::Form = url::Form { schemes: &["http", "https"], expected: "expected http://host:port or https://host:port" };

/// The longest name that AMQP can carry, in bytes.
const NAME_BYTES_MAX: usize = 255;

impl SettingReader<'_> {
    pub(super) fn amqp(&mut self, name: &Arc<str>, format: &Format, queues: &[Values]) -> Options {
        let parts = self.url(&sink::URL, URL, &[&sink::HOST, &sink::PORT, &sink::USER, &sink::VHOST]);
        let mode = self.amqp_tls(parts.scheme);
        let default_port = if mode == TlsMode::Disable { 5672 } else { 5671 };
        let port = parts.port.or_else(|| self.optional(&sink::PORT)).unwrap_or(default_port);
        let addresses = match parts.host {
            Some(host) if is_host(&host) => vec![Address { host, port }],
            Some(_) => {
                self.refuse(Code::ConfigInvalid, &sink::URL, URL.expected);
                Vec::new()
            }
            None => self.amqp_addresses(port),
        };
        self.note(&sink::HOST, &addresses.iter().map(|address| address.host.as_str()).collect::<Vec<_>>().join(","));
        self.note(&sink::PORT, &addresses.first().map_or(port, |first| first.port).to_string());
        let trust = self.trust(&TlsKeys::SINK, mode, addresses.iter().map(|address| address.host.as_str()));
        let password = self.optional(&sink::PASSWORD);
        let external = self.get(&sink::AUTH) == Auth::External;
        if external && trust.client.is_none() {
            let message = "needs a client certificate: set sink.cert_file and sink.key_file";
            self.refuse(Code::ConfigContradictory, &sink::AUTH, message);
        }
        if external && password.is_some() {
            let message = "uses no password: leave the password out, or set sink.auth = \"plain\"";
            self.refuse(Code::ConfigContradictory, &sink::AUTH, message);
        }
        let exchange = self.optional_or(&sink::EXCHANGE, name.to_string());
        // RabbitMQ reserves names that begin with "amq.".
        if NAME_BYTES_MAX < exchange.len() || exchange.starts_with("amq.") {
            let message = "expected a name of at most 255 bytes that does not begin with \"amq.\"";
            self.refuse(Code::ConfigInvalid, &sink::EXCHANGE, message);
        }
        let declare = self.get(&sink::DECLARE);
        if !declare && !queues.is_empty() {
            let message = "declares no queues: leave [[sink.queues]] out, or set it to true";
            self.refuse(Code::ConfigContradictory, &sink::DECLARE, message);
        }
        let vhost = self.given_or_get(parts.path, &sink::VHOST);
        if NAME_BYTES_MAX < vhost.len() {
            self.refuse(Code::ConfigInvalid, &sink::VHOST, "expected a name of at most 255 bytes");
        }
        Options {
            management: self.management(password.is_some()),
            addresses,
            trust,
            external,
            user: self.given_or_get(parts.user, &sink::USER),
            password,
            vhost,
            exchange,
            declare,
            dead_letter: self.dead_letter(name),
            queues: queues.iter().enumerate().map(|(index, values)| self.table(index, values).queue(name)).collect(),
            format: format.clone(),
            ordering: self.get(&sink::ORDERING),
            window: self.get(&sink::WINDOW),
            pipeline: Arc::clone(name),
            keeps_checkpoint: matches!(self.get(&process::CHECKPOINT_KIND), CheckpointKind::Broker(_)),
        }
    }

    /// The management API. Warns if the password crosses the network in plain text.
    fn management(&mut self, has_password: bool) -> Option<Management> {
        let parts = self.url(&sink::MANAGEMENT_URL, HTTP, &[]);
        let is_encrypted = parts.scheme == Some("https");
        let host = parts.host?;
        if parts.user.is_some() || parts.path.is_some() || !is_host(&host) {
            let message = "expected only host and port: user and password are those of the sink";
            self.refuse(Code::ConfigInvalid, &sink::MANAGEMENT_URL, message);
        }
        if has_password && !is_encrypted && !is_this_machine(&host) {
            let message = format!(
                "`feedline check` sends the password to {host} in plain text: write https://, with the port of the API's TLS listener"
            );
            self.warn(Code::PlainText, &sink::MANAGEMENT_URL, message);
        }
        let port = parts.port.unwrap_or(if is_encrypted { 15671 } else { 15672 });
        Some(Management { address: Address { host, port }, is_encrypted })
    }

    /// The TLS mode. `amqp://` is plain text, `amqps://` is encrypted; without a URL the setting decides.
    fn amqp_tls(&mut self, scheme: Option<&str>) -> TlsMode {
        let mode = self.get(&sink::TLS);
        match scheme {
            Some("amqp") if mode != TlsMode::Disable && self.is_given(&sink::TLS) => {
                self.refuse(Code::ConfigContradictory, &sink::TLS, "contradicts the amqp:// URL, which is plain text: write amqps://");
                mode
            }
            Some("amqp") => TlsMode::Disable,
            Some("amqps") if mode == TlsMode::Disable => {
                self.refuse(Code::ConfigContradictory, &sink::TLS, "contradicts the amqps:// URL, which is encrypted: write amqp://");
                mode
            }
            _ => mode,
        }
    }

    fn amqp_addresses(&mut self, port: u16) -> Vec<Address> {
        let text = self.get(&sink::HOST);
        let mut addresses = Vec::new();
        for address in text.split(',') {
            match host_and_port(address.trim()) {
                Ok((host, own_port)) if is_host(host) => addresses.push(Address { host: host.to_owned(), port: own_port.unwrap_or(port) }),
                _ => {
                    let message = "expected host names or addresses, separated by commas, each alone or as host:port";
                    self.refuse(Code::ConfigInvalid, &sink::HOST, message);
                    return Vec::new();
                }
            }
        }
        addresses
    }

    fn queue(&mut self, pipeline: &str) -> Queue {
        let name = self.get(&sink::QUEUES_NAME);
        let reserved = ["lock", "checkpoint", "dead_letter"].map(|end| format!("{pipeline}.{end}"));
        if NAME_BYTES_MAX < name.len() || name.starts_with("amq.") || reserved.contains(&name) {
            let message = format!("expected a name of at most 255 bytes, not beginning with \"amq.\" and none of {}", reserved.join(", "));
            self.refuse(Code::ConfigInvalid, &sink::QUEUES_NAME, message);
        }
        let keys = self.get(&sink::QUEUES_KEYS);
        if keys.iter().any(|key| NAME_BYTES_MAX < key.len()) {
            self.refuse(Code::ConfigInvalid, &sink::QUEUES_KEYS, "expected binding keys of at most 255 bytes");
        }
        Queue { name, keys, kind: self.get(&sink::QUEUES_TYPE) }
    }
}
