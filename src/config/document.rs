//! Documents all settings: the example file, the page `docs/settings.md` and the JSON schema.

use crate::config::schema::{Default, Section, Setting, Type};
use crate::config::settings::{self, SECTIONS, sink};
use crate::config::toml;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

fn of_section(section: &Section) -> impl Iterator<Item = &'static Setting> {
    let path = section.path;
    settings::all().filter(move |setting| setting.section() == path)
}

/// Writes `config/feedline.toml`: every setting with its default. Settings of other kinds or without a default are commented out.
#[must_use]
pub fn example() -> String {
    let mut out = String::from(
        "# Every setting of feedline, with its default. `feedline config schema --format toml` writes this file.\n\
         # FEEDLINE__SECTION__KEY=value overrides a setting of the file, --set section.key=value overrides both.\n\
         # A list of sections is given as a whole: FEEDLINE__FEEDS='[{tables=[\"orders\"]}]'.\n",
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
    let key = if setting.is_secret() { format!("{}_file", setting.key()) } else { setting.key().to_owned() };
    // The active settings form one configuration: SQLite to Kafka.
    let is_of_other_kind = !setting.kinds.is_empty() && !setting.kinds.contains(&"sqlite") && !setting.kinds.contains(&"kafka");
    let (value, active) = match setting.default {
        Default::Required(text) | Default::Is(text) => (setting.literal(text), true),
        // The description of a number begins with its value.
        Default::Derived(text) if matches!(setting.kind, Type::Integer { .. }) => {
            writeln!(out, "# Default: {text}.").expect("a string takes all");
            (text.split([',', ';']).next().unwrap_or(text).to_owned(), true)
        }
        // Dead letters are refused with the default of `sink.on_unpublishable`.
        Default::Derived(text) => (toml::string(&text.replace("{name}", "shop")), setting.path != sink::DEAD_LETTER.path),
        Default::Absent(text) => (setting.literal(text), false),
    };
    let comment = if active && !is_of_other_kind && !section.optional { "" } else { "#" };
    writeln!(out, "{comment}{key} = {value}").expect("a string takes all");
    if setting.is_secret() {
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

/// Writes `docs/settings.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Settings\n\n\
         <!-- Written by `feedline config schema --format markdown`; a test holds it equal to the code. -->\n\n\
         The configuration is a TOML file (`feedline run -c feedline.toml`). An environment variable overrides it\n\
         (`FEEDLINE__SINK__KIND=kafka` for `sink.kind`), an argument overrides both (`--set sink.kind=kafka`). A list of sections\n\
         is given as a whole: `FEEDLINE__FEEDS='[{tables=[\"orders\"]}]'`, `--set 'feeds=[{tables=[\"orders\"]}]'`.\n\n\
         - Sizes and periods have a unit: `B kB MB GB KiB MiB GiB`, `ms s min h` (`m` is `min`).\n\
         - A secret `NAME` is set by `NAME_file` (a path; a newline at the end is dropped), by `NAME_env` (the name of a variable), or\n  \
           literally by `NAME`, with a warning.\n\
         - An unknown setting is an error that names the nearest known one. All errors are reported at once, each with its\n  \
           code in [errors.md](errors.md).\n\
         - `feedline check --offline` checks a configuration; `feedline config print` shows the settings in force and their origins.\n",
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
                Default::Required(text) => format!("required; example: `{}`", setting.literal(text)),
                Default::Is(text) => format!("`{}`", setting.literal(text)),
                Default::Derived(text) if matches!(setting.kind, Type::Integer { .. }) => text.to_owned(),
                Default::Derived(text) => format!("`{text:?}`"),
                Default::Absent(text) => format!("none; example: `{}`", setting.literal(text)),
            };
            let bounds = bounds(setting).map(|bounds| format!(" {bounds}")).unwrap_or_default();
            writeln!(out, "| {names} | {value} | {kinds}{}{bounds} |", setting.meaning).expect("a string takes all");
        }
    }
    out
}

/// Writes a JSON schema (draft 2020-12), for editors.
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
            let accepted: Vec<_> = choices().iter().filter(|choice| choice.refused.is_none()).map(|choice| choice.value).collect();
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
