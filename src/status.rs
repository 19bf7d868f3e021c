//! What is known of a running pipeline: its health, its lag, its metrics.

mod health;
mod log_head;
pub mod metrics;

pub(crate) use health::PreviousRun;
pub use health::{Health, Side};
pub use log_head::LogHead;
