//! Reads validated values by setting path, with defaults, and reports problems of them.

use crate::config::problem::{Origin, Problem};
use crate::config::schema::Default;
use crate::config::secrets;
use crate::config::settings;
use crate::config::validate::{GivenValue, Values};
use crate::config::value::{self, Typed};
use crate::fault::Code;
use crate::feed::route::Template;
use crate::net::secret::Secret;
use figment::value::Value;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// The values of the whole configuration, or of one table of a repeated section.
pub(super) struct SettingReader<'a> {
    pub(super) values: &'a Values,
    /// Looks up an environment variable.
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) problems: &'a mut Vec<Problem>,
    pub(super) warnings: &'a mut Vec<Problem>,
}

impl SettingReader<'_> {
    pub(super) fn given(&self, path: &str) -> Option<&GivenValue> {
        self.values.given.get(path)
    }

    /// The value or the default; `None` if there is neither. A missing required value has been reported already.
    pub(super) fn typed(&self, path: &str) -> Option<Typed> {
        if let Some(given) = self.given(path) {
            return Some(given.typed.clone());
        }
        let setting = settings::find(path)?;
        let Default::Is(text) = setting.default else { return None };
        let default = if setting.kind.is_plain() { Value::from(text) } else { text.parse().unwrap_or_else(|_| Value::from(text)) };
        value::parse(setting, &default).ok()
    }

    pub(super) fn text(&self, path: &str) -> String {
        self.optional_text(path).unwrap_or_default()
    }

    pub(super) fn optional_text(&self, path: &str) -> Option<String> {
        match self.typed(path) {
            Some(Typed::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn optional_path(&self, path: &str) -> Option<PathBuf> {
        self.optional_text(path).map(PathBuf::from)
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        matches!(self.typed(path), Some(Typed::Flag(true)))
    }

    pub(super) fn number(&self, path: &str) -> u64 {
        match self.typed(path) {
            Some(Typed::Number(number)) => number,
            _ => 0,
        }
    }

    pub(super) fn period(&self, path: &str) -> Duration {
        match self.typed(path) {
            Some(Typed::Period(period)) => period,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn rate(&self, path: &str) -> Option<NonZeroU64> {
        match self.typed(path) {
            Some(Typed::Rate(rate)) => rate,
            _ => None,
        }
    }

    pub(super) fn listen(&self, path: &str) -> Option<SocketAddr> {
        match self.typed(path) {
            Some(Typed::Listen(address)) => address,
            _ => None,
        }
    }

    fn problem(&self, code: Code, path: &str, message: impl Into<String>) -> Problem {
        let given = self.given(path);
        Problem {
            code,
            path: path.to_owned(),
            value: given.and_then(|given| given.shown_in_errors.clone()),
            origin: given.and_then(|given| given.origin.clone()),
            message: message.into(),
        }
    }

    pub(super) fn refuse(&mut self, code: Code, path: &str, message: impl Into<String>) {
        let problem = self.problem(code, path, message);
        self.problems.push(problem);
    }

    /// Like [`Self::refuse`]; `shown` is the path with the index of the feed or queue.
    pub(super) fn refuse_as(&mut self, code: Code, path: &str, shown: &str, message: impl Into<String>) {
        let problem = Problem { path: shown.to_owned(), ..self.problem(code, path, message) };
        self.problems.push(problem);
    }

    pub(super) fn warn(&mut self, code: Code, path: &str, message: impl Into<String>) {
        let problem = self.problem(code, path, message);
        self.warnings.push(problem);
    }

    /// The template; `None` if it is not set, or is invalid and was reported.
    pub(super) fn template(&mut self, path: &str, shown: &str) -> Option<Template> {
        match Template::parse(&self.optional_text(path)?) {
            Ok(template) if path.ends_with(".routing_key") => Some(template.for_routing_keys()),
            Ok(template) => Some(template),
            Err(error) => {
                self.refuse_as(Code::ConfigInvalid, path, shown, error.to_string());
                None
            }
        }
    }

    /// The secret, from its file, from its environment variable, or (with a warning) from the configuration itself.
    pub(super) fn secret(&mut self, path: &str) -> Option<Secret> {
        let (file, variable) = (format!("{path}_file"), format!("{path}_env"));
        let given: Vec<&str> = [path, &file, &variable].into_iter().filter(|key| self.given(key).is_some()).collect();
        let [key] = given.as_slice() else {
            if let [first, rest @ ..] = given.as_slice() {
                for other in rest {
                    self.refuse(Code::ConfigContradictory, other, format!("sets the same secret as {first}: keep one"));
                }
            }
            return None;
        };
        let given = self.given(key)?;
        match &given.typed {
            Typed::Secret(secret) => {
                let secret = secret.clone();
                if !matches!(given.origin, Some(Origin::Environment(_))) {
                    self.warn(Code::SecretLiteral, key, format!("the secret is written in the configuration: use {file} or {variable}"));
                }
                Some(secret)
            }
            Typed::Text(name) => {
                let name = name.clone();
                let read = if *key == file { secrets::from_file(&name) } else { secrets::from_variable(&name, self.lookup) };
                read.map_err(|message| self.refuse(Code::SecretUnreadable, key, message)).ok()
            }
            _ => None,
        }
    }
}
