//! The command line. A command's result goes to standard output, everything else to standard error.
//!
//! Each command has a file of its name. `cli.rs` parses the arguments and calls it.

mod check;
mod checkpoint;
mod cli;
mod config;
mod configured;
mod dead_letters;
#[cfg(feature = "demo")]
mod demo;
mod detach;
mod metrics;
mod process;
mod run;
mod tail;

pub use cli::main;
