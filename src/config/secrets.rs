//! Reads secrets from files and environment variables.

use crate::config::problem::{Origin, Problem};
use crate::config::redact::is_variable;
use crate::config::schema::Setting;
use crate::config::settings;
use crate::config::validate::Values;
use crate::config::value::Typed;
use crate::fault::Code;
use crate::net::secret::Secret;

/// Reads every secret that is set by a file or by an environment variable, and warns of those that are written in the configuration.
pub(super) fn read(values: &mut Values, lookup: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    for setting in settings::all().filter(|setting| setting.is_secret()) {
        let given = given_keys(values, setting);
        let [suffix] = given.as_slice() else {
            for other in given.iter().skip(1) {
                let message = format!("sets the same secret as {}{}: keep one", setting.path, given[0]);
                problems.push(values.problem(Code::ConfigContradictory, setting, other, message));
            }
            continue;
        };
        let Some(found) = values.given(setting, suffix) else { continue };
        let read = match &found.typed {
            Typed::Text(path) if *suffix == "_file" => from_file(path),
            Typed::Text(name) => from_variable(name, lookup),
            Typed::Secret(secret) => {
                let secret = secret.clone();
                if !matches!(found.origin, Some(Origin::Environment(_))) {
                    let message = format!("the secret is written in the configuration: use {0}_file or {0}_env", setting.path);
                    warnings.push(values.problem(Code::SecretLiteral, setting, suffix, message));
                }
                Ok(secret)
            }
            _ => continue,
        };
        match read {
            Ok(secret) => {
                values.secrets.insert(setting.path, secret);
            }
            Err(message) => problems.push(values.problem(Code::SecretUnreadable, setting, suffix, message)),
        }
    }
}

/// The keys that set a secret, by their suffixes.
pub(super) fn given_keys(values: &Values, setting: &Setting) -> Vec<&'static str> {
    ["", "_file", "_env"].into_iter().filter(|suffix| values.given(setting, suffix).is_some()).collect()
}

fn from_file(path: &str) -> Result<Secret, String> {
    let secret = Secret::of_file(path.as_ref())
        .map_err(|error| format!("the secret's file cannot be read: {error}; correct the path, or mount the secret there"))?;
    secret.ok_or_else(|| "the secret's file is empty: write the secret into it".to_owned())
}

/// A name that does not look like a variable may be the secret itself: the error does not show it.
fn from_variable(name: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Secret, String> {
    let shown =
        if is_variable(name) { format!("the environment variable {name}") } else { "the environment variable of this name".to_owned() };
    match lookup(name).map(Secret::of_variable) {
        Some(Some(secret)) => Ok(secret),
        Some(None) => Err(format!("{shown} is empty: give it the secret")),
        None => Err(format!("{shown} is not set: pass it to the process")),
    }
}
