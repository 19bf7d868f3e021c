//! Secrets: passwords that are never printed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A password. It has no `Display`, and its `Debug` prints `***`, so that it cannot get into logs and errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    /// The file that contains it. The secret may change there.
    file: Option<PathBuf>,
}

impl Secret {
    /// A secret with this value.
    #[must_use]
    pub const fn new(value: String) -> Self {
        Self { value, file: None }
    }

    /// The value of an environment variable, without a newline at its end. `None` if it is empty.
    #[must_use]
    pub fn of_variable(value: String) -> Option<Self> {
        let value = without_newline(value);
        (!value.is_empty()).then_some(Self { value, file: None })
    }

    /// The content of a file, without a newline at its end. `None` if it is empty.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of_file(path: &Path) -> io::Result<Option<Self>> {
        let value = read(path)?;
        Ok(if value.is_empty() { None } else { Some(Self { value, file: Some(path.to_owned()) }) })
    }

    /// The secret itself, only to be sent to a server. A file is read again, because secrets are renewed while the process runs. If
    /// it cannot be read, the previous value is used.
    #[must_use]
    pub fn reveal(&self) -> String {
        let current = self.file.as_deref().and_then(|file| read(file).ok()).filter(|value| !value.is_empty());
        current.unwrap_or_else(|| self.value.clone())
    }
}

fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path).map(without_newline)
}

fn without_newline(mut text: String) -> String {
    for end in ['\n', '\r'] {
        if !text.ends_with(end) {
            break;
        }
        text.pop();
    }
    text
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}
