//! How a change is written down: a mapping of values and an envelope.

use crate::batch::BatchWriter;
use crate::event::{Event, NoRow, Operation, Position, Relation, Row, RowError, Timestamp};
use crate::feed::Feed;
use std::sync::Arc;

pub mod json;

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

/// The format of a pipeline's events. Cheap to clone; each source holds one.
#[derive(Clone, Debug)]
pub enum Format {
    /// feedline's own JSON, version 1.
    Json(Arc<Envelope>),
}

impl Format {
    /// Learns a relation before its first row, and may wait for that (for a schema registry); rows never wait.
    ///
    /// # Errors
    /// None of the present formats; a registry's will be its own.
    #[expect(clippy::unused_async, reason = "a schema registry is asked here")]
    pub async fn prepare(&self, relation: &Relation) -> Result<Encoder, RowError> {
        match self {
            Self::Json(envelope) => Ok(Encoder::Json(json::Encoder::new(envelope, relation))),
        }
    }

    /// Appends the records that say that a feed's table is read anew.
    ///
    /// # Errors
    /// As [`Self::prepare`].
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

    /// Completes the open event, if there is one: whether it was the last of its transaction.
    pub fn close(&self, out: &mut BatchWriter, last: bool) {
        match self {
            Self::Json(_) => json::close(out, last),
        }
    }
}

/// What every event begins with.
pub const EVENT_BEGINS: &str = "{\"v\":1,\"op\":\"";

/// Whether a line is an event of the pipeline of this name.
#[must_use]
pub fn is_event_of(line: &[u8], pipeline: &str) -> bool {
    json::name_in(line).is_some_and(|name| name == pipeline)
}

/// Writes the events of one relation.
#[derive(Clone, Debug)]
pub enum Encoder {
    /// feedline's own JSON, version 1.
    Json(json::Encoder),
}

impl Encoder {
    /// Appends the records of one event. An event with a transaction stays open:
    /// [`Format::close`] must follow before the next.
    ///
    /// # Errors
    /// Where the row's bytes are not a row of the relation; the batch is as before.
    pub fn write<R: Row + Copy>(&self, event: &Event<'_, R>, out: &mut BatchWriter) -> Result<(), RowError> {
        match self {
            Self::Json(encoder) => encoder.write(event, out),
        }
    }
}
