//! Loads a configuration: merges the layers, checks the values, builds the plan.

use crate::config::build::{self, Found};
use crate::config::effective::{self, EffectiveSetting};
use crate::config::layers::{Inputs, Layers};
use crate::config::plan::Plan;
use crate::config::problem::{Problem, Problems};
use crate::config::{secrets, validate};

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The typed configuration, with all defaults filled in.
    pub plan: Plan,
    /// Settings that are valid but risky.
    pub warnings: Vec<Problem>,
    /// Every setting in force, with its origin. Secrets are `***`.
    pub effective: Vec<EffectiveSetting>,
}

/// Reads and checks a configuration. Opens only the files that it names.
///
/// # Errors
/// All problems at once.
pub fn load(inputs: &Inputs) -> Result<Loaded, Problems> {
    let mut found = Found::default();
    let layers = Layers::merge(inputs, &mut found.problems);
    if !found.problems.is_empty() {
        // Without the file, every required setting would be reported as missing.
        return Err(Problems(found.problems));
    }
    let mut validated = validate::validate(&layers, &mut found.problems, &mut found.warnings);
    let lookup = |name: &str| inputs.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    secrets::read(&mut validated.root, &lookup, &mut found.problems, &mut found.warnings);
    match build::build(&validated, &mut found) {
        Some(plan) if found.problems.is_empty() => {
            Ok(Loaded { effective: effective::effective(&validated, &plan, &found.derived), plan, warnings: found.warnings })
        }
        _ => Err(Problems(found.problems)),
    }
}
