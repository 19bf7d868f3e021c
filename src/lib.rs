//! feedline carries a database's changefeed, prefeed first, to a broker.
//!
//! Modules in reading order: the vocabulary, the ports, the engine, the adapters, the assembly.
#![doc = include_str!("ARCHITECTURE.md")]

// Vocabulary.
pub mod batch;
pub mod budget;
pub mod change;
pub mod checkpoint;
pub mod fault;
pub mod feed;
pub mod foresight;
pub mod format;
pub mod metrics;
pub mod receipt;
pub mod route;
pub mod row;
pub mod secret;
pub mod transport;
// Ports, with the adapters below them.
pub mod dataset;
pub mod sink;
pub mod source;
pub mod succession;
// Engine.
pub mod pipeline;
pub mod restart;
// Assembly.
pub mod admin;
pub mod assemble;
pub mod command;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
