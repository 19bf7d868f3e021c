//! Merges the layers of a configuration: the file, then the environment, then the command line.
//!
//! Each value keeps its layer, so that an error can say where it was written.

use crate::config::problem::{Origin, Problem};
use crate::config::schema::{Setting, Type};
use crate::config::settings;
use crate::fault::Code;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};
use std::path::{Path, PathBuf};
use toml_edit::{ImDocument, TableLike};

/// Prefix of environment variables that are settings. In their names, two underscores are a dot.
pub const PREFIX: &str = "FEEDLINE__";

/// The inputs of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// All environment variables; those without [`PREFIX`] are ignored.
    pub environment: Vec<(String, String)>,
    /// The `--set` arguments, each `key.path=value`.
    pub arguments: Vec<String>,
}

impl Inputs {
    /// The file and the arguments, with the environment of this process.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, arguments: Vec<String>) -> Self {
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
        Self { file, environment, arguments }
    }
}

/// One layer, as a figment provider.
struct Layer {
    name: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// The merged layers.
#[derive(Debug)]
pub(super) struct Layers {
    figment: Figment,
    file: Option<(PathBuf, String)>,
    document: Option<ImDocument<String>>,
    /// Variables with one underscore where two are needed, and their correct names.
    pub(super) misspelt_variables: Vec<(String, String)>,
}

const FILE: &str = "file";
const ENVIRONMENT: &str = "environment:";
const ARGUMENT: &str = "argument:";

impl Layers {
    /// Merges the layers. What cannot be read is reported and left out.
    pub(super) fn merge(inputs: &Inputs, problems: &mut Vec<Problem>) -> Self {
        let mut layers =
            Self { figment: Figment::new(), file: None, document: None, misspelt_variables: misspelt_variables(&inputs.environment) };
        if let Some(path) = &inputs.file {
            layers.read_file(path, problems);
        }
        let mut variables: Vec<_> =
            inputs.environment.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value))).collect();
        variables.sort_unstable();
        for (name, value) in variables {
            let path: Vec<String> = name.split("__").map(str::to_ascii_lowercase).collect();
            layers.add(format!("{ENVIRONMENT}{PREFIX}{name}"), &path, value);
        }
        for argument in &inputs.arguments {
            match argument.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    let path: Vec<String> = key.trim().split('.').map(|part| part.trim_matches('"').to_owned()).collect();
                    layers.add(format!("{ARGUMENT}{}", key.trim()), &path, value);
                }
                _ => problems.push(Problem {
                    code: Code::ConfigInvalid,
                    path: String::new(),
                    value: None,
                    origin: None,
                    message: "--set expects key=value, such as --set sink.kind=kafka".to_owned(),
                }),
            }
        }
        layers
    }

    fn read_file(&mut self, path: &Path, problems: &mut Vec<Problem>) {
        let unreadable = |line, message: String| Problem {
            code: Code::ConfigUnreadable,
            path: String::new(),
            value: None,
            origin: Some(Origin::File { path: path.to_owned(), line }),
            message,
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return problems.push(unreadable(None, format!("the configuration file cannot be read: {error}"))),
        };
        match ImDocument::parse(text.clone()) {
            Ok(document) => self.document = Some(document),
            Err(error) => {
                let line = error.span().map(|span| line_at(&text, span.start));
                let message = error.message().lines().collect::<Vec<_>>().join(", ");
                return problems.push(unreadable(line, format!("the configuration file is not TOML: {message}")));
            }
        }
        match Toml::string(&text).data() {
            Ok(mut profiles) => {
                let values = profiles.remove(&Profile::Default).unwrap_or_default();
                self.figment = std::mem::take(&mut self.figment).merge(Layer { name: FILE.to_owned(), values });
                self.file = Some((path.to_owned(), text));
            }
            Err(error) => problems.push(unreadable(None, format!("the configuration file is not TOML: {error}"))),
        }
    }

    fn add(&mut self, name: String, path: &[String], raw: &str) {
        // The keys of a properties setting contain dots.
        let is_properties =
            |path: &[String]| settings::written_by(&path.join(".")).is_some_and(|setting| matches!(setting.kind, Type::Properties));
        let mut parts = path.to_vec();
        let keyed = (1..parts.len()).find(|end| is_properties(&parts[..*end]));
        if let Some(end) = keyed {
            let key = parts.split_off(end).join(".");
            parts.push(key);
        }
        let plain = settings::written_by(&path.join("."))
            .is_some_and(|setting| setting.kind.is_plain() && !matches!(setting.kind, Type::Properties))
            || keyed.is_some();
        let mut value = if plain { Value::from(raw) } else { raw.parse().unwrap_or_else(|_| Value::from(raw)) };
        while 1 < parts.len() {
            let key = parts.pop().unwrap_or_default();
            value = Value::from(Dict::from([(key, value)]));
        }
        let Some(root) = parts.pop() else { return };
        self.figment = std::mem::take(&mut self.figment).merge(Layer { name, values: Dict::from([(root, value)]) });
    }

    /// All values; a later layer overrides an earlier one.
    pub(super) fn values(&self, problems: &mut Vec<Problem>) -> Dict {
        match self.figment.find_value("") {
            Ok(Value::Dict(_, values)) => values,
            Ok(_) => Dict::new(),
            Err(error) => {
                problems.push(Problem {
                    code: Code::ConfigUnreadable,
                    path: String::new(),
                    value: None,
                    origin: None,
                    message: error.to_string(),
                });
                Dict::new()
            }
        }
    }

    /// Where a value was written. `path` are the keys that lead to it, with list indices as digits.
    pub(super) fn origin(&self, tag: Tag, path: &[&str]) -> Option<Origin> {
        let name = &self.figment.get_metadata(tag)?.name;
        if let Some(variable) = name.strip_prefix(ENVIRONMENT) {
            return Some(Origin::Environment(variable.to_owned()));
        }
        if let Some(key) = name.strip_prefix(ARGUMENT) {
            return Some(Origin::Argument(key.to_owned()));
        }
        let (file, text) = self.file.as_ref()?;
        let line = self.document.as_ref().and_then(|document| offset_of(document.as_table(), path)).map(|start| line_at(text, start));
        Some(Origin::File { path: file.clone(), line })
    }

    /// The file, as the origin of missing settings.
    pub(super) fn file(&self) -> Option<Origin> {
        self.file.as_ref().map(|(path, _)| Origin::File { path: path.clone(), line: None })
    }
}

/// Variables that would be settings with two underscores. Other variables may begin with `FEEDLINE_` too: those of an orchestrator, and
/// those that hold a secret.
fn misspelt_variables(environment: &[(String, String)]) -> Vec<(String, String)> {
    let correct_name = |name: &str| {
        let rest = name.strip_prefix("FEEDLINE_").filter(|_| !name.starts_with(PREFIX))?.to_ascii_lowercase();
        let is_nearly = |setting: &&Setting| !setting.is_secret() && setting.path.replace('.', "_") == rest;
        let setting = settings::all().find(is_nearly)?;
        Some(format!("{PREFIX}{}", setting.path.replace('.', "__").to_ascii_uppercase()))
    };
    environment.iter().filter_map(|(name, _)| Some((name.clone(), correct_name(name)?))).collect()
}

/// The offset of the last key of `path` that the document contains.
fn offset_of(table: &dyn TableLike, path: &[&str]) -> Option<usize> {
    let (first, rest) = path.split_first()?;
    let (key, item) = table.get_key_value(first)?;
    let here = key.span().map(|span| span.start);
    if let Some(inner) = item.as_table_like() {
        return offset_of(inner, rest).or(here);
    }
    let Some((index, rest)) = rest.split_first() else { return here };
    let index: usize = index.parse().ok()?;
    if let Some(tables) = item.as_array_of_tables() {
        let inner = tables.get(index)?;
        return offset_of(inner, rest).or_else(|| inner.span().map(|span| span.start));
    }
    let inner = item.as_array()?.get(index)?;
    inner.as_inline_table().and_then(|inner| offset_of(inner, rest)).or_else(|| inner.span().map(|span| span.start)).or(here)
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
