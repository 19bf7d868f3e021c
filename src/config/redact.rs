//! Shows values without secrets: for `config print`, and for error messages.

use crate::config::schema::{Setting, Type};
use crate::config::toml;
use crate::config::value::{flatten, plain};
use figment::value::Value;
use std::collections::BTreeMap;

/// Prefixes of client and topic properties whose values are never secret.
const HARMLESS_PREFIXES: [&str; 24] = [
    "api.",
    "batch.",
    "broker.",
    "cleanup.",
    "client.",
    "compression.",
    "connections.",
    "debug",
    "delete.",
    "linger.ms",
    "max.",
    "message.",
    "metadata.",
    "min.",
    "queue.",
    "reconnect.",
    "retention.",
    "retry.",
    "security.protocol",
    "segment.",
    "socket.",
    "sticky.",
    "topic.",
    "unclean.",
];

/// Shows properties as TOML. A value that may be secret is `***`.
pub(super) fn show_properties(value: &Value) -> String {
    let mut properties = BTreeMap::new();
    if flatten("", value, &mut properties).is_none() {
        return "{ ... }".to_owned();
    }
    let is_plain = |key: &str| HARMLESS_PREFIXES.iter().any(|known| key.starts_with(known));
    let shown = properties
        .iter()
        .map(|(key, value)| format!("{} = {}", toml::string(key), toml::string(if is_plain(key) { value } else { "***" })));
    format!("{{ {} }}", shown.collect::<Vec<_>>().join(", "))
}

/// Shows a value as TOML.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => toml::string(text),
        Value::Array(_, values) => format!("[{}]", values.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Dict(_, values) => {
            let shown = values.iter().map(|(key, value)| format!("{} = {}", toml::key(key), show(value)));
            format!("{{ {} }}", shown.collect::<Vec<_>>().join(", "))
        }
        other => plain(other).unwrap_or_default(),
    }
}

/// Whether an error may show a value. An invalid value may be a secret in the wrong setting, or contain one: a connection string instead of
/// a host, or a password instead of the path of its file.
pub(super) fn is_harmless(setting: &Setting, path: &str, value: &Value) -> bool {
    match (setting.kind, value) {
        (Type::Properties, _) | (_, Value::Num(..) | Value::Bool(..) | Value::Char(..) | Value::Empty(..)) => true,
        (Type::Secret, Value::String(_, text)) => {
            path != setting.path && (text.starts_with('/') || path.ends_with("_env") && is_variable(text))
        }
        (_, Value::String(_, text)) => is_plain_text(text),
        (_, Value::Array(_, values)) => values.iter().all(|value| is_harmless(setting, path, value)),
        (_, Value::Dict(_, values)) => values.values().all(|value| is_harmless(setting, path, value)),
    }
}

/// Whether a string looks like a name, pattern, size, path or address, which are not secret.
fn is_plain_text(text: &str) -> bool {
    const SIGNS: &[u8] = b"_-.*#{}/, ";
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || SIGNS.contains(&byte));
    // A colon may only precede a port.
    let mut parts = text.split(':');
    let is_port = |part: &str| part.starts_with(|first: char| first.is_ascii_digit());
    text.len() <= 80 && parts.next().is_some_and(is_word) && parts.all(|part| is_port(part) && is_word(part))
}

/// Whether `text` looks like the name of an environment variable: capitals, digits, underscores.
pub(super) fn is_variable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}
