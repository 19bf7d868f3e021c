//! Assembles a pipeline from its plan. Only this module knows which adapters exist.

mod connectors;
mod consume;
#[cfg(any(feature = "kafka", feature = "amqp"))]
mod options;
mod run;
pub mod store;

pub use connectors::{Visit, visit};
pub use consume::{ConsumeError, Subscription, consume};
pub use run::{Running, run, settings};
