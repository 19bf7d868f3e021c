//! The settings in force, with their origins; what `feedline config print` shows.

use crate::config::plan::Plan;
use crate::config::problem::Origin;
use crate::config::schema::{Default, Setting};
use crate::config::settings::{self, SECTIONS};
use crate::config::validate::{Validated, Values};
use std::collections::BTreeMap;
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

/// Every setting in force, in the order of the documentation; `derived` are the values that follow from other settings.
pub(super) fn effective(validated: &Validated, plan: &Plan, derived: &BTreeMap<&'static str, String>) -> Vec<EffectiveSetting> {
    let mut lines = Vec::new();
    for section in SECTIONS {
        let kind = match section.path.split('.').next() {
            Some("source") => Some(plan.source.kind()),
            Some("sink") => Some(plan.sink.kind()),
            _ => None,
        };
        let settings: Vec<_> = settings::all().filter(|setting| setting.section() == section.path && setting.serves(kind)).collect();
        if section.repeated {
            for (index, values) in validated.list(section).iter().enumerate() {
                let prefix = format!("{}.{index}.", section.path);
                lines.extend(settings.iter().flat_map(|setting| lines_of(setting, values, &prefix, derived)));
            }
        } else if !section.optional || validated.root.sections.contains(section.path) {
            let prefix = if section.path.is_empty() { String::new() } else { format!("{}.", section.path) };
            lines.extend(settings.iter().flat_map(|setting| lines_of(setting, &validated.root, &prefix, derived)));
        }
    }
    lines
}

/// The keys of one setting that are given, or else its default; `prefix` is its section with the table's index.
fn lines_of(setting: &Setting, values: &Values, prefix: &str, derived: &BTreeMap<&'static str, String>) -> Vec<EffectiveSetting> {
    let mut lines = Vec::new();
    for suffix in setting.suffixes() {
        if let Some(given) = values.given(setting, suffix) {
            let origin = given.origin.clone().unwrap_or(Origin::Default);
            lines.push(EffectiveSetting { path: format!("{prefix}{}{suffix}", setting.key()), value: given.shown.clone(), origin });
        }
    }
    let default = match setting.default {
        Default::Is(text) => Some(setting.literal(text)),
        Default::Required(_) | Default::Derived(_) | Default::Absent(_) => None,
    };
    if lines.is_empty()
        && let Some(value) = derived.get(setting.path).cloned().or(default)
    {
        lines.push(EffectiveSetting { path: format!("{prefix}{}", setting.key()), value, origin: Origin::Default });
    }
    lines
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
        // A name from outside may hold a line break.
        let origin = setting.origin.to_string().replace(char::is_control, " ");
        writeln!(out, "{:<60} # {origin}", format!("{key} = {}", setting.value)).expect("a string takes all");
    }
    out
}
