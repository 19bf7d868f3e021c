//! Assembles a pipeline from its plan. Only this module knows which adapters exist.

mod connectors;
mod consume;
mod new_tables;
mod run;
pub mod store;

pub use connectors::{Visit, visit};
pub use consume::{ConsumeError, Subscription, consume};
pub use run::{Running, run};
