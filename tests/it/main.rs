//! What a user or a port promises, against real servers where there is one.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test's unwrap is an assertion, and its modules are one crate")]

mod admin;
mod amqp;
mod architecture;
mod bad_input;
mod checkpoint_file;
mod children;
mod cli;
mod config;
mod consumers;
mod contract_checkpoint;
mod contract_sink;
mod contract_source;
mod crash;
mod dataset;
mod deployment;
mod documents;
mod exercise;
mod format;
mod gives_way;
mod kafka;
mod mongodb;
mod mysql;
mod new_tables;
mod outage;
mod pipeline;
mod postgres;
mod rethinkdb;
mod servers;
mod session;
mod sqlite;
mod stdout;
mod tail;
mod tidy;
