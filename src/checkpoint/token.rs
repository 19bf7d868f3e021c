//! Opaque strings that a source writes into a checkpoint: resume tokens, scan positions, layouts.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A position in a source's log; everything before it has been read. Only the source that made the string can interpret it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResumeToken(pub Arc<str>);

/// How far a table has been read: the last key and its fingerprint. Only the prefeed that made the string can interpret it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanPosition(pub Arc<str>);

/// What a source knows of a table from outside the log, such as columns and partitions. A difference shows that rows may have
/// changed without events in the log. Only the source that made the string can interpret it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout(pub Arc<str>);
