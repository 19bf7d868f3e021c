//! What is known of a running pipeline: one status, from which health, lag and the metrics of states are read; and what is counted.

mod changes;
mod feed;
mod health;
mod in_flight;
mod log_head;
pub mod metrics;
mod pipeline_status;
mod publisher;
mod rate;
mod side;
mod storm;

pub(crate) use changes::{HandedOver, PreviousRun};
pub use feed::{FeedPhase, FeedStatus};
pub use in_flight::InFlight;
pub use log_head::LogHead;
pub use pipeline_status::Status;
pub use publisher::Publisher;
pub use rate::{ConfirmedRate, PerSecond};
pub use side::{LastError, Side, SideStatus, WaitFor, Waiting};
pub use storm::Storm;
