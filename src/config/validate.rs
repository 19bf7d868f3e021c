//! Checks the merged values against the table of settings, and collects all problems.

use crate::config::layers::{Layers, PREFIX};
use crate::config::problem::{Origin, Problem};
use crate::config::redact;
use crate::config::schema::{Default, Section, Setting, Type};
use crate::config::settings::{self, FEEDS, SECTIONS, sink, source, written_by};
use crate::config::value::{Typed, parse};
use crate::fault::Code;
use crate::net::secret::Secret;
use figment::value::{Dict, Tag, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A valid value that a layer gives.
#[derive(Clone, Debug)]
pub(super) struct GivenValue {
    pub(super) typed: Typed,
    pub(super) origin: Option<Origin>,
    /// As it was written. Secrets are `***`.
    pub(super) shown: String,
    /// As an error may show it; `None` if it may contain a secret.
    pub(super) shown_in_errors: Option<String>,
}

/// The values of the whole configuration, or of one table of a repeated section, by setting path.
#[derive(Clone, Debug, std::default::Default)]
pub(super) struct Values {
    pub(super) given: BTreeMap<String, GivenValue>,
    /// Sections that are present, with or without values.
    pub(super) sections: BTreeSet<String>,
    /// Secrets that files and variables hold, by setting path.
    pub(super) secrets: BTreeMap<&'static str, Secret>,
    /// Settings with an invalid value, which has been reported.
    invalid: BTreeSet<String>,
}

impl Values {
    /// The value of a setting, or of a key beside it: of `NAME_file` and `NAME_env` of a secret.
    pub(super) fn given(&self, setting: &Setting, suffix: &str) -> Option<&GivenValue> {
        self.given.get(&format!("{}{suffix}", setting.path))
    }

    /// A problem of a setting, or of a key beside it.
    pub(super) fn problem(&self, code: Code, setting: &Setting, suffix: &str, message: impl Into<String>) -> Problem {
        let given = self.given(setting, suffix);
        Problem {
            code,
            path: format!("{}{suffix}", setting.path),
            value: given.and_then(|given| given.shown_in_errors.clone()),
            origin: given.and_then(|given| given.origin.clone()),
            message: message.into(),
        }
    }
}

/// A configuration whose values have the types of their settings.
#[derive(Clone, Debug, std::default::Default)]
pub(super) struct Validated {
    pub(super) root: Values,
    /// The tables of each repeated section, by its path.
    lists: BTreeMap<&'static str, Vec<Values>>,
}

impl Validated {
    /// The tables of a repeated section.
    pub(super) fn list(&self, section: &Section) -> &[Values] {
        self.lists.get(section.path).map_or(&[], Vec::as_slice)
    }
}

/// Checks every value, and that no required setting is missing.
pub(super) fn validate(layers: &Layers, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) -> Validated {
    let values = layers.values(problems);
    let mut validator = Validator { layers, problems, kinds: BTreeMap::new(), overridden: BTreeSet::new(), warnings };
    validator.find_kinds(&values);
    validator.warn_of_misspelt_variables();
    let mut validated = Validated::default();
    validator.table("", &[], &values, &mut validated.root);
    for section in SECTIONS.iter().filter(|section| section.repeated) {
        let tables = validator.list(section, &values);
        validated.lists.insert(section.path, tables);
    }
    validator.missing("", &validated.root, "");
    for section in SECTIONS.iter().filter(|section| !section.path.is_empty() && !section.repeated) {
        if !section.optional || validated.root.sections.contains(section.path) {
            validator.missing(section.path, &validated.root, section.path);
        }
    }
    validated
}

/// The state of [`validate`].
///
/// A value has two paths: `path` names its setting (`feeds.tables`), `keys` leads to it in the configuration, with list indices
/// (`feeds`, `0`, `tables`).
struct Validator<'a> {
    layers: &'a Layers,
    problems: &'a mut Vec<Problem>,
    /// The valid kind of `source` and `sink`.
    kinds: BTreeMap<&'static str, &'static str>,
    /// Sections whose kind an environment variable or argument sets: settings of another kind in the file are ignored.
    overridden: BTreeSet<&'static str>,
    warnings: &'a mut Vec<Problem>,
}

impl Validator<'_> {
    fn find_kinds(&mut self, values: &Dict) {
        for (section, kind) in [("source", source::KIND.setting()), ("sink", sink::KIND.setting())] {
            let given = values.get(section).and_then(|section| section.find_ref("kind"));
            let origin = given.and_then(|kind| self.layers.origin(kind.tag(), &[section, "kind"]));
            if matches!(origin, Some(Origin::Environment(_) | Origin::Argument(_))) {
                self.overridden.insert(section);
            }
            if let Some(Ok(Typed::Choice(kind))) = given.map(|given| parse(&kind, given)) {
                self.kinds.insert(section, kind);
            }
        }
    }

    fn warn_of_misspelt_variables(&mut self) {
        for (variable, setting) in &self.layers.misspelt_variables {
            let message = format!("not a setting: write two underscores for each dot, as in {setting}");
            let origin = Some(Origin::Environment(variable.clone()));
            self.warnings.push(Problem { code: Code::ConfigUnknown, path: String::new(), value: None, origin, message });
        }
    }

    fn table(&mut self, section: &str, keys: &[&str], table: &Dict, into: &mut Values) {
        for (key, value) in table {
            let path = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            let keys: Vec<&str> = keys.iter().copied().chain([key.as_str()]).collect();
            if SECTIONS.iter().any(|section| section.repeated && section.path == path) {
                continue;
            }
            if SECTIONS.iter().any(|section| section.path == path) {
                into.sections.insert(path.clone());
                match value {
                    Value::Dict(_, inner) => self.table(&path, &keys, inner, into),
                    other => {
                        let message = "expected a table of settings".to_owned();
                        self.report(Code::ConfigInvalid, &keys, other.tag(), None, message);
                    }
                }
                continue;
            }
            self.value(&path, &keys, value, into);
        }
    }

    fn value(&mut self, path: &str, keys: &[&str], value: &Value, into: &mut Values) {
        let Some(setting) = written_by(path) else {
            into.invalid.insert(path.to_owned());
            return self.unknown(path, keys, value.tag());
        };
        if self.is_of_another_kind(setting, keys, value.tag()) {
            return;
        }
        let shown = match setting.kind {
            Type::Secret if path == setting.path => "\"***\"".to_owned(),
            Type::Properties => redact::show_properties(value),
            _ => redact::show(value),
        };
        let shown_in_errors = redact::is_harmless(setting, path, value).then(|| shown.clone());
        // `NAME_file` and `NAME_env` of a secret are strings.
        let as_written = if path == setting.path { *setting } else { Setting { kind: Type::Text, ..*setting } };
        match parse(&as_written, value) {
            Ok(typed) => {
                let origin = self.layers.origin(value.tag(), keys);
                into.given.insert(path.to_owned(), GivenValue { typed, origin, shown, shown_in_errors });
            }
            Err((code, message)) => {
                into.invalid.insert(setting.path.to_owned());
                self.report(code, keys, value.tag(), shown_in_errors, message);
            }
        }
    }

    /// Reports a setting of another kind of source or sink. Its value is not shown: it may be a secret.
    fn is_of_another_kind(&mut self, setting: &Setting, keys: &[&str], tag: Tag) -> bool {
        let section = setting.section().split('.').next().unwrap_or_default();
        let Some(kind) = self.kinds.get(section).filter(|kind| !setting.serves(Some(kind))) else { return false };
        let message = format!("valid only for {section}.kind = \"{}\", but {section}.kind is \"{kind}\"", setting.kinds.join("\" or \""));
        let origin = self.layers.origin(tag, keys);
        if self.overridden.contains(section) && matches!(origin, Some(Origin::File { .. })) {
            let message = format!("ignored: {message}");
            self.warnings.push(Problem { code: Code::ConfigContradictory, path: keys.join("."), value: None, origin, message });
        } else {
            self.report(Code::ConfigContradictory, keys, tag, None, format!("{message}: leave it out, or change the kind"));
        }
        true
    }

    /// Checks the tables of a repeated section.
    fn list(&mut self, section: &Section, values: &Dict) -> Vec<Values> {
        let keys: Vec<&str> = section.path.split('.').collect();
        let (last, parents) = keys.split_last().expect("a repeated section has a name");
        let parent = parents.iter().try_fold(values, |table, key| table.get(*key).and_then(Value::as_dict));
        let tables = match parent.and_then(|table| table.get(*last)) {
            None => &[],
            Some(Value::Array(_, tables)) => tables.as_slice(),
            Some(other) => {
                let example = if section.path == FEEDS.path { "{tables=[\"orders\"]}" } else { "{name=\"a\",keys=[\"#\"]}" };
                let message = format!(
                    "expected a list of tables ([[{}]]); a variable or --set must give the whole list, such as {PREFIX}{}='[{example}]'",
                    section.path,
                    section.path.replace('.', "__").to_ascii_uppercase(),
                );
                self.report(Code::ConfigInvalid, &keys, other.tag(), None, message);
                return Vec::new();
            }
        };
        if tables.is_empty() && !section.optional {
            let message = format!("missing: name at least one table, such as [[{}]] tables = [\"orders\"]", section.path);
            let path = section.path.to_owned();
            self.problems.push(Problem { code: Code::ConfigMissing, path, value: None, origin: self.layers.file(), message });
        }
        let mut checked = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let index = index.to_string();
            let keys: Vec<&str> = keys.iter().copied().chain([index.as_str()]).collect();
            let Value::Dict(_, values) = table else {
                self.report(Code::ConfigInvalid, &keys, table.tag(), None, "expected a table of settings".into());
                continue;
            };
            let mut own = Values::default();
            self.table(section.path, &keys, values, &mut own);
            self.missing(section.path, &own, &keys.join("."));
            checked.push(own);
        }
        checked
    }

    /// Reports the required settings that a section lacks; `shown` is the section's path with its index.
    fn missing(&mut self, section: &str, values: &Values, shown: &str) {
        let root = section.split('.').next().unwrap_or_default();
        let has_kinds = matches!(root, "source" | "sink");
        let kind = self.kinds.get(root).copied();
        for setting in settings::all().filter(|setting| setting.section() == section) {
            let Default::Required(example) = setting.default else { continue };
            let is_present = |path: &str| values.given.contains_key(path) || values.invalid.contains(path);
            let is_in_url = setting.path == source::DATABASE.path && is_present(source::URL.path);
            // Without a valid kind, it is not known which other settings are required.
            let is_undecided = setting.key() != "kind" && has_kinds && kind.is_none();
            if is_present(setting.path) || is_in_url || is_undecided || !setting.serves(kind) {
                continue;
            }
            let path = if shown.is_empty() { setting.key().to_owned() } else { format!("{shown}.{}", setting.key()) };
            let (expected, key, example) = (setting.kind.expected(), setting.key(), setting.literal(example));
            let message = format!("missing: expected {expected}, such as {key} = {example}");
            self.problems.push(Problem { code: Code::ConfigMissing, path, value: None, origin: self.layers.file(), message });
        }
    }

    fn unknown(&mut self, path: &str, keys: &[&str], tag: Tag) {
        let message = match nearest(path) {
            Some(known) => format!("unknown setting; did you mean `{known}`?"),
            None => "unknown setting; `feedline config schema` lists all".to_owned(),
        };
        self.report(Code::ConfigUnknown, keys, tag, None, message);
    }

    fn report(&mut self, code: Code, keys: &[&str], tag: Tag, value: Option<String>, message: String) {
        let origin = self.layers.origin(tag, keys);
        self.problems.push(Problem { code, path: keys.join("."), value, origin, message });
    }
}

/// The known setting path nearest to `path`: misspelt in its section, or correct in another section.
fn nearest(path: &str) -> Option<String> {
    let split =
        |path: &str| path.rsplit_once('.').map_or((String::new(), path.to_owned()), |(section, key)| (section.to_owned(), key.to_owned()));
    let (section, key) = split(path);
    let known = settings::all().flat_map(|setting| {
        let prefix = if setting.section().is_empty() { String::new() } else { format!("{}.", setting.section()) };
        setting.keys().into_iter().map(move |key| format!("{prefix}{key}"))
    });
    let sections = SECTIONS.iter().map(|section| section.path.to_owned()).filter(|path| !path.is_empty());
    let distance = |candidate: &str| {
        let (other_section, other_key) = split(candidate);
        let distance = strsim::osa_distance(&key, &other_key);
        if section == other_section { distance * 2 } else { distance * 4 + 1 }
    };
    let best = known.chain(sections).min_by_key(|candidate| distance(candidate))?;
    (distance(&best) <= (key.len() / 3).max(1) * 2).then_some(best)
}
