//! Writes existing rows into a batch: as `read` events, numbered by their slice.

use crate::batch::BatchWriter;
use crate::event::{Event, Operation, Position, Relation, Row, RowError, Seen, Timestamp};
use crate::feed::Feed;
use crate::format::{self, Encoder, Encoders};
use crate::source::slice::{RowPositions, Slice};

/// Takes the rows of a prefeed: a source or a file gives them, in order, and everything else of their events is made here.
#[derive(Debug)]
pub struct RowEmitter<'e> {
    encoders: Encoders,
    positions: RowPositions,
    read_at: Timestamp,
    slice: &'e mut Slice,
    out: &'e mut BatchWriter,
    written: u64,
}

impl<'e> RowEmitter<'e> {
    /// Rows of this slice, positioned at a cut (`prefix`), with the time at which its snapshot was opened.
    pub fn new(encoders: Encoders, prefix: &str, read_at: Timestamp, slice: &'e mut Slice, out: &'e mut BatchWriter) -> Self {
        Self { encoders, positions: slice.positions(prefix), read_at, slice, out, written: 0 }
    }

    /// Returns the encoder of a relation; once for each definition it may wait.
    ///
    /// # Errors
    /// Those of [`Encoders::of`].
    pub async fn prepare(&self, relation: &Relation) -> Result<Encoder, format::Error> {
        self.encoders.of(relation).await
    }

    /// Whether the batch must be handed over before more is written.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.out.is_full()
    }

    /// How many rows were written.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The position of the next row.
    #[must_use]
    pub fn next_position(&self) -> Position {
        self.positions.of(self.slice.next_row)
    }

    /// Writes a row.
    ///
    /// # Errors
    /// If the row does not fit its relation. The batch is then unchanged.
    pub fn write<R: Row + Copy>(&mut self, encoder: &Encoder, row: R) -> Result<(), RowError> {
        let event = Event {
            operation: Operation::Read,
            position: self.next_position(),
            timestamp: self.read_at,
            seen: Seen::Alone,
            key: Some(row),
            before: None,
            after: Some(row),
            counterpart: None,
        };
        encoder.write(&event, self.out)?;
        self.slice.take_row();
        self.written += 1;
        Ok(())
    }

    /// Writes the feed's `reset` event, with a row number of the slice: its table is read anew, and readers forget its rows.
    ///
    /// # Errors
    /// If the event does not fit the batch.
    pub fn reset(&mut self, feed: &Feed) -> Result<(), format::Error> {
        self.encoders.format().write_reset(feed, self.next_position(), self.read_at, self.out)?;
        self.slice.take_row();
        Ok(())
    }
}
