//! feedline's own JSON, version 1.

use crate::batch::BatchWriter;
use crate::format::Envelope;
use crate::row::{Event, Relation, Row, RowError};

/// Writes the events of one relation.
#[derive(Clone, Debug)]
pub struct Encoder;

impl Encoder {
    /// What can be prepared is prepared here.
    #[must_use]
    pub fn new(_envelope: &Envelope, _relation: &Relation) -> Self {
        Self
    }

    /// Appends the records of one event.
    ///
    /// # Errors
    /// Where the row's bytes are not a row of the relation; the batch is as before.
    pub fn write<R: Row + Copy>(&self, _event: &Event<'_, R>, _out: &mut BatchWriter) -> Result<(), RowError> {
        Err(RowError::TooLarge)
    }
}

/// Completes the open event.
pub fn close(_out: &mut BatchWriter, _last: bool) {}
