//! The configured format, and its encoder for each relation.

use crate::batch::BatchWriter;
use crate::event::{Event, NoRow, Operation, Position, Relation, Row, RowError, Seen, Timestamp};
use crate::feed::{Feed, Feeds};
use crate::format::cloudevents::{self, Mode, Source};
use crate::format::envelope::Envelope;
use crate::format::error::Error;
use crate::format::headers::{self, Headers, Protocol};
use crate::format::json;
use std::sync::Arc;

/// The format of a pipeline's events. Cheap to clone; each source and each sink has one.
#[derive(Clone, Debug)]
pub enum Format {
    /// feedline's own JSON, version 1.
    Json(Arc<Envelope>),
    /// CloudEvents 1.0, whose data is feedline's own JSON.
    CloudEvents(Arc<Envelope>, Mode),
}

impl Format {
    /// Prepares the encoder of a relation before its first row. A format may wait here (for a schema registry), but never for a
    /// row. [`Encoders`](crate::format::Encoders) keeps the encoder of each relation.
    ///
    /// # Errors
    /// If the format cannot express the table.
    #[expect(clippy::unused_async, reason = "a schema registry will be asked here")]
    pub async fn prepare(&self, relation: &Relation) -> Result<Encoder, Error> {
        self.encoder(relation)
    }

    fn encoder(&self, relation: &Relation) -> Result<Encoder, Error> {
        Ok(match self {
            Self::Json(envelope) | Self::CloudEvents(envelope, Mode::Binary) => Encoder::Json(json::Encoder::new(envelope, relation)?),
            Self::CloudEvents(envelope, Mode::Structured) => Encoder::Structured(cloudevents::Encoder::new(envelope, relation)?),
        })
    }

    /// Appends the `reset` event of a feed, whose table will be read again. It has no row, so no definition is prepared for it: a schema
    /// registry would be given a table without columns.
    ///
    /// # Errors
    /// If the event does not fit the batch.
    pub fn write_reset(&self, feed: &Feed, position: Position, timestamp: Timestamp, out: &mut BatchWriter) -> Result<(), Error> {
        let table = Relation { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns: Vec::new() };
        let event: Event<'_, NoRow> = Event {
            operation: Operation::Reset,
            position,
            timestamp,
            seen: Seen::Alone,
            key: None,
            before: None,
            after: None,
            counterpart: None,
        };
        let written = self.encoder(&table)?.write(&event, out);
        written.map_err(|source| Error::Event { table: feed.name.to_string(), source })
    }

    /// Completes the open event, if there is one. `last` says whether it is the last of its transaction.
    pub fn close(&self, out: &mut BatchWriter, last: bool) {
        match self {
            Self::Json(_) | Self::CloudEvents(_, Mode::Binary) => json::close(out, last),
            Self::CloudEvents(_, Mode::Structured) => cloudevents::close(out, last),
        }
    }

    /// The media type of each body. A tombstone has no body, and no content type.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) | Self::CloudEvents(_, Mode::Binary) => json::CONTENT_TYPE,
            Self::CloudEvents(_, Mode::Structured) => cloudevents::CONTENT_TYPE,
        }
    }

    /// The headers of the messages of these feeds, prepared once for a session.
    #[must_use]
    pub fn headers(&self, protocol: Protocol, feeds: &Feeds) -> Headers {
        let list = match (self, protocol) {
            (Self::Json(_), Protocol::Kafka) => &headers::KAFKA[..],
            (Self::Json(_) | Self::CloudEvents(_, Mode::Structured), Protocol::Amqp) => &headers::AMQP[..],
            (Self::CloudEvents(_, Mode::Structured), Protocol::Kafka) => &headers::KAFKA_STRUCTURED[..],
            (Self::CloudEvents(_, Mode::Binary), Protocol::Kafka) => &headers::KAFKA_BINARY[..],
            (Self::CloudEvents(_, Mode::Binary), Protocol::Amqp) => &headers::AMQP_BINARY[..],
        };
        let (Self::Json(envelope) | Self::CloudEvents(envelope, _)) = self;
        Headers::new(list, self.content_type(), Source::of(envelope), feeds)
    }
}

/// Encodes the events of one relation.
#[derive(Clone, Debug)]
pub enum Encoder {
    /// feedline's own JSON, version 1.
    Json(json::Encoder),
    /// CloudEvents with the attributes in the body.
    Structured(cloudevents::Encoder),
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
            Self::Structured(encoder) => encoder.write(event, out),
        }
    }
}
