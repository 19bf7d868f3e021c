//! Metrics of a pipeline, for Prometheus: name, help and labels of each are defined once.
//!
//! Labels are closed sets, and every combination exists from the start with 0, so that a first increment is seen.
//! Counters are incremented per batch, never per record.

mod builder;
pub mod lag;
mod lag_gauges;
mod optional_gauge;
mod pipeline;
mod process;
pub mod render;
mod restart;
mod sink;
mod source;
mod state;

pub use optional_gauge::OptionalGauge;
pub use pipeline::Metrics;
pub use process::{BUILD, Build, OF_PROCESS, log_lines_dropped};
pub use restart::RestartReason;
pub use sink::{DeadLetter, SinkMetrics};
pub use source::{GapReason, SourceMetrics};
pub use state::State;
