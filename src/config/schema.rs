//! What a setting is: its place, its type, its default and its meaning.

use std::time::Duration;

/// What a setting's value looks like, and between which bounds it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Any text.
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
        /// The smallest that is accepted.
        least: u64,
        /// The largest that is accepted.
        most: u64,
    },
    /// A number of bytes with its unit.
    Size {
        /// The smallest that is accepted.
        least: u64,
        /// The largest that is accepted.
        most: u64,
    },
    /// A number of bytes with its unit a second, or `unlimited`.
    Rate,
    /// A length of time with its unit.
    Period {
        /// The shortest that is accepted.
        least: Duration,
        /// The longest that is accepted.
        most: Duration,
    },
    /// One of a closed set.
    Choice(&'static [Choice]),
    /// A list of texts, not empty.
    List,
    /// `insert`, `update`, `delete` in a list, or their mask: insert 1, delete 2, update 4.
    Operations,
    /// An address to listen on, or `off`.
    Listen,
    /// A secret, which has three settings: `NAME_file`, `NAME_env` and the literal `NAME`.
    Secret,
    /// Keys and values that are passed on.
    Properties,
    /// `snapshot`, `none`, or a table that names a file.
    Prefeed,
}

/// One value of a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What is written.
    pub value: &'static str,
    /// Why it is refused although its name is known; `None` where it is accepted.
    pub refused: Option<&'static str>,
}

/// A value that is accepted.
pub(super) const fn yes(value: &'static str) -> Choice {
    Choice { value, refused: None }
}

/// A value that is known and refused.
pub(super) const fn no(value: &'static str, reason: &'static str) -> Choice {
    Choice { value, refused: Some(reason) }
}

/// What holds where a setting is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// It must be given; the text is an example.
    Required(&'static str),
    /// This value, as a person would write it.
    Is(&'static str),
    /// A value made from other settings, described.
    Derived(&'static str),
    /// Nothing; the text is an example.
    Absent(&'static str),
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key path; settings of a feed begin with `feeds.`.
    pub path: &'static str,
    /// Which kinds of its section it belongs to; empty for all.
    pub kinds: &'static [&'static str],
    /// What its value looks like.
    pub kind: Type,
    /// What holds where it is not given.
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

    /// Whether it belongs to its section when that is of `kind`.
    #[must_use]
    pub fn serves(&self, kind: Option<&str>) -> bool {
        self.kinds.is_empty() || kind.is_none_or(|kind| self.kinds.contains(&kind))
    }

    /// The keys under which it is written: a secret has three.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        match self.kind {
            Type::Secret => ["_file", "_env", ""].iter().map(|suffix| format!("{}{suffix}", self.key())).collect(),
            _ => vec![self.key().to_owned()],
        }
    }
}

/// A table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its path.
    pub path: &'static str,
    /// What its settings are about.
    pub meaning: &'static str,
    /// Whether it is a list of tables.
    pub repeated: bool,
    /// Whether it may be left out as a whole, which then means something.
    pub optional: bool,
}

impl Type {
    /// What is expected, for errors and documentation.
    #[must_use]
    pub fn expected(&self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Name => "a name: a lower-case letter, then up to 39 lower-case letters, digits or underscores".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Template => "a text that may hold {name}, {database}, {schema}, {table}, {operation}".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Integer { least, most } => format!("a whole number from {least} to {most}"),
            Self::Size { least, most } => {
                format!("a size with its unit, such as \"64MiB\", from {} to {}", super::units::size(*least), super::units::size(*most))
            }
            Self::Rate => "bytes a second with their unit, such as \"20MiB/s\", or \"unlimited\"".to_owned(),
            Self::Period { least, most } => {
                format!(
                    "a period with its unit, such as \"500ms\", from {} to {}",
                    super::units::period(*least),
                    super::units::period(*most)
                )
            }
            Self::Choice(choices) => {
                let accepted: Vec<&str> = choices.iter().filter(|choice| choice.refused.is_none()).map(|choice| choice.value).collect();
                match accepted.as_slice() {
                    [only] => format!("\"{only}\""),
                    several => format!("one of \"{}\"", several.join("\", \"")),
                }
            }
            Self::List => "a list of texts, not empty".to_owned(),
            Self::Operations => "a list of \"insert\", \"update\", \"delete\", or their mask (insert 1, delete 2, update 4)".to_owned(),
            Self::Listen => "an address and a port, such as \"127.0.0.1:9464\", or \"off\"".to_owned(),
            Self::Secret => "a secret".to_owned(),
            Self::Prefeed => "\"snapshot\", \"none\", { query = \"SELECT ...\" } or { file = \"rows.jsonl\" }".to_owned(),
            Self::Properties => "a table of keys and values".to_owned(),
        }
    }

    /// Whether a value from the environment or the command line is taken as it stands, and not read as TOML.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        !matches!(self, Self::Boolean | Self::Integer { .. } | Self::List | Self::Operations)
    }
}
