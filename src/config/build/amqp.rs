//! Builds the plan of a RabbitMQ sink.

use super::server::is_this_machine;
use super::setting_reader::SettingReader;
use crate::config::plan::{AmqpOrdering, AmqpPlan, QueuePlan, QueueType};
use crate::config::url;
use crate::config::validate::Values;
use crate::config::value::Typed;
use crate::fault::Code;
use crate::net::TlsMode;

impl SettingReader<'_> {
    pub(super) fn amqp(&mut self, name: &str, queues: &[Values]) -> AmqpPlan {
        let parts = self.url("sink.url", url::AMQP, &["sink.host", "sink.port", "sink.user", "sink.vhost"]);
        let mode = self.amqp_tls(parts.scheme);
        let default_port = if mode == TlsMode::Disable { 5672 } else { 5671 };
        let port = self.given("sink.port").map(|_| self.number("sink.port")).and_then(|port| u16::try_from(port).ok());
        let port = parts.port.or(port).unwrap_or(default_port);
        let hosts = match parts.host {
            Some(host) if url::is_host(&host) => vec![(host, port)],
            Some(_) => {
                self.refuse(Code::ConfigInvalid, "sink.url", url::AMQP.expected);
                Vec::new()
            }
            None => self.amqp_hosts(port),
        };
        let trust = self.trust("sink", mode, hosts.iter().map(|(host, _)| host.as_str()));
        let external = self.text("sink.auth") == "external";
        if external && trust.client.is_none() {
            let message = "needs a client certificate: set sink.cert_file and sink.key_file";
            self.refuse(Code::ConfigContradictory, "sink.auth", message);
        }
        let password = self.secret("sink.password");
        if external && password.is_some() {
            self.refuse(Code::ConfigContradictory, "sink.auth", "uses no password: leave the password out, or set sink.auth = \"plain\"");
        }
        let management = self.management(password.is_some());
        let exchange = self.optional_text("sink.exchange").unwrap_or_else(|| name.to_owned());
        // RabbitMQ reserves names that begin with "amq.".
        if 255 < exchange.len() || exchange.starts_with("amq.") {
            self.refuse(Code::ConfigInvalid, "sink.exchange", "expected a name of at most 255 bytes that does not begin with \"amq.\"");
        }
        let declare = self.flag("sink.declare");
        if !declare && !queues.is_empty() {
            self.refuse(Code::ConfigContradictory, "sink.declare", "declares no queues: leave [[sink.queues]] out, or set it to true");
        }
        let vhost = parts.path.unwrap_or_else(|| self.text("sink.vhost"));
        if 255 < vhost.len() {
            self.refuse(Code::ConfigInvalid, "sink.vhost", "expected a name of at most 255 bytes");
        }
        AmqpPlan {
            hosts,
            trust,
            external,
            user: parts.user.unwrap_or_else(|| self.text("sink.user")),
            password,
            vhost,
            exchange,
            declare,
            dead_letter: self.dead_letter(name),
            queues: queues
                .iter()
                .enumerate()
                .map(|(index, values)| {
                    SettingReader { values, lookup: self.lookup, problems: self.problems, warnings: self.warnings }.queue(index, name)
                })
                .collect(),
            ordering: if self.text("sink.ordering") == "per_key" { AmqpOrdering::PerKey } else { AmqpOrdering::GoBack },
            management,
            window: usize::try_from(self.number("sink.window")).unwrap_or(usize::MAX),
        }
    }

    /// Host, port and whether it is encrypted. Warns if the password crosses the network in plain text.
    fn management(&mut self, has_password: bool) -> Option<(String, u16, bool)> {
        let parts = self.url("sink.management_url", url::HTTP, &[]);
        let is_encrypted = parts.scheme == Some("https");
        let host = parts.host?;
        if parts.user.is_some() || parts.path.is_some() || !url::is_host(&host) {
            self.refuse(Code::ConfigInvalid, "sink.management_url", "expected only host and port: user and password are those of the sink");
        }
        if has_password && !is_encrypted && !is_this_machine(&host) {
            let message = format!(
                "`feedline check` sends the password to {host} in plain text: write https://, with the port of the API's TLS listener"
            );
            self.warn(Code::PlainText, "sink.management_url", message);
        }
        Some((host, parts.port.unwrap_or(if is_encrypted { 15671 } else { 15672 }), is_encrypted))
    }

    /// The TLS mode. `amqp://` is plain text, `amqps://` is encrypted; without a URL the setting decides.
    fn amqp_tls(&mut self, scheme: Option<&str>) -> TlsMode {
        let mode = self.tls_mode("sink");
        let is_given = self.given("sink.tls").is_some();
        match scheme {
            Some("amqp") if is_given && mode != TlsMode::Disable => {
                self.refuse(Code::ConfigContradictory, "sink.tls", "contradicts the amqp:// URL, which is plain text: write amqps://");
                mode
            }
            Some("amqp") => TlsMode::Disable,
            Some("amqps") if mode == TlsMode::Disable => {
                self.refuse(Code::ConfigContradictory, "sink.tls", "contradicts the amqps:// URL, which is encrypted: write amqp://");
                mode
            }
            _ => mode,
        }
    }

    fn amqp_hosts(&mut self, port: u16) -> Vec<(String, u16)> {
        let text = self.text("sink.host");
        let mut hosts = Vec::new();
        for address in text.split(',') {
            match url::host_and_port(address.trim()) {
                Ok((host, own_port)) if url::is_host(host) => hosts.push((host.to_owned(), own_port.unwrap_or(port))),
                _ => {
                    let message = "expected host names or addresses, separated by commas, each alone or as host:port";
                    self.refuse(Code::ConfigInvalid, "sink.host", message);
                    return Vec::new();
                }
            }
        }
        hosts
    }

    fn queue(&mut self, index: usize, pipeline: &str) -> QueuePlan {
        let name = self.text("sink.queues.name");
        let reserved = ["lock", "checkpoint", "dead_letter"].map(|end| format!("{pipeline}.{end}"));
        if 255 < name.len() || name.starts_with("amq.") || reserved.contains(&name) {
            let message = format!("expected a name of at most 255 bytes, not beginning with \"amq.\" and none of {}", reserved.join(", "));
            self.refuse_as(Code::ConfigInvalid, "sink.queues.name", &format!("sink.queues.{index}.name"), message);
        }
        let keys = match self.typed("sink.queues.keys") {
            Some(Typed::List(keys)) => keys,
            _ => Vec::new(),
        };
        if keys.iter().any(|key| 255 < key.len()) {
            let message = "expected binding keys of at most 255 bytes";
            self.refuse_as(Code::ConfigInvalid, "sink.queues.keys", &format!("sink.queues.{index}.keys"), message);
        }
        let kind = match self.text("sink.queues.type").as_str() {
            "classic" => QueueType::Classic,
            "stream" => QueueType::Stream,
            _ => QueueType::Quorum,
        };
        QueuePlan { name, keys, kind }
    }
}
