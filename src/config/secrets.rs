//! Where secrets come from.

use crate::secret::Secret;

/// The content of a file.
pub(super) fn from_file(path: &str) -> Result<Secret, String> {
    let secret = Secret::of_file(path.as_ref())
        .map_err(|error| format!("the secret's file cannot be read: {error}; correct the path, or mount the secret there"))?;
    secret.ok_or_else(|| "the secret's file is empty: write the secret into it".to_owned())
}

/// The value of an environment variable.
pub(super) fn from_variable(name: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Secret, String> {
    match lookup(name) {
        Some(text) if !text.is_empty() => Ok(Secret::new(text)),
        Some(_) => Err(format!("the environment variable {name} is empty: give it the secret")),
        None => Err(format!("the environment variable {name} is not set: pass it on to the process")),
    }
}
