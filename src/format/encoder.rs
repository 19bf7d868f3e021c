//! The configured format, and its encoder for each relation.

use crate::batch::BatchWriter;
use crate::event::{Event, NoRow, Operation, Position, Relation, Row, RowError, Timestamp};
use crate::feed::Feed;
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

    /// Appends the `reset` event of a feed, whose table will be read again.
    ///
    /// # Errors
    /// Like [`Self::prepare`].
    pub async fn write_reset(&self, feed: &Feed, position: Position, timestamp: Timestamp, out: &mut BatchWriter) -> Result<(), RowError> {
        let relation = Relation { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns: Vec::new() };
        let event: Event<'_, NoRow> = Event {
            operation: Operation::Reset,
            position,
            timestamp,
            transaction: None,
            key: None,
            before: None,
            after: None,
            counterpart: None,
        };
        self.prepare(&relation).await?.write(&event, out)
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
