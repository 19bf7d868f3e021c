//! What a user or a port promises, against real servers where there is one.

mod checkpoint_file;
mod cli;
mod config;
mod contract_sink;
mod contract_source;
mod crash;
mod format_json;
mod kafka;
mod pipeline;
mod postgres;
mod servers;
mod sqlite;
mod stdout;
mod tidy;
