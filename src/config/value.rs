//! Parses a value as the type of its setting.

use crate::config::schema::{Choice, Setting, Type};
use crate::config::units;
use crate::event::Operations;
use crate::fault::Code;
use crate::feed::PrefeedKind;
use crate::feed::route::Template;
use crate::net::secret::Secret;
use figment::value::{Num, Value};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

/// A value of its setting's type.
#[derive(Clone, Debug)]
pub(super) enum Typed {
    Text(String),
    Template(Template),
    Choice(&'static str),
    Flag(bool),
    Number(u64),
    Period(Duration),
    Rate(Option<NonZeroU64>),
    List(Vec<String>),
    Operations(Operations),
    Listen(Option<SocketAddr>),
    Secret(Secret),
    Properties(BTreeMap<String, String>),
    Prefeed(PrefeedKind),
}

/// An error code, and what is wrong with the value.
pub(super) type Refusal = (Code, String);

pub(super) fn parse(setting: &Setting, value: &Value) -> Result<Typed, Refusal> {
    let invalid = |message| Err((Code::ConfigInvalid, message));
    let text = value.as_str();
    let typed = match setting.kind {
        Type::Text | Type::Path | Type::Template if text.is_some_and(|text| text.trim().is_empty()) => {
            return invalid(format!("expected {}, not empty", setting.kind.expected()));
        }
        Type::Text | Type::Path => text.map(|text| Typed::Text(text.to_owned())),
        Type::Template => match text.map(Template::parse) {
            Some(Err(error)) => return invalid(error.to_string()),
            template => template.and_then(Result::ok).map(Typed::Template),
        },
        Type::Name => text.filter(|text| is_name(text)).map(|text| Typed::Text(text.to_owned())),
        Type::Boolean => value.to_bool().map(Typed::Flag),
        Type::Integer { least, most } => number(value).filter(|number| (least..=most).contains(number)).map(Typed::Number),
        Type::Size { least, most } => text.and_then(units::parse_size).filter(|size| (least..=most).contains(size)).map(Typed::Number),
        Type::Rate if text == Some("unlimited") => Some(Typed::Rate(None)),
        Type::Rate => text.and_then(units::parse_rate).map(|rate| Typed::Rate(Some(rate))),
        Type::Period { least, most } => {
            text.and_then(units::parse_period).filter(|period| (least..=most).contains(period)).map(Typed::Period)
        }
        Type::Prefeed => prefeed(value).map(Typed::Prefeed),
        Type::Choice(choices) => return choice(setting, text, &choices()),
        Type::List => strings(value).filter(|list| !list.is_empty()).map(Typed::List),
        Type::Operations => operations(value).map(Typed::Operations),
        Type::Listen if text == Some("off") => Some(Typed::Listen(None)),
        Type::Listen => text.and_then(|text| text.parse().ok()).map(|address| Typed::Listen(Some(address))),
        Type::Secret => text.map(|text| Typed::Secret(Secret::new(text.to_owned()))),
        Type::Properties => {
            let mut properties = BTreeMap::new();
            flatten("", value, &mut properties).map(|()| Typed::Properties(properties))
        }
    };
    typed.map_or_else(|| invalid(format!("expected {}", setting.kind.expected())), Ok)
}

fn choice(setting: &Setting, text: Option<&str>, choices: &[Choice]) -> Result<Typed, Refusal> {
    let Some(choice) = choices.iter().find(|choice| text == Some(choice.value)) else {
        let nearest = text.and_then(|text| nearest(text, choices));
        let hint = nearest.map(|nearest| format!("; did you mean \"{nearest}\"?")).unwrap_or_default();
        return Err((Code::ConfigInvalid, format!("expected {}{hint}", setting.kind.expected())));
    };
    match choice.refused {
        None => Ok(Typed::Choice(choice.value)),
        Some(reason) => Err((Code::ConfigUnsupported, format!("\"{}\" is {reason}", choice.value))),
    }
}

/// Other common names of databases and brokers.
const ALIASES: [(&str, &str); 8] = [
    ("mariadb", "mysql"),
    ("mongo", "mongodb"),
    ("pg", "postgres"),
    ("postgresql", "postgres"),
    ("rabbit", "amqp"),
    ("rabbitmq", "amqp"),
    ("rethink", "rethinkdb"),
    ("sqlite3", "sqlite"),
];

/// The choice that `text` is an alias of, or is nearest to.
fn nearest(text: &str, choices: &[Choice]) -> Option<&'static str> {
    let text = text.to_ascii_lowercase().replace('-', "_");
    let name = ALIASES.iter().find(|(alias, _)| *alias == text).map_or(text.as_str(), |(_, name)| name);
    let distance = |choice: &&Choice| strsim::osa_distance(name, choice.value);
    choices.iter().min_by_key(distance).filter(|choice| distance(choice) <= choice.value.len() / 3).map(|choice| choice.value)
}

/// Whether `text` is a valid pipeline name. The name becomes part of slot and topic names.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && text.len() <= 40
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn number(value: &Value) -> Option<u64> {
    match value.to_u128() {
        Some(number) => u64::try_from(number).ok(),
        None => value.to_i128().and_then(|number| u64::try_from(number).ok()),
    }
}

/// Parses the value of `feeds.prefeed`.
fn prefeed(value: &Value) -> Option<PrefeedKind> {
    match value {
        Value::String(_, text) if text == "snapshot" => Some(PrefeedKind::Snapshot),
        Value::String(_, text) if text == "none" => Some(PrefeedKind::None),
        Value::Dict(_, table) if table.len() == 1 => {
            let text = |key: &str| table.get(key)?.as_str().filter(|text| !text.trim().is_empty());
            let file = text("file").map(|path| PrefeedKind::File(Path::new(path).into()));
            file.or_else(|| text("query").map(|sql| PrefeedKind::Query(sql.into())))
        }
        _ => None,
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|text| text.as_str().filter(|text| !text.is_empty()).map(str::to_owned)).collect()
}

fn operations(value: &Value) -> Option<Operations> {
    if let Some(mask) = number(value) {
        return u8::try_from(mask).ok().and_then(Operations::from_bits);
    }
    let mut bits = 0;
    for name in strings(value)? {
        bits |= match name.as_str() {
            "insert" => 1,
            "delete" => 2,
            "update" => 4,
            _ => return None,
        };
    }
    Operations::from_bits(bits)
}

/// Joins nested keys with dots: `"compression.type"` and `compression.type` are the same key.
pub(super) fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) -> Option<()> {
    let key = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    match value {
        Value::Dict(_, table) => table.iter().try_for_each(|(name, value)| flatten(&key(name), value, into)),
        _ if prefix.is_empty() => None,
        _ => {
            into.insert(prefix.to_owned(), plain(value)?);
            Some(())
        }
    }
}

/// A string, boolean or number as a string.
pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Bool(_, flag) => Some(flag.to_string()),
        Value::Num(_, Num::F32(_) | Num::F64(_)) => value.to_num_lossy()?.to_f64().map(|number| number.to_string()),
        Value::Num(..) => value.to_i128().map(|number| number.to_string()).or_else(|| value.to_u128().map(|number| number.to_string())),
        _ => None,
    }
}
