//! Preflight: what a start would do, and what it warns of. Read-only.

use crate::fault::{Classify, Code, Fault, with_causes};

/// What a preflight of the source, the sink or the checkpoint has found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What a start would do, described for a person.
    pub actions: Vec<String>,
    /// Problems that would stop the pipeline, at its start or later, until a person acts.
    pub refusals: Vec<Warning>,
    /// Problems that do not stop the pipeline.
    pub warnings: Vec<Warning>,
}

/// A problem that a person should know of.
#[derive(Clone, Debug)]
pub struct Warning {
    /// The code in the documentation.
    pub code: Code,
    /// What the problem is, and what to do about it.
    pub message: String,
}

impl Findings {
    /// Adds these errors as refusals.
    ///
    /// # Errors
    /// The first of them if all are transient: they say nothing about a later start.
    pub fn refuse<E: Classify>(&mut self, mut errors: Vec<E>) -> Result<(), E> {
        errors.sort_by_key(|error| error.fault() == Fault::Transient);
        if errors.first().is_some_and(|error| error.fault() == Fault::Transient) {
            return Err(errors.swap_remove(0));
        }
        self.refusals.extend(errors.iter().map(Warning::of));
        Ok(())
    }
}

impl Warning {
    /// The error in words for a person, its causes included.
    pub fn of(error: &impl Classify) -> Self {
        Self { code: error.code(), message: with_causes(error) }
    }
}

/// The largest number of names in a list.
const NAMES_MAX: usize = 5;

/// Lists the first names, and how many more there are: `a, b, c, d, e, 7 more`.
pub fn named(names: impl IntoIterator<Item = String>) -> String {
    let mut names: Vec<String> = names.into_iter().collect();
    if NAMES_MAX < names.len() {
        let more = names.split_off(NAMES_MAX).len();
        names.push(format!("{more} more"));
    }
    names.join(", ")
}
