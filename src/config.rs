//! The configuration: TOML file, then environment, then command line, checked as a whole and turned into a [`Plan`].

mod build;
pub mod document;
mod layers;
pub mod plan;
pub mod problem;
mod read;
pub mod schema;
mod secrets;
pub mod settings;
pub mod units;
mod url;
mod walk;

pub use layers::{Inputs, PREFIX};
pub use plan::Plan;
pub use problem::{Origin, Problem, Problems};

/// A configuration in which nothing is wrong.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it comes to.
    pub plan: Plan,
    /// What is doubtful.
    pub warnings: Vec<Problem>,
    /// Every setting that holds, with where it comes from; secrets are `***`.
    pub effective: Vec<Effective>,
}

/// One setting that holds.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Key path; a feed's begins with `feeds.` and its number.
    pub path: String,
    /// Its value in TOML.
    pub value: String,
    /// Where it was written.
    pub origin: Origin,
}

/// Reads and checks a configuration. Touches nothing but the files that it names.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(inputs: &Inputs) -> Result<Loaded, Problems> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let layers = layers::Layers::merge(inputs, &mut problems);
    if !problems.is_empty() {
        // Without the file everything would be missing: that says nothing more.
        return Err(Problems(problems));
    }
    let walked = walk::walk(&layers, &mut problems, &mut warnings);
    let lookup = |name: &str| inputs.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let plan = build::build(&walked, &lookup, &mut problems, &mut warnings);
    match plan {
        Some(plan) if problems.is_empty() => Ok(Loaded { effective: document::effective(&walked, &plan), plan, warnings }),
        _ => Err(Problems(problems)),
    }
}
