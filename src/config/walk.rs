//! Holds the merged values against the table of settings and collects everything that is wrong.

use crate::config::layers::Layers;
use crate::config::problem::{Origin, Problem};
use crate::config::read::{self, Typed};
use crate::config::schema::{Default, Section, Setting, Type};
use crate::config::settings::{SECTIONS, SETTINGS, written_by};
use crate::fault::Code;
use figment::value::{Dict, Tag, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) typed: Typed,
    pub(super) origin: Option<Origin>,
    /// As it was written; a secret is `***`.
    pub(super) shown: String,
    /// What an error may show of it.
    pub(super) harmless: Option<String>,
}

/// The values of the whole configuration, or of one feed, by key path.
#[derive(Clone, Debug, std::default::Default)]
pub(super) struct Values {
    pub(super) found: BTreeMap<String, Found>,
    /// Sections that are there, with or without values.
    pub(super) sections: BTreeSet<String>,
    /// Settings that are there and wrong: nothing more is said about them.
    wrong: BTreeSet<String>,
}

/// A configuration whose values have their types.
#[derive(Clone, Debug, std::default::Default)]
pub(super) struct Walked {
    pub(super) root: Values,
    /// The tables of each repeated section, by its path.
    lists: BTreeMap<&'static str, Vec<Values>>,
}

impl Walked {
    /// The tables of a repeated section.
    pub(super) fn list(&self, section: &str) -> &[Values] {
        self.lists.get(section).map_or(&[], Vec::as_slice)
    }
}

/// Checks every value, and that nothing is missing.
pub(super) fn walk(layers: &Layers, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) -> Walked {
    let values = layers.values(problems);
    let mut walk = Walk { layers, problems, kinds: BTreeMap::new(), overridden: BTreeSet::new(), warnings };
    for section in ["source", "sink"] {
        let written = values.get(section).and_then(|section| section.find_ref("kind"));
        let kind = written.and_then(Value::as_str);
        let origin = written.and_then(|kind| layers.origin(kind.tag(), &[section, "kind"]));
        if matches!(origin, Some(Origin::Environment(_) | Origin::Argument(_))) {
            walk.overridden.insert(section);
        }
        let accepted = |kind: &&str| match written_by(&format!("{section}.kind")).map(|setting| setting.kind) {
            Some(Type::Choice(choices)) => choices.iter().any(|choice| choice.value == *kind && choice.refused.is_none()),
            _ => false,
        };
        if let Some(kind) = kind.filter(accepted) {
            walk.kinds.insert(section, kind.to_owned());
        }
    }
    for (variable, setting) in &layers.meant {
        let message = format!("is no setting: two underscores stand for a dot, as in {setting}");
        let origin = Some(Origin::Environment(variable.clone()));
        walk.warnings.push(Problem { code: Code::ConfigUnknown, path: String::new(), value: None, origin, message });
    }
    let mut walked = Walked::default();
    walk.table("", &[], &values, &mut walked.root);
    for section in SECTIONS.iter().filter(|section| section.repeated) {
        let tables = walk.list(section, &values);
        walked.lists.insert(section.path, tables);
    }
    walk.missing("", &walked.root, "");
    for section in SECTIONS.iter().filter(|section| !section.path.is_empty() && !section.repeated) {
        if !section.optional || walked.root.sections.contains(section.path) {
            walk.missing(section.path, &walked.root, section.path);
        }
    }
    walked
}

struct Walk<'a> {
    layers: &'a Layers,
    problems: &'a mut Vec<Problem>,
    /// The accepted kind of each section that has kinds.
    kinds: BTreeMap<&'static str, String>,
    /// Sections whose kind was written over the file's: what the file says of the other kind is left out.
    overridden: BTreeSet<&'static str>,
    warnings: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn table(&mut self, section: &str, way: &[&str], table: &Dict, into: &mut Values) {
        for (key, value) in table {
            let path = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            let way: Vec<&str> = way.iter().copied().chain([key.as_str()]).collect();
            if SECTIONS.iter().any(|section| section.repeated && section.path == path) {
                continue;
            }
            if SECTIONS.iter().any(|section| section.path == path) {
                into.sections.insert(path.clone());
                match value {
                    Value::Dict(_, inner) => self.table(&path, &way, inner, into),
                    other => {
                        let message = "expected a table of settings".to_owned();
                        self.report(Code::ConfigInvalid, &way, other.tag(), None, message);
                    }
                }
                continue;
            }
            self.value(&path, &way, value, into);
        }
    }

    fn value(&mut self, path: &str, way: &[&str], value: &Value, into: &mut Values) {
        let Some(setting) = written_by(path) else {
            into.wrong.insert(path.to_owned());
            return self.unknown(path, way, value.tag());
        };
        let section = setting.section().split('.').next().unwrap_or_default();
        let kind = self.kinds.get(section).map(String::as_str);
        // A value in a place where it is not expected may be a secret: it is not shown.
        if let Some(kind) = kind.filter(|kind| !setting.serves(Some(kind))) {
            let message = format!("a setting of {section}.kind = \"{}\", and this {section} is \"{kind}\"", setting.kinds.join("\" or \""));
            if self.overridden.contains(section) && matches!(self.layers.origin(value.tag(), way), Some(Origin::File { .. })) {
                let origin = self.layers.origin(value.tag(), way);
                let message = format!("is left out: it is {message}");
                self.warnings.push(Problem { code: Code::ConfigContradictory, path: way.join("."), value: None, origin, message });
                return;
            }
            return self.report(Code::ConfigContradictory, way, value.tag(), None, format!("{message}: leave it out, or change the kind"));
        }
        let shown = match setting.kind {
            Type::Secret if path == setting.path => "***".to_owned(),
            Type::Properties => read::show_properties(value),
            _ => read::show(value),
        };
        let harmless = read::is_harmless(setting, path, value).then(|| shown.clone());
        // A secret's file or variable is named by a text.
        let as_written = if path == setting.path { *setting } else { Setting { kind: Type::Text, ..*setting } };
        match read::read(&as_written, value) {
            Ok(typed) => {
                let origin = self.layers.origin(value.tag(), way);
                into.found.insert(path.to_owned(), Found { typed, origin, shown, harmless });
            }
            Err((code, message)) => {
                into.wrong.insert(setting.path.to_owned());
                self.report(code, way, value.tag(), harmless, message);
            }
        }
    }

    /// The tables of a repeated section.
    fn list(&mut self, section: &Section, values: &Dict) -> Vec<Values> {
        let way: Vec<&str> = section.path.split('.').collect();
        let (last, parents) = way.split_last().expect("a repeated section has a name");
        let parent = parents.iter().try_fold(values, |table, key| table.get(*key).and_then(Value::as_dict));
        let tables = match parent.and_then(|table| table.get(*last)) {
            None => &[],
            Some(Value::Array(_, tables)) => tables.as_slice(),
            Some(other) => {
                let example = if section.path == "feeds" { "{tables=[\"orders\"]}" } else { "{name=\"a\",keys=[\"#\"]}" };
                let message = format!(
                    "expected a list of tables, each begun with [[{}]]; a variable or --set gives the list as a whole, such as {}{}='[{example}]'",
                    section.path,
                    super::PREFIX,
                    section.path.replace('.', "__").to_ascii_uppercase(),
                );
                self.report(Code::ConfigInvalid, &way, other.tag(), None, message);
                return Vec::new();
            }
        };
        if tables.is_empty() && !section.optional {
            let message = format!("missing: name at least one table, such as [[{}]] tables = [\"orders\"]", section.path);
            let path = section.path.to_owned();
            self.problems.push(Problem { code: Code::ConfigMissing, path, value: None, origin: self.layers.file(), message });
        }
        let mut found = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let index = index.to_string();
            let way: Vec<&str> = way.iter().copied().chain([index.as_str()]).collect();
            let Value::Dict(_, values) = table else {
                self.report(Code::ConfigInvalid, &way, table.tag(), None, "expected a table of settings".into());
                continue;
            };
            let mut own = Values::default();
            self.table(section.path, &way, values, &mut own);
            self.missing(section.path, &own, &way.join("."));
            found.push(own);
        }
        found
    }

    /// Reports the settings of a section that must be there and are not.
    fn missing(&mut self, section: &str, values: &Values, shown: &str) {
        let root = section.split('.').next().unwrap_or_default();
        let has_kinds = matches!(root, "source" | "sink");
        let kind = self.kinds.get(root).map(String::as_str);
        for setting in SETTINGS.iter().filter(|setting| setting.section() == section) {
            let Default::Required(example) = setting.default else { continue };
            let written = |path: &str| values.found.contains_key(path) || values.wrong.contains(path);
            let by_url = setting.path == "source.database" && written("source.url");
            // Which other settings a section needs is known with its kind.
            let open = setting.key() != "kind" && has_kinds && kind.is_none();
            if written(setting.path) || by_url || open || !setting.serves(kind) {
                continue;
            }
            let path = if shown.is_empty() { setting.key().to_owned() } else { format!("{shown}.{}", setting.key()) };
            let example = match setting.kind {
                Type::List => example.to_owned(),
                _ => format!("{example:?}"),
            };
            let message = format!("missing: expected {}, such as {} = {example}", setting.kind.expected(), setting.key());
            self.problems.push(Problem { code: Code::ConfigMissing, path, value: None, origin: self.layers.file(), message });
        }
    }

    fn unknown(&mut self, path: &str, way: &[&str], tag: Tag) {
        let message = match nearest(path) {
            Some(known) => format!("there is no such setting; did you mean `{known}`?"),
            None => "there is no such setting; `feedline config schema` lists all".to_owned(),
        };
        self.report(Code::ConfigUnknown, way, tag, None, message);
    }

    fn report(&mut self, code: Code, way: &[&str], tag: Tag, value: Option<String>, message: String) {
        let origin = self.layers.origin(tag, way);
        self.problems.push(Problem { code, path: way.join("."), value, origin, message });
    }
}

/// The known key path that is most like `path`: misspelt in its section, or spelt well in another.
fn nearest(path: &str) -> Option<String> {
    let split =
        |path: &str| path.rsplit_once('.').map_or((String::new(), path.to_owned()), |(section, key)| (section.to_owned(), key.to_owned()));
    let (section, key) = split(path);
    let known = SETTINGS.iter().flat_map(|setting| {
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
