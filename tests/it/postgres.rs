//! The PostgreSQL source against a real server.

mod committing;
mod contract;
mod encodings;
mod events;
mod foresight;
mod gap;
mod growing;
mod harsh;
mod keys;
mod old_rows;
mod ordering;
mod publications;
mod query;
pub(crate) mod reading;
mod refusals;
mod remedies;
mod resuming;
mod secure;
mod sessions;
mod standby;
mod starting;
mod survey;
mod terminated;
mod types;
mod values;
mod waiting;
mod world;
