//! What a start would do, and what somebody may regret; found out by looking alone.

use crate::fault::Code;

/// What a start would do at one end, and what is doubtful there.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What it would do, each for a person.
    pub actions: Vec<String>,
    /// What would stop the pipeline sooner or later.
    pub refusals: Vec<Warning>,
    /// What may be regretted.
    pub warnings: Vec<Warning>,
}

/// Something that somebody should look at.
#[derive(Clone, Debug)]
pub struct Warning {
    /// Its number.
    pub code: Code,
    /// What it is, and what to do about it.
    pub message: String,
}

/// How many names a line holds.
const NAMED: usize = 5;

/// The first names, and how many there are besides: `a, b, c, d, e, 7 more`.
pub fn named(names: impl IntoIterator<Item = String>) -> String {
    let mut names: Vec<String> = names.into_iter().collect();
    if NAMED < names.len() {
        let more = names.split_off(NAMED).len();
        names.push(format!("{more} more"));
    }
    names.join(", ")
}
