//! The envelope: what is the same in all events of a pipeline.

use std::sync::Arc;

/// The origin of a pipeline's events, and settings of their format.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The pipeline's name: the first part of each id.
    pub name: Arc<str>,
    /// The backend's name, for `source.backend`.
    pub backend: &'static str,
    /// The database's name.
    pub database: Arc<str>,
    /// Whether a tombstone follows each delete.
    pub tombstones: bool,
}
