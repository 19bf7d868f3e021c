//! Reads secrets from files and environment variables.

use crate::net::secret::Secret;

/// Reads a secret from a file.
pub(super) fn from_file(path: &str) -> Result<Secret, String> {
    let secret = Secret::of_file(path.as_ref())
        .map_err(|error| format!("the secret's file cannot be read: {error}; correct the path, or mount the secret there"))?;
    secret.ok_or_else(|| "the secret's file is empty: write the secret into it".to_owned())
}

/// Reads a secret from an environment variable. A name that does not look like a variable may be the secret itself: the error does not show it.
pub(super) fn from_variable(name: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Secret, String> {
    let shown =
        if is_variable(name) { format!("the environment variable {name}") } else { "the environment variable of this name".to_owned() };
    match lookup(name).map(Secret::of_variable) {
        Some(Some(secret)) => Ok(secret),
        Some(None) => Err(format!("{shown} is empty: give it the secret")),
        None => Err(format!("{shown} is not set: pass it to the process")),
    }
}

/// Whether `text` looks like the name of an environment variable: capitals, digits, underscores.
pub(super) fn is_variable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}
