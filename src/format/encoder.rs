//! The configured format, and its encoder for each relation.

use crate::batch::BatchWriter;
use crate::event::{Event, Relation, Row, RowError};
use crate::format::envelope::Envelope;
use crate::format::json;
use std::sync::Arc;

/// The format of a pipeline's events. Cheap to clone; each source has one.
#[derive(Clone, Debug)]
pub enum Format {
    /// feedline's own JSON, version 1.
    Json(Arc<Envelope>),
}

impl Format {
    /// Prepares the encoder of a relation before its first row. A format may wait here (for a schema registry), but never for a
    /// row.
    ///
    /// # Errors
    /// The present formats return none.
    #[expect(clippy::unused_async, reason = "a schema registry will be asked here")]
    pub async fn prepare(&self, relation: &Relation) -> Result<Encoder, RowError> {
        match self {
            Self::Json(envelope) => Ok(Encoder::Json(json::Encoder::new(envelope, relation))),
        }
    }

    /// Completes the open event, if there is one. `last` says whether it is the last of its transaction.
    pub fn close(&self, out: &mut BatchWriter, last: bool) {
        match self {
            Self::Json(_) => json::close(out, last),
        }
    }
}

/// Encodes the events of one relation.
#[derive(Clone, Debug)]
pub enum Encoder {
    /// feedline's own JSON, version 1.
    Json(json::Encoder),
}

impl Encoder {
    /// Appends the records of one event. An event with a transaction stays open: [`Format::close`] must be called before the next
    /// event.
    ///
    /// # Errors
    /// If the row does not fit the relation. The batch is then unchanged.
    pub fn write<R: Row + Copy>(&self, event: &Event<'_, R>, out: &mut BatchWriter) -> Result<(), RowError> {
        match self {
            Self::Json(encoder) => encoder.write(event, out),
        }
    }
}
