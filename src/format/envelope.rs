//! The envelope: what is the same in every event of a pipeline.

use std::sync::Arc;

/// What every event of a pipeline says about its origin.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The pipeline's name: first part of each id.
    pub name: Arc<str>,
    /// The backend's name in `source.backend`.
    pub backend: &'static str,
    /// The database's name.
    pub database: Arc<str>,
    /// Whether each delete is followed by a tombstone.
    pub tombstones: bool,
}
