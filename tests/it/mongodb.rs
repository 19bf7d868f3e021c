//! The MongoDB source, against `SecantusDB` as a process of its own, or a real replica set (`FEEDLINE_MONGODB_URL`). What `SecantusDB` does not show
//! is in `docs/mongodb.md`.

mod contract;
mod events;
mod gap;
mod login;
mod preflight;
mod scripted;
mod snapshots;
mod types;
mod world;
