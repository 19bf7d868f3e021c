//! feedline carries a database's changefeed, prefeed first, to a broker.
//!
//! Modules in reading order: the vocabulary, the ports, the engine, the assembly.
#![doc = include_str!("ARCHITECTURE.md")]

// Vocabulary.
pub mod batch;
pub mod checkpoint;
pub mod event;
pub mod fault;
pub mod feed;
pub mod format;
pub mod net;
pub mod preflight;
pub mod status;
// Ports, with the adapters below them.
pub mod sink;
pub mod source;
// Engine.
pub mod pipeline;
// Assembly.
pub mod admin;
pub mod assemble;
pub mod command;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
