//! The settings in force, with their origins; what `feedline config print` shows.

use crate::config::plan::{AmqpPlan, CheckpointPlan, Plan, SinkPlan, SourcePlan};
use crate::config::problem::Origin;
use crate::config::schema::{Default, Section, Setting, Type};
use crate::config::settings::{SECTIONS, SETTINGS};
use crate::config::validate::{Validated, Values};
use std::fmt::Write as _;

/// One setting in force.
#[derive(Clone, Debug)]
pub struct EffectiveSetting {
    /// Key path; of a feed it begins with `feeds.` and the feed's index.
    pub path: String,
    /// Its value, as TOML.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
}

/// Every setting in force, in the order of the documentation.
pub(super) fn effective(validated: &Validated, plan: &Plan) -> Vec<EffectiveSetting> {
    let mut lines = Vec::new();
    for section in SECTIONS {
        if section.repeated {
            for (index, values) in validated.list(section.path).iter().enumerate() {
                collect(section, values, &format!("{}.{index}", section.path), plan, &mut lines);
            }
        } else if !section.optional || validated.root.sections.contains(section.path) {
            collect(section, &validated.root, section.path, plan, &mut lines);
        }
    }
    lines
}

/// Adds the settings of one section; `shown` is the section's path with its index.
fn collect(section: &Section, values: &Values, shown: &str, plan: &Plan, lines: &mut Vec<EffectiveSetting>) {
    let kind = match section.path.split('.').next() {
        Some("source") => Some(plan.source.kind()),
        Some("sink") => Some(plan.sink.kind()),
        _ => None,
    };
    for setting in SETTINGS.iter().filter(|setting| setting.section() == section.path && setting.serves(kind)) {
        let prefix = if shown.is_empty() { String::new() } else { format!("{shown}.") };
        let mut is_given = false;
        for key in setting.keys() {
            let path = if section.path.is_empty() { key.clone() } else { format!("{}.{key}", section.path) };
            if let Some(given) = values.given.get(&path) {
                let origin = given.origin.clone().unwrap_or(Origin::Default);
                lines.push(EffectiveSetting { path: format!("{prefix}{key}"), value: quoted(setting, &given.shown), origin });
                is_given = true;
            }
        }
        if !is_given && let Some(value) = default(setting, plan) {
            lines.push(EffectiveSetting { path: format!("{prefix}{}", setting.key()), value, origin: Origin::Default });
        }
    }
}

fn quoted(setting: &Setting, shown: &str) -> String {
    if setting.kind == Type::Secret && shown == "***" { "\"***\"".to_owned() } else { shown.to_owned() }
}

/// The value of a setting that is not given; `None` if it has none.
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
                && let Some(value) = derived_for_amqp(path, amqp)
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
        Default::Is(text) => Some(setting.literal(text)),
        Default::Required(_) | Default::Derived(_) | Default::Absent(_) => None,
    }
}

/// RabbitMQ's settings whose values follow from `sink.url` or from other settings.
fn derived_for_amqp(path: &str, amqp: &AmqpPlan) -> Option<String> {
    Some(match path {
        "sink.host" => format!("{:?}", amqp.hosts.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>().join(",")),
        "sink.port" => amqp.hosts.first()?.1.to_string(),
        "sink.user" => format!("{:?}", amqp.user),
        "sink.vhost" => format!("{:?}", amqp.vhost),
        "sink.exchange" => format!("{:?}", amqp.exchange),
        _ => return None,
    })
}

/// Writes the settings in force as TOML, each with its origin in a comment.
#[must_use]
pub fn to_toml(settings: &[EffectiveSetting]) -> String {
    let mut out = String::new();
    let mut section = String::new();
    for setting in settings {
        let (prefix, key) = setting.path.rsplit_once('.').unwrap_or(("", &setting.path));
        if prefix != section {
            prefix.clone_into(&mut section);
            let list =
                SECTIONS.iter().find(|section| section.repeated && prefix.rsplit_once('.').is_some_and(|(list, _)| list == section.path));
            let header = list.map_or_else(|| format!("[{prefix}]"), |section| format!("[[{}]]", section.path));
            writeln!(out, "\n{header}").expect("a string takes all");
        }
        writeln!(out, "{:<60} # {}", format!("{key} = {}", setting.value), setting.origin).expect("a string takes all");
    }
    out
}
