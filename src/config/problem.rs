//! Problems of a configuration: each names the setting, its value, where it was written, and what is expected.

use crate::fault::{Classify, Code, Fault};
use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, if it is known.
        line: Option<usize>,
    },
    /// An environment variable, by name.
    Environment(String),
    /// A `--set` on the command line, by key.
    Argument(String),
    /// The default.
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

/// An error or a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its code in `docs/errors.md`.
    pub code: Code,
    /// Key path of the setting; empty if it concerns the whole file.
    pub path: String,
    /// The value as it was written. Secrets are `***`.
    pub value: Option<String>,
    /// Where the value comes from.
    pub origin: Option<Origin>,
    /// What is wrong, and what is expected.
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

/// All errors of a configuration, in the order in which they were found; never empty.
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
