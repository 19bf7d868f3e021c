//! Feeds: the configured tables, resolved against the source's catalogue.

mod catalogue;
mod feeds;
pub mod pattern;
pub mod resolve;
pub mod route;

pub use catalogue::{Catalogue, Table, feed_name};
pub use feeds::{Feed, Feeds, PrefeedKind};
