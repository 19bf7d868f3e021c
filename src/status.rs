//! What is known of the pipeline while it runs.

mod log_head;
pub mod metrics;

pub use log_head::LogHead;
