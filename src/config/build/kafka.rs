//! Builds the plan of a Kafka sink.

use super::server::is_this_machine;
use super::setting_reader::SettingReader;
use crate::config::plan::{CreateTopicsPlan, KafkaPlan};
use crate::config::url;
use crate::config::value::Typed;
use crate::fault::Code;
use std::collections::BTreeMap;

/// Supported SASL mechanisms: the client is built without Kerberos and OAuth.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
const MECHANISMS_KNOWN: &str = "\"PLAIN\", \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\"";

/// Properties that name files, which the client reads when it connects.
const FILE_PROPERTIES: [&str; 5] =
    ["ssl.ca.location", "ssl.certificate.location", "ssl.crl.location", "ssl.key.location", "ssl.keystore.location"];

impl SettingReader<'_> {
    pub(super) fn kafka(&mut self, name: &str) -> KafkaPlan {
        let properties = self.properties("sink.properties");
        #[cfg(feature = "kafka")]
        for refused in crate::sink::kafka::properties::check(&properties).err().unwrap_or_default() {
            self.refuse(Code::ConfigContradictory, "sink.properties", refused.to_string());
        }
        self.kafka_files(&properties);
        let sasl_password = self.secret("sink.sasl_password");
        let bootstrap_servers = self.text("sink.bootstrap_servers");
        let hosts = self.kafka_hosts(&bootstrap_servers);
        self.kafka_security(&properties, &hosts, sasl_password.is_some());
        let create_topics = self.create_topics();
        let dead_letter = self.dead_letter(name);
        #[cfg(feature = "kafka")]
        if let Some(rule) = dead_letter.as_deref().and_then(crate::sink::kafka::broken_rule) {
            self.refuse(Code::ConfigInvalid, "sink.dead_letter", format!("not a valid topic name: {rule}"));
        }
        KafkaPlan {
            bootstrap_servers,
            headers: self.flag("sink.headers"),
            tombstones: self.flag("sink.tombstones"),
            is_stamped_on_arrival: self.text("sink.timestamp") == "append",
            create_topics,
            dead_letter,
            properties,
            sasl_password,
            ssl_key_password: self.secret("sink.ssl_key_password"),
        }
    }

    fn properties(&mut self, path: &str) -> BTreeMap<String, String> {
        match self.typed(path) {
            Some(Typed::Properties(properties)) => properties,
            _ => BTreeMap::new(),
        }
    }

    fn create_topics(&mut self) -> Option<CreateTopicsPlan> {
        const CONFIG: &str = "sink.create_topics.config";
        if !self.values.sections.contains("sink.create_topics") {
            return None;
        }
        let config = self.properties(CONFIG);
        #[cfg(feature = "kafka")]
        for refused in crate::sink::kafka::properties::check_topic(&config).err().unwrap_or_default() {
            self.refuse(Code::ConfigInvalid, CONFIG, refused.to_string());
        }
        let count = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
        Some(CreateTopicsPlan {
            partitions: count(self.number("sink.create_topics.partitions")),
            replication: count(self.number("sink.create_topics.replication")),
            config,
        })
    }

    /// The hosts of the bootstrap servers.
    fn kafka_hosts<'t>(&mut self, servers: &'t str) -> Vec<&'t str> {
        let mut hosts = Vec::new();
        for server in servers.split(',') {
            match url::host_and_port(server.trim()) {
                Ok((host, _)) if url::is_host(host) => hosts.push(host),
                _ if self.given("sink.bootstrap_servers").is_none() => return Vec::new(),
                _ => {
                    let message = "expected host:port, separated by commas, with ports from 1 to 65535; \"security.protocol\" in sink.properties sets \
                                   encryption";
                    self.refuse(Code::ConfigInvalid, "sink.bootstrap_servers", message);
                    return Vec::new();
                }
            }
        }
        hosts
    }

    fn kafka_files(&mut self, properties: &BTreeMap<String, String>) {
        for name in FILE_PROPERTIES {
            let Some(path) = properties.get(name) else { continue };
            // librdkafka also accepts a directory of CA certificates, or `probe` to search for them.
            let is_ca = name == "ssl.ca.location";
            if is_ca && (path == "probe" || std::path::Path::new(path).is_dir()) {
                continue;
            }
            if let Some(reason) = super::server::unreadable(std::path::Path::new(path)) {
                let names = if path.starts_with('/') { format!("names {path}") } else { "names a file".to_owned() };
                self.refuse(Code::SecretUnreadable, "sink.properties", format!("\"{name}\" {names}: {reason}"));
            }
        }
    }

    /// Checks encryption and authentication.
    fn kafka_security(&mut self, properties: &BTreeMap<String, String>, hosts: &[&str], has_password: bool) {
        let given = properties.get("security.protocol").map(|protocol| protocol.to_ascii_lowercase());
        let protocol = given.as_deref().unwrap_or("plaintext");
        let is_sasl = protocol.starts_with("sasl_");
        let mechanism = ["sasl.mechanism", "sasl.mechanisms"].iter().find_map(|name| properties.get(*name));
        match mechanism {
            Some(mechanism) if !MECHANISMS.contains(&mechanism.as_str()) => {
                let message = format!("\"sasl.mechanism\" = {mechanism:?} is not supported: set it to {MECHANISMS_KNOWN}");
                self.refuse(Code::ConfigUnsupported, "sink.properties", message);
            }
            None if is_sasl => {
                let message = format!("\"security.protocol\" = {protocol:?} needs \"sasl.mechanism\": set it to {MECHANISMS_KNOWN}");
                self.refuse(Code::ConfigMissing, "sink.properties", message);
            }
            _ => {}
        }
        if has_password && !is_sasl {
            let password = ["sink.sasl_password_file", "sink.sasl_password_env", "sink.sasl_password"];
            let path = password.into_iter().find(|path| self.given(path).is_some()).unwrap_or("sink.sasl_password");
            let message = format!(
                "unused, because \"security.protocol\" in sink.properties is {protocol:?}: set that to \"SASL_SSL\", or leave the password out"
            );
            self.refuse(Code::ConfigContradictory, path, message);
        }
        let is_plain = matches!(protocol, "plaintext" | "sasl_plaintext");
        if is_plain && let Some(host) = hosts.iter().find(|host| !is_this_machine(host)) {
            let data = if is_sasl { "password and rows" } else { "rows" };
            let message =
                format!("{data} are sent to {host} in plain text: set \"security.protocol\" in sink.properties to \"SSL\" or \"SASL_SSL\"");
            self.warn(Code::PlainText, "sink.bootstrap_servers", message);
        }
    }
}
