//! Builds the options of a Kafka sink.

use super::address::{host_and_port, is_host, is_this_machine, unreadable};
use super::setting_reader::SettingReader;
use crate::config::secrets::given_keys;
use crate::config::settings::{CREATE_TOPICS, process, sink};
use crate::fault::Code;
use crate::format::Format;
use crate::format::cloudevents::Mode;
use crate::sink::kafka::{CreateTopics, Options, broken_rule, properties};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Supported SASL mechanisms: the client is built without Kerberos and OAuth.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
const MECHANISMS_KNOWN: &str = "\"PLAIN\", \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\"";

/// Properties that name files, which the client reads when it connects.
const FILE_PROPERTIES: [&str; 5] =
    ["ssl.ca.location", "ssl.certificate.location", "ssl.crl.location", "ssl.key.location", "ssl.keystore.location"];

impl SettingReader<'_> {
    pub(super) fn kafka(&mut self, name: &Arc<str>, format: &Format) -> Options {
        let properties = self.optional(&sink::PROPERTIES).unwrap_or_default();
        for refused in properties::check(&properties).err().unwrap_or_default() {
            self.refuse(Code::ConfigContradictory, &sink::PROPERTIES, refused.to_string());
        }
        self.kafka_files(&properties);
        let sasl_password = self.optional(&sink::SASL_PASSWORD);
        let bootstrap_servers = self.get(&sink::BOOTSTRAP_SERVERS);
        let hosts = self.kafka_hosts(&bootstrap_servers);
        self.kafka_security(&properties, &hosts, sasl_password.is_some());
        let dead_letter = self.dead_letter(name);
        if let Some(rule) = dead_letter.as_deref().and_then(broken_rule) {
            self.refuse(Code::ConfigInvalid, &sink::DEAD_LETTER, format!("not a valid topic name: {rule}"));
        }
        let headers = self.get(&sink::HEADERS);
        if let (false, Format::CloudEvents(_, Mode::Binary)) = (headers, format) {
            let message = "\"binary\" needs headers: set \"structured\", or sink.headers = true";
            self.refuse(Code::ConfigContradictory, &process::FORMAT_MODE, message);
        }
        Options {
            bootstrap_servers,
            pipeline: Arc::clone(name),
            format: format.clone(),
            headers,
            create_topics: self.create_topics(),
            dead_letter,
            tombstones: self.get(&sink::TOMBSTONES),
            stamp: self.get(&sink::TIMESTAMP),
            properties,
            queue_bytes: self.get(&process::MEMORY),
            sasl_password,
            ssl_key_password: self.optional(&sink::SSL_KEY_PASSWORD),
        }
    }

    fn create_topics(&mut self) -> Option<CreateTopics> {
        if !self.values.sections.contains(CREATE_TOPICS.path) {
            return None;
        }
        let config = self.optional(&sink::CREATE_TOPICS_CONFIG).unwrap_or_default();
        for refused in properties::check_topic(&config).err().unwrap_or_default() {
            self.refuse(Code::ConfigInvalid, &sink::CREATE_TOPICS_CONFIG, refused.to_string());
        }
        let (partitions, replication) = (self.get(&sink::CREATE_TOPICS_PARTITIONS), self.get(&sink::CREATE_TOPICS_REPLICATION));
        Some(CreateTopics { partitions, replication, config })
    }

    /// The hosts of the bootstrap servers.
    fn kafka_hosts<'t>(&mut self, servers: &'t str) -> Vec<&'t str> {
        let mut hosts = Vec::new();
        for server in servers.split(',') {
            match host_and_port(server.trim()) {
                Ok((host, _)) if is_host(host) => hosts.push(host),
                _ => {
                    let message = "expected host:port, separated by commas, with ports from 1 to 65535; \"security.protocol\" in sink.properties sets \
                                   encryption";
                    self.refuse(Code::ConfigInvalid, &sink::BOOTSTRAP_SERVERS, message);
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
            if is_ca && (path == "probe" || Path::new(path).is_dir()) {
                continue;
            }
            if let Some(reason) = unreadable(Path::new(path)) {
                let names = if path.starts_with('/') { format!("names {path}") } else { "names a file".to_owned() };
                self.refuse(Code::SecretUnreadable, &sink::PROPERTIES, format!("\"{name}\" {names}: {reason}"));
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
                self.refuse(Code::ConfigUnsupported, &sink::PROPERTIES, message);
            }
            None if is_sasl => {
                let message = format!("\"security.protocol\" = {protocol:?} needs \"sasl.mechanism\": set it to {MECHANISMS_KNOWN}");
                self.refuse(Code::ConfigMissing, &sink::PROPERTIES, message);
            }
            _ => {}
        }
        if has_password && !is_sasl {
            let suffix = given_keys(self.values, &sink::SASL_PASSWORD).first().copied().unwrap_or_default();
            let message = format!(
                "unused, because \"security.protocol\" in sink.properties is {protocol:?}: set that to \"SASL_SSL\", or leave the password out"
            );
            self.refuse_key(Code::ConfigContradictory, &sink::SASL_PASSWORD, suffix, message);
        }
        let is_plain = matches!(protocol, "plaintext" | "sasl_plaintext");
        if is_plain && let Some(host) = hosts.iter().find(|host| !is_this_machine(host)) {
            let data = if is_sasl { "password and rows" } else { "rows" };
            let message =
                format!("{data} are sent to {host} in plain text: set \"security.protocol\" in sink.properties to \"SSL\" or \"SASL_SSL\"");
            self.warn(Code::PlainText, &sink::BOOTSTRAP_SERVERS, message);
        }
    }
}
