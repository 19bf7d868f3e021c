//! Reads validated values by their keys, and reports problems of them.

use crate::config::key::{Key, OptionalKey};
use crate::config::problem::Problem;
use crate::config::schema::Setting;
use crate::config::validate::Values;
use crate::config::value::Typed;
use crate::fault::Code;
use std::collections::BTreeMap;

/// What the builders find beside the plan.
#[derive(Debug, Default)]
pub(in crate::config) struct Found {
    pub(in crate::config) problems: Vec<Problem>,
    pub(in crate::config) warnings: Vec<Problem>,
    /// The values that follow from other settings, as TOML, by setting path.
    pub(in crate::config) derived: BTreeMap<&'static str, String>,
}

/// The values of the whole configuration, or of one table of a repeated section.
pub(super) struct SettingReader<'a> {
    pub(super) values: &'a Values,
    /// The table's index in its section.
    pub(super) index: Option<usize>,
    pub(super) found: &'a mut Found,
}

impl SettingReader<'_> {
    /// Reads a table of a repeated section.
    pub(super) fn table<'s>(&'s mut self, index: usize, values: &'s Values) -> SettingReader<'s> {
        SettingReader { values, index: Some(index), found: self.found }
    }

    fn typed(&self, setting: &Setting) -> Option<Typed> {
        // One that is given in two ways is none.
        if setting.is_secret() {
            return self.values.secrets.get(setting.path).cloned().map(Typed::Secret);
        }
        self.values.given(setting, "").map(|given| given.typed.clone())
    }

    /// The value, or its default. What is required and missing has been reported already.
    pub(super) fn get<T>(&self, key: &Key<T>) -> T {
        self.given(key).unwrap_or_else(|| key.default())
    }

    /// The value, if it is given.
    pub(super) fn given<T>(&self, key: &Key<T>) -> Option<T> {
        self.typed(key).map(|typed| key.value(typed))
    }

    /// The value of a setting that has no default.
    pub(super) fn optional<T>(&self, key: &OptionalKey<T>) -> Option<T> {
        self.typed(key).map(|typed| key.value(typed))
    }

    pub(super) fn is_given(&self, setting: &Setting) -> bool {
        self.values.given(setting, "").is_some()
    }

    /// The value that another setting (a URL) gives, or else the own one.
    #[cfg(feature = "tls")]
    pub(super) fn given_or_get<T: ToString>(&mut self, given: Option<T>, key: &Key<T>) -> T {
        let value = given.unwrap_or_else(|| self.get(key));
        self.note(key, &value.to_string());
        value
    }

    /// The value, or else one that follows from other settings.
    #[cfg(any(feature = "postgres", feature = "amqp"))]
    pub(super) fn optional_or<T: ToString>(&mut self, key: &OptionalKey<T>, derived: T) -> T {
        let value = self.optional(key).unwrap_or(derived);
        self.note(key, &value.to_string());
        value
    }

    /// Notes for `config print` the value in force of a setting that may follow from others.
    pub(super) fn note(&mut self, setting: &Setting, value: &str) {
        self.found.derived.insert(setting.path, setting.literal(value));
    }

    fn problem(&self, code: Code, setting: &Setting, suffix: &str, message: impl Into<String>) -> Problem {
        let problem = self.values.problem(code, setting, suffix, message);
        match self.index {
            Some(index) => Problem { path: format!("{}.{index}.{}", setting.section(), setting.key()), ..problem },
            None => problem,
        }
    }

    pub(super) fn refuse(&mut self, code: Code, setting: &Setting, message: impl Into<String>) {
        self.refuse_key(code, setting, "", message);
    }

    /// Like [`Self::refuse`], for a key beside the setting's own: `NAME_file` or `NAME_env` of a secret.
    pub(super) fn refuse_key(&mut self, code: Code, setting: &Setting, suffix: &str, message: impl Into<String>) {
        let problem = self.problem(code, setting, suffix, message);
        self.found.problems.push(problem);
    }

    #[cfg(any(feature = "kafka", feature = "tls"))]
    pub(super) fn warn(&mut self, code: Code, setting: &Setting, message: impl Into<String>) {
        let problem = self.problem(code, setting, "", message);
        self.found.warnings.push(problem);
    }
}
