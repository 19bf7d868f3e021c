//! Secrets: held, never shown.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A password or a private key's. Its `Debug` and its absence of `Display` keep it out of logs and errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    /// Where it is kept, if it may change there.
    file: Option<PathBuf>,
}

impl Secret {
    /// Takes it in.
    #[must_use]
    pub const fn new(value: String) -> Self {
        Self { value, file: None }
    }

    /// What a command's output was put into a variable: without the newline at its end; `None` where that is nothing.
    #[must_use]
    pub fn of_variable(value: String) -> Option<Self> {
        let value = without_newline(value);
        (!value.is_empty()).then_some(Self { value, file: None })
    }

    /// The content of a file, without the newline at its end that an editor leaves there; `None` where that is nothing.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn of_file(path: &Path) -> io::Result<Option<Self>> {
        let value = read(path)?;
        Ok(if value.is_empty() { None } else { Some(Self { value, file: Some(path.to_owned()) }) })
    }

    /// The secret itself, for the wire and nothing else: as it is in its file now, since secrets are renewed under a process that
    /// runs; as it was, where the file cannot be read.
    #[must_use]
    pub fn reveal(&self) -> String {
        let now = self.file.as_deref().and_then(|file| read(file).ok()).filter(|value| !value.is_empty());
        now.unwrap_or_else(|| self.value.clone())
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
