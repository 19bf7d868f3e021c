//! Feeds: the configured tables, resolved against the source's catalogue.

mod catalogue;
mod feeds;
pub mod pattern;
pub mod resolve;
pub mod route;
mod selection;

pub use catalogue::{Catalogue, Table, TableName, feed_name};
pub use feeds::{Feed, Feeds, PrefeedKind};
pub use selection::Selection;
