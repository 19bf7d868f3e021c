//! feedline carries a database's changefeed, existing rows first, to a message broker.
//!
//! The modules in reading order: vocabulary, ports with adapters, engine, assembly.
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
// Ports, with their adapters.
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
