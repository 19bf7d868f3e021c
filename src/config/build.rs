//! Builds the [`Plan`](crate::config::Plan) from the validated values, and checks settings that depend on each other.

#[cfg(any(feature = "kafka", feature = "tls"))]
mod address;
#[cfg(feature = "amqp")]
mod amqp;
#[cfg(any(feature = "kafka", feature = "amqp"))]
mod broker;
mod feeds;
mod files;
#[cfg(feature = "kafka")]
mod kafka;
mod log;
#[cfg(feature = "mongodb")]
mod mongodb;
#[cfg(feature = "mysql")]
mod mysql;
mod pipeline;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "rethinkdb")]
mod rethinkdb;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb", feature = "rethinkdb"))]
mod server;
mod setting_reader;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod url;

pub(super) use pipeline::build;
pub(super) use setting_reader::Found;
