//! Checkpoints: where to resume, and how they are stored.

pub mod fencing;
pub mod file;
mod fold;
mod former;
mod progress;
mod store;
mod token;

pub use fold::{Checkpoint, Identity, LastExit};
pub use former::FormerFeeds;
pub use progress::{FeedName, FeedState, Mark, Progress};
pub use store::CheckpointStore;
pub use token::{Layout, ResumeToken, ScanPosition};
