//! Writes the settings down: those that hold, and all that there are.

use crate::config::Effective;
use crate::config::plan::{AmqpPlan, CheckpointPlan, Plan, SinkPlan, SourcePlan};
use crate::config::problem::Origin;
use crate::config::schema::{Default, Section, Setting, Type};
use crate::config::settings::{SECTIONS, SETTINGS};
use crate::config::walk::{Values, Walked};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// Every setting that holds, in the order of the documentation.
pub(super) fn effective(walked: &Walked, plan: &Plan) -> Vec<Effective> {
    let mut lines = Vec::new();
    for section in SECTIONS {
        if section.repeated {
            for (index, values) in walked.list(section.path).iter().enumerate() {
                collect(section, values, &format!("{}.{index}", section.path), plan, &mut lines);
            }
        } else if !section.optional || walked.root.sections.contains(section.path) {
            collect(section, &walked.root, section.path, plan, &mut lines);
        }
    }
    lines
}

fn collect(section: &Section, values: &Values, shown: &str, plan: &Plan, lines: &mut Vec<Effective>) {
    let kind = match section.path.split('.').next() {
        Some("source") => Some(plan.source.kind()),
        Some("sink") => Some(plan.sink.kind()),
        _ => None,
    };
    for setting in SETTINGS.iter().filter(|setting| setting.section() == section.path && setting.serves(kind)) {
        let prefix = if shown.is_empty() { String::new() } else { format!("{shown}.") };
        let mut given = false;
        for key in setting.keys() {
            let path = if section.path.is_empty() { key.clone() } else { format!("{}.{key}", section.path) };
            if let Some(found) = values.found.get(&path) {
                let origin = found.origin.clone().unwrap_or(Origin::Default);
                lines.push(Effective { path: format!("{prefix}{key}"), value: quoted(setting, &found.shown), origin });
                given = true;
            }
        }
        if !given && let Some(value) = default(setting, plan) {
            lines.push(Effective { path: format!("{prefix}{}", setting.key()), value, origin: Origin::Default });
        }
    }
}

fn quoted(setting: &Setting, shown: &str) -> String {
    if setting.kind == Type::Secret && shown == "***" { "\"***\"".to_owned() } else { shown.to_owned() }
}

fn default(setting: &Setting, plan: &Plan) -> Option<String> {
    match (setting.path, &plan.source) {
        ("source.slot", SourcePlan::Postgres(postgres)) => return Some(format!("{:?}", postgres.slot)),
        ("source.publication", SourcePlan::Postgres(postgres)) => return Some(format!("{:?}", postgres.publication)),
        ("source.host" | "source.port" | "source.user", SourcePlan::Postgres(postgres)) => {
            return Some(match setting.key() {
                "host" => format!("{:?}", postgres.host),
                "port" => postgres.port.to_string(),
                _ => format!("{:?}", postgres.user),
            });
        }
        (path, _) if path.starts_with("sink.") => {
            if let SinkPlan::Amqp(amqp) = &plan.sink
                && let Some(value) = of_broker(path, amqp)
            {
                return Some(value);
            }
        }
        ("checkpoint.path", _) => {
            return match &plan.checkpoint {
                CheckpointPlan::File { path } => Some(format!("{:?}", path.display().to_string())),
                CheckpointPlan::Broker { .. } => None,
            };
        }
        _ => {}
    }
    match setting.default {
        Default::Is(text) => Some(literal(setting, text)),
        Default::Required(_) | Default::Derived(_) | Default::Absent(_) => None,
    }
}

/// What holds of a broker's place where a URL or other settings say it.
fn of_broker(path: &str, amqp: &AmqpPlan) -> Option<String> {
    Some(match path {
        "sink.host" => format!("{:?}", amqp.hosts.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>().join(",")),
        "sink.port" => amqp.hosts.first()?.1.to_string(),
        "sink.user" => format!("{:?}", amqp.user),
        "sink.vhost" => format!("{:?}", amqp.vhost),
        "sink.exchange" => format!("{:?}", amqp.exchange),
        _ => return None,
    })
}

/// A default or an example as TOML writes it.
fn literal(setting: &Setting, text: &str) -> String {
    let plain = matches!(setting.kind, Type::Boolean | Type::Integer { .. } | Type::List | Type::Operations | Type::Properties);
    if plain { text.to_owned() } else { format!("{text:?}") }
}

/// Settings that hold as TOML, each with where it comes from.
#[must_use]
pub fn print(effective: &[Effective]) -> String {
    let mut out = String::new();
    let mut section = String::new();
    for line in effective {
        let (prefix, key) = line.path.rsplit_once('.').unwrap_or(("", &line.path));
        if prefix != section {
            prefix.clone_into(&mut section);
            let list =
                SECTIONS.iter().find(|section| section.repeated && prefix.rsplit_once('.').is_some_and(|(list, _)| list == section.path));
            let header = list.map_or_else(|| format!("[{prefix}]"), |section| format!("[[{}]]", section.path));
            writeln!(out, "\n{header}").expect("a string takes all");
        }
        writeln!(out, "{:<60} # {}", format!("{key} = {}", line.value), line.origin).expect("a string takes all");
    }
    out
}

fn of_section(section: &Section) -> impl Iterator<Item = &'static Setting> {
    let path = section.path;
    SETTINGS.iter().filter(move |setting| setting.section() == path)
}

/// `config/feedline.toml`: every setting with its default, those of another kind and those without a default commented out.
#[must_use]
pub fn example() -> String {
    let mut out = String::from(
        "# Every setting of feedline, with its default. `feedline config schema --format toml` writes this file.\n\
         # A setting can also be given as FEEDLINE__SECTION__KEY=value, or as --set section.key=value; the later wins.\n\
         # Of a list of sections the whole is given: FEEDLINE__FEEDS='[{tables=[\"orders\"]}]'.\n",
    );
    for section in SECTIONS {
        let comment = if section.optional { "#" } else { "" };
        match (section.path, section.repeated) {
            ("", _) => {}
            (path, true) => writeln!(out, "\n# {}\n{comment}[[{path}]]", section.meaning).expect("a string takes all"),
            (path, false) => writeln!(out, "\n# {}\n{comment}[{path}]", section.meaning).expect("a string takes all"),
        }
        for setting in of_section(section) {
            example_of(setting, section, &mut out);
        }
    }
    out
}

fn example_of(setting: &Setting, section: &Section, out: &mut String) {
    let kinds = if setting.kinds.is_empty() { String::new() } else { format!("[{}] ", setting.kinds.join(", ")) };
    writeln!(out, "\n# {kinds}{}", setting.meaning).expect("a string takes all");
    if let Some(bounds) = bounds(setting) {
        writeln!(out, "# {bounds}").expect("a string takes all");
    }
    let key = if setting.kind == Type::Secret { format!("{}_file", setting.key()) } else { setting.key().to_owned() };
    // The example is one whole: SQLite to Kafka.
    let elsewhere = !setting.kinds.is_empty() && !setting.kinds.contains(&"sqlite") && !setting.kinds.contains(&"kafka");
    let (value, active) = match setting.default {
        Default::Required(text) | Default::Is(text) => (literal(setting, text), true),
        // The value of a number stands first in its description.
        Default::Derived(text) if matches!(setting.kind, Type::Integer { .. }) => {
            writeln!(out, "# Default: {text}.").expect("a string takes all");
            (text.split(',').next().unwrap_or(text).to_owned(), true)
        }
        // It would have no effect beside the default of what it belongs to.
        Default::Derived(text) => (format!("{:?}", text.replace("{name}", "shop")), setting.path != "sink.dead_letter"),
        Default::Absent(text) => (literal(setting, text), false),
    };
    let comment = if active && !elsewhere && !section.optional { "" } else { "#" };
    writeln!(out, "{comment}{key} = {value}").expect("a string takes all");
    if setting.kind == Type::Secret {
        writeln!(out, "#{}_env = {:?}", setting.key(), setting.key().to_ascii_uppercase()).expect("a string takes all");
    }
}

fn bounds(setting: &Setting) -> Option<String> {
    match setting.kind {
        Type::Choice(_)
        | Type::Integer { .. }
        | Type::Size { .. }
        | Type::Rate
        | Type::Prefeed
        | Type::Period { .. }
        | Type::Name
        | Type::Template
        | Type::Listen
        | Type::Operations => {
            let text = setting.kind.expected();
            let mut letters = text.chars();
            letters.next().map(|first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
        }
        _ => None,
    }
}

/// `docs/settings.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Settings\n\n\
         <!-- Written by `feedline config schema --format markdown`; a test holds it equal to the code. -->\n\n\
         The configuration is a TOML file (`feedline run -c feedline.toml`). An environment variable overrides it\n\
         (`FEEDLINE__SINK__KIND=kafka` for `sink.kind`), an argument overrides both (`--set sink.kind=kafka`). Of a list of sections\n\
         the whole is given: `FEEDLINE__FEEDS='[{tables=[\"orders\"]}]'`, `--set 'feeds=[{tables=[\"orders\"]}]'`.\n\n\
         - Sizes and periods carry their unit: `B kB MB GB KiB MiB GiB`, `ms s min h` (`m` is `min`).\n\
         - A secret `NAME` is given as `NAME_file` (a path; a newline at the end is dropped), as `NAME_env` (a variable's name), or\n  \
           literally as `NAME`, with a warning.\n\
         - An unknown setting is an error that names the nearest known one. All errors are reported at once, each with its\n  \
           number in [errors.md](errors.md).\n\
         - `feedline check --offline` checks a configuration; `feedline config print` shows what holds and where it comes from.\n",
    );
    for section in SECTIONS {
        let title = match (section.path, section.repeated) {
            ("", _) => "Pipeline name".to_owned(),
            (path, true) => format!("`[[{path}]]`"),
            (path, false) => format!("`[{path}]`"),
        };
        writeln!(out, "\n## {title}\n\n{}\n", section.meaning).expect("a string takes all");
        out.push_str("| setting | default | meaning |\n|---|---|---|\n");
        for setting in of_section(section) {
            let names = setting.keys().iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            let kinds = if setting.kinds.is_empty() { String::new() } else { format!("*{}.* ", setting.kinds.join(", ")) };
            let value = match setting.default {
                Default::Required(text) => format!("required, such as `{}`", literal(setting, text)),
                Default::Is(text) => format!("`{}`", literal(setting, text)),
                Default::Derived(text) if matches!(setting.kind, Type::Integer { .. }) => text.to_owned(),
                Default::Derived(text) => format!("`{text:?}`"),
                Default::Absent(text) => format!("none; such as `{}`", literal(setting, text)),
            };
            let bounds = bounds(setting).map(|bounds| format!(" {bounds}")).unwrap_or_default();
            writeln!(out, "| {names} | {value} | {kinds}{}{bounds} |", setting.meaning).expect("a string takes all");
        }
    }
    out
}

/// A JSON schema (draft 2020-12), for editors.
#[must_use]
pub fn json_schema() -> Value {
    let mut root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "feedline",
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "source", "feeds", "sink"],
        "properties": {},
    });
    for section in SECTIONS {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for setting in of_section(section) {
            for key in setting.keys() {
                properties.insert(key, property(setting));
            }
            if setting.kinds.is_empty() && matches!(setting.default, Default::Required(_)) {
                required.push(setting.key());
            }
        }
        if section.path.is_empty() {
            root["properties"] = Value::Object(properties);
            continue;
        }
        let table = json!({ "type": "object", "additionalProperties": false, "properties": properties, "required": required });
        let value = if section.repeated { json!({ "type": "array", "minItems": 1, "items": table }) } else { table };
        let (parent, key) = section.path.rsplit_once('.').unwrap_or(("", section.path));
        let parents = parent.split('.').filter(|parent| !parent.is_empty());
        let pointer: String = parents.fold(String::new(), |pointer, parent| format!("{pointer}/properties/{parent}"));
        if let Some(Value::Object(parent)) = root.pointer_mut(&format!("{pointer}/properties")) {
            parent.insert(key.to_owned(), value);
        }
    }
    root
}

fn property(setting: &Setting) -> Value {
    let mut property = match setting.kind {
        Type::Boolean => json!({ "type": "boolean" }),
        Type::Integer { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Type::Size { .. } => json!({ "type": "string", "pattern": "^[0-9]+ ?(B|kB|MB|GB|KiB|MiB|GiB)$" }),
        Type::Rate => json!({ "type": "string", "pattern": "^(unlimited|[0-9]+ ?(B|kB|MB|GB|KiB|MiB|GiB)/s)$" }),
        Type::Period { .. } => json!({ "type": "string", "pattern": "^[0-9]+ ?(ms|s|m|min|h)$" }),
        Type::Name => json!({ "type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$" }),
        Type::Choice(choices) => {
            let accepted: Vec<_> = choices.iter().filter(|choice| choice.refused.is_none()).map(|choice| choice.value).collect();
            json!({ "enum": accepted })
        }
        Type::List => json!({ "type": "array", "minItems": 1, "items": { "type": "string", "minLength": 1 } }),
        Type::Prefeed => json!({ "anyOf": [
            { "enum": ["snapshot", "none"] },
            { "type": "object", "additionalProperties": false, "required": ["file"], "properties": { "file": { "type": "string", "minLength": 1 } } },
            { "type": "object", "additionalProperties": false, "required": ["query"], "properties": { "query": { "type": "string", "minLength": 1 } } },
        ] }),
        Type::Operations => json!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 7 },
            { "type": "array", "minItems": 1, "items": { "enum": ["insert", "update", "delete"] } },
        ] }),
        Type::Properties => json!({ "type": "object" }),
        Type::Text | Type::Path | Type::Template | Type::Listen | Type::Secret => json!({ "type": "string" }),
    };
    property["description"] = json!(setting.meaning);
    if let Default::Is(text) = setting.default {
        property["default"] = match setting.kind {
            Type::Boolean | Type::Integer { .. } | Type::List | Type::Operations => {
                serde_json::from_str(text).unwrap_or_else(|_| json!(text))
            }
            _ => json!(text),
        };
    }
    property
}
