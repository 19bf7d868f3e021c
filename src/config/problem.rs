//! What is wrong with a configuration: every finding at once, each with its place, its value and what was expected.

use crate::fault::{Classify, Code, Fault};
use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, where it is known; the first is 1.
        line: Option<usize>,
    },
    /// In an environment variable.
    Environment(String),
    /// In a `--set` on the command line; its key.
    Argument(String),
    /// Nowhere: the default holds.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(formatter, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(formatter, "{}", path.display()),
            Self::Environment(name) => write!(formatter, "environment variable {name}"),
            Self::Argument(key) => write!(formatter, "--set {key}"),
            Self::Default => formatter.write_str("default"),
        }
    }
}

/// One thing that is wrong, or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its number in `docs/errors.md`.
    pub code: Code,
    /// Key path of the setting; empty where the file as a whole is meant.
    pub path: String,
    /// The value as it was written; a secret is `***`.
    pub value: Option<String>,
    /// Where it was written.
    pub origin: Option<Origin>,
    /// What is wrong, and what is expected instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ", self.code)?;
        match (self.path.as_str(), &self.value) {
            ("", _) => {}
            (path, Some(value)) => write!(formatter, "{path} = {value}: ")?,
            (path, None) => write!(formatter, "{path}: ")?,
        }
        formatter.write_str(&self.message)?;
        match &self.origin {
            Some(origin @ (Origin::File { .. } | Origin::Environment(_) | Origin::Argument(_))) => write!(formatter, " ({origin})"),
            Some(Origin::Default) | None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration, in the order in which it was found; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index != 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{problem}")?;
        }
        Ok(())
    }
}

impl Classify for Problems {
    fn fault(&self) -> Fault {
        Fault::Fatal
    }

    fn code(&self) -> Code {
        self.0.first().map_or(Code::ConfigInvalid, |problem| problem.code)
    }
}
