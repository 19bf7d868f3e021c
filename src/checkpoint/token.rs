//! Opaque strings that a source writes into a checkpoint: resume tokens, scan positions, layouts.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A place in a source's log: all before it has been read. Text, opaque to all but the source that made it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResumeToken(pub Arc<str>);

/// How far a table has been read, opaque to all but the prefeed that made it: the last key and its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanPosition(pub Arc<str>);

/// What a source knows of a table beside its log, such as its columns and partitions: it tells whether rows changed without a
/// word there. Text, opaque to all but the source that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout(pub Arc<str>);
