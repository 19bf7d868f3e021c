//! The description of a setting: path, type, default, meaning.

use crate::config::{toml, units};
use std::time::Duration;

/// The type of a setting's value, with its bounds.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// Any string.
    Text,
    /// A pipeline's name: `[a-z][a-z0-9_]{0,39}`.
    Name,
    /// A path in the file system.
    Path,
    /// A template over `{name} {database} {schema} {table} {operation}`.
    Template,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// The smallest accepted value.
        least: u64,
        /// The largest accepted value.
        most: u64,
    },
    /// A number of bytes, with a unit.
    Size {
        /// The smallest accepted value.
        least: u64,
        /// The largest accepted value.
        most: u64,
    },
    /// Bytes per second, with a unit, or `unlimited`.
    Rate,
    /// A length of time, with a unit.
    Period {
        /// The shortest accepted period.
        least: Duration,
        /// The longest accepted period.
        most: Duration,
    },
    /// One of a closed set.
    Choice(fn() -> Vec<Choice>),
    /// A non-empty list of strings.
    List,
    /// A list of `insert`, `update`, `delete`, or their bit mask: insert 1, delete 2, update 4.
    Operations,
    /// A socket address to listen on, or `off`.
    Listen,
    /// A secret. It has three keys: `NAME_file`, `NAME_env` and the literal `NAME`.
    Secret,
    /// Keys and values that are passed on unchanged.
    Properties,
    /// `snapshot`, `none`, or a table with a query or a file.
    Prefeed,
}

/// One value of a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The value as written.
    pub value: &'static str,
    /// Why a known value is refused; `None` if it is accepted.
    pub refused: Option<&'static str>,
}

/// The value of a setting that is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// None: the setting is required; the string is an example.
    Required(&'static str),
    /// This value, as it would be written.
    Is(&'static str),
    /// A value that follows from other settings, described.
    Derived(&'static str),
    /// None: the setting is optional; the string is an example.
    Absent(&'static str),
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key path; those of a feed begin with `feeds.`.
    pub path: &'static str,
    /// The kinds of source or sink that have it; empty for all.
    pub kinds: &'static [&'static str],
    /// The type of its value.
    pub kind: Type,
    /// Its value if it is not given.
    pub default: Default,
    /// What it means.
    pub meaning: &'static str,
}

impl Setting {
    /// The last part of its path.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The path of its section; empty for the root.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Whether a source or sink of this kind has the setting.
    #[must_use]
    pub fn serves(&self, kind: Option<&str>) -> bool {
        self.kinds.is_empty() || kind.is_none_or(|kind| self.kinds.contains(&kind))
    }

    /// Writes a default or an example as TOML.
    #[must_use]
    pub(super) fn literal(&self, text: &str) -> String {
        let is_plain = matches!(self.kind, Type::Boolean | Type::Integer { .. } | Type::List | Type::Operations | Type::Properties);
        if is_plain { text.to_owned() } else { toml::string(text) }
    }

    /// Whether its value is never shown.
    pub(super) const fn is_secret(&self) -> bool {
        matches!(self.kind, Type::Secret)
    }

    /// What may follow its key: a secret has three keys.
    pub(super) const fn suffixes(&self) -> &'static [&'static str] {
        if self.is_secret() { &["_file", "_env", ""] } else { &[""] }
    }

    /// The keys that set it.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.suffixes().iter().map(|suffix| format!("{}{suffix}", self.key())).collect()
    }
}

/// A table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its path.
    pub path: &'static str,
    /// What its settings are about.
    pub meaning: &'static str,
    /// Whether it is a list of tables (`[[section]]`).
    pub repeated: bool,
    /// Whether leaving it out differs from leaving it empty.
    pub optional: bool,
}

impl Type {
    /// Describes the accepted values, for errors and documentation.
    #[must_use]
    pub fn expected(&self) -> String {
        match self {
            Self::Text => "a string".to_owned(),
            Self::Name => "a name: a lower-case letter, then up to 39 lower-case letters, digits or underscores".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Template => "a string that may hold {name}, {database}, {schema}, {table}, {operation}".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Integer { least, most } => format!("a whole number from {least} to {most}"),
            Self::Size { least, most } => {
                format!("a size with a unit, such as \"64MiB\", from {} to {}", units::size(*least), units::size(*most))
            }
            Self::Rate => "bytes per second with a unit, such as \"20MiB/s\", or \"unlimited\"".to_owned(),
            Self::Period { least, most } => {
                format!("a period with a unit, such as \"500ms\", from {} to {}", units::period(*least), units::period(*most))
            }
            Self::Choice(choices) => {
                let accepted: Vec<&str> = choices().iter().filter(|choice| choice.refused.is_none()).map(|choice| choice.value).collect();
                match accepted.as_slice() {
                    [only] => format!("\"{only}\""),
                    several => format!("one of \"{}\"", several.join("\", \"")),
                }
            }
            Self::List => "a list of strings, not empty".to_owned(),
            Self::Operations => "a list of \"insert\", \"update\", \"delete\", or their bit mask (insert 1, delete 2, update 4)".to_owned(),
            Self::Listen => "an address and a port, such as \"127.0.0.1:9464\", or \"off\"".to_owned(),
            Self::Secret => "a secret".to_owned(),
            Self::Prefeed => "\"snapshot\", \"none\", { query = \"SELECT ...\" } or { file = \"rows.jsonl\" }".to_owned(),
            Self::Properties => "a table of keys and values".to_owned(),
        }
    }

    /// Whether a value from the environment or the command line is used literally, and not parsed as TOML.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        !matches!(self, Self::Boolean | Self::Integer { .. } | Self::List | Self::Operations)
    }
}
