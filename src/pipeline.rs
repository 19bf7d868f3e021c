//! The engine: runs a source and a sink against each other, and keeps the checkpoint.
//!
//! The source side reads the source into batches. The sink side gives them to the sink, and saves the progress of what is confirmed. One
//! bounded channel carries batches from the one to the other. Three things come back: memory (bytes), acks, and the durable position.
//! Commands come in by one channel.

pub mod agreement;
mod batch_sender;
mod command;
mod control;
mod delivery;
mod failure;
mod gap;
mod gate;
mod held_snapshot;
mod judge;
mod new_tables;
mod outage;
mod parts;
mod prefeed;
mod preflight;
pub mod restart;
mod run;
mod settings;
mod shown_wait;
mod sink_side;
mod source_side;
mod start;
mod stream;
mod watch_head;

pub use command::{Command, Handle, Refused, SetLogLevel};
pub use delivery::{Ledger, Lost};
pub use failure::{Ending, Failure};
pub use gap::OnGap;
pub use preflight::{Known, Observer, Part, Preflight, note, preflight};
pub use run::Pipeline;
pub use settings::Settings;
