//! The encoders of a pipeline's tables, each prepared once for a definition.

use crate::event::Relation;
use crate::format::encoder::{Encoder, Format};
use crate::format::error::Error;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The configured format, with the encoders that it has prepared. They outlive sessions and slices. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Encoders {
    format: Format,
    prepared: Arc<Mutex<HashMap<Relation, Encoder>>>,
}

impl Encoders {
    /// No encoder is prepared yet.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, prepared: Arc::default() }
    }

    /// The format.
    #[must_use]
    pub const fn format(&self) -> &Format {
        &self.format
    }

    /// Returns the encoder of a relation. A definition that was not seen before is prepared first. Cancel safe.
    ///
    /// # Errors
    /// Those of [`Format::prepare`].
    pub async fn of(&self, relation: &Relation) -> Result<Encoder, Error> {
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(relation).cloned();
        if let Some(encoder) = prepared {
            return Ok(encoder);
        }
        let encoder = self.format.prepare(relation).await?;
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(relation.clone(), encoder.clone());
        Ok(encoder)
    }
}
