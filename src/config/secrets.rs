//! Where secrets come from.

use crate::net::secret::Secret;

/// The content of a file.
pub(super) fn from_file(path: &str) -> Result<Secret, String> {
    let secret = Secret::of_file(path.as_ref())
        .map_err(|error| format!("the secret's file cannot be read: {error}; correct the path, or mount the secret there"))?;
    secret.ok_or_else(|| "the secret's file is empty: write the secret into it".to_owned())
}

/// The value of an environment variable. A name that is none may be the secret itself: it is not repeated.
pub(super) fn from_variable(name: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Secret, String> {
    let shown =
        if is_variable(name) { format!("the environment variable {name}") } else { "the environment variable of this name".to_owned() };
    match lookup(name).map(Secret::of_variable) {
        Some(Some(secret)) => Ok(secret),
        Some(None) => Err(format!("{shown} is empty: give it the secret")),
        None => Err(format!("{shown} is not set: pass it on to the process")),
    }
}

/// Whether a text is a variable's name as people write them.
pub(super) fn is_variable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}
