//! Which database, and for which pipeline.

use std::path::PathBuf;
use std::sync::Arc;

/// Which database, and for which pipeline.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file. It must exist and be in WAL mode.
    pub path: PathBuf,
    /// The pipeline's name: part of the name of every table and trigger that is made in the database.
    pub pipeline: Arc<str>,
}
