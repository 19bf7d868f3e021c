//! The configuration: a TOML file, overridden by environment variables, overridden by `--set` arguments.
//!
//! [`load()`] merges these layers, checks every value and returns a typed [`Plan`]. It reports all problems at once.

mod build;
pub mod document;
pub mod effective;
mod key;
mod kind;
mod layers;
mod load;
pub mod plan;
pub mod problem;
mod redact;
pub mod schema;
mod secrets;
pub mod settings;
mod toml;
pub mod units;
mod validate;
mod value;

pub use effective::EffectiveSetting;
pub use layers::{Inputs, PREFIX};
pub use load::{Loaded, load};
pub use plan::Plan;
pub use problem::{Origin, Problem, Problems};
