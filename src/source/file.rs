//! A prefeed from a file of JSON lines, for every backend.
//!
//! Each line is one row: an object of columns by name. The position behind a line is its offset and a checksum of everything before it,
//! so that a file that changed between two runs is noticed.

mod dataset;
mod error;
mod line;
mod lines;
mod path;

pub use dataset::Dataset;
pub use error::Error;
pub use path::{check, expected_rows};
