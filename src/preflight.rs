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

/// Warns of a server whose clock is this many seconds ahead: ages of events are computed from its clock and from ours.
#[must_use]
pub fn clock_warning(offset: f64) -> Option<Warning> {
    const OFFSET_SECONDS_MAX: f64 = 2.0;
    (OFFSET_SECONDS_MAX < offset.abs()).then(|| Warning {
        code: Code::ClockOffset,
        message: format!(
            "the server's clock is {:.1} s {} this machine's: lag and ages of events are wrong by as much; synchronize both (NTP)",
            offset.abs(),
            if offset < 0.0 { "behind" } else { "ahead of" }
        ),
    })
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

#[cfg(test)]
mod tests {
    use super::clock_warning;
    use crate::fault::Code;

    #[test]
    fn a_clock_offset_counts_in_both_directions() {
        assert!(clock_warning(1.9).is_none() && clock_warning(-1.9).is_none());
        for (offset, words) in [(3.0, "3.0 s ahead of"), (-90.0, "90.0 s behind")] {
            let warning = clock_warning(offset).unwrap();
            assert_eq!(warning.code, Code::ClockOffset);
            assert!(warning.message.contains(words), "{}", warning.message);
        }
    }
}
