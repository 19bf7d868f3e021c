//! Loads a configuration: merges the layers, checks the values, builds the plan.

use crate::config::build;
use crate::config::effective::{self, EffectiveSetting};
use crate::config::layers::{Inputs, Layers};
use crate::config::plan::Plan;
use crate::config::problem::{Problem, Problems};
use crate::config::validate;

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
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let layers = Layers::merge(inputs, &mut problems);
    if !problems.is_empty() {
        // Without the file, every required setting would be reported as missing.
        return Err(Problems(problems));
    }
    let validated = validate::validate(&layers, &mut problems, &mut warnings);
    let lookup = |name: &str| inputs.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let plan = build::build(&validated, &lookup, &mut problems, &mut warnings);
    match plan {
        Some(plan) if problems.is_empty() => Ok(Loaded { effective: effective::effective(&validated, &plan), plan, warnings }),
        _ => Err(Problems(problems)),
    }
}
