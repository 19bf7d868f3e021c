//! Keeps the checkpoint in Kafka: it is the last record of a compacted topic with one partition.
//!
//! Each checkpoint is written in a transaction of its own, always under the same transactional id. So the broker fences the
//! predecessor as soon as its successor opens the topic (KIP-98, "Transactional Guarantees"). The topic is read with
//! `read_committed` up to the end of the partition; a broker that does not answer is an error, never an empty topic.

mod error;
mod reader;
mod setup;
mod stop;
mod store;
mod topic;
mod writer;

pub use error::CheckpointError;
pub use store::Store;
