//! Settings of the output.

use std::path::PathBuf;
use std::sync::Arc;

/// Where lines are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The standard output of the process.
    Stdout,
    /// A file. Lines are appended; a missing file is created.
    File(PathBuf),
}

/// Settings of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where lines are written to.
    pub target: Target,
    /// The pipeline's name. An existing file must hold events of this pipeline only.
    pub pipeline: Arc<str>,
}
