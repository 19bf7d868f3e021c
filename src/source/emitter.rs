//! Writes live events into a batch. A source says what changed; everything that is the same for every source is done here.

use crate::batch::BatchWriter;
use crate::event::{Event, FeedId, NoRow, Operation, Operations, Position, Relation, Row, RowError, Seen, Timestamp, Transaction};
use crate::format::{self, Encoder};
use crate::source::emission::{Emission, HandedOver, Inside};
use crate::source::token::LogToken;

/// Takes the changes of the log for one batch: applies the feeds' starts and operations, builds events, numbers those of a transaction,
/// marks its last one, and counts.
///
/// A source calls [`Self::begin`] or [`Self::go_to`] first; then [`Self::admit`] for each change of a feed's table, and with the
/// [`Admitted`] that says how; at the end of a transaction [`Self::commit`].
#[derive(Debug)]
pub struct Emitter<'e, T> {
    session: &'e mut Emission<T>,
    out: &'e mut BatchWriter,
}

/// A table's definition as the log shows it, prepared for its changes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Definition {
    feed: FeedId,
    operations: Operations,
    encoder: Encoder,
}

impl Definition {
    /// The feed that publishes the table.
    #[must_use]
    pub const fn feed(&self) -> FeedId {
        self.feed
    }
}

impl<'e, T: LogToken> Emitter<'e, T> {
    /// Writes into this batch.
    pub const fn new(session: &'e mut Emission<T>, out: &'e mut BatchWriter) -> Self {
        Self { session, out }
    }

    /// Whether the batch must be handed over before more is written. A batch that is full of one open record is not: that record must be
    /// closed first.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.out.is_full() && !self.out.is_empty()
    }

    /// As [`Emission::closed_records`].
    #[must_use]
    pub const fn closed_records(&self) -> u64 {
        self.session.closed_records()
    }

    /// Prepares a definition of a feed's table; once for each definition it may wait. Cancel safe.
    ///
    /// # Errors
    /// Those of [`Encoders::of`](crate::format::Encoders::of).
    pub async fn prepare(&self, relation: &Relation) -> Result<Definition, format::Error> {
        let encoder = self.session.encoders.of(relation).await?;
        Ok(Definition { feed: relation.feed, operations: self.session.feeds.get(relation.feed).operations, encoder })
    }

    /// Goes on to a change outside of any transaction. Positions of events begin with `prefix`.
    ///
    /// # Panics
    /// Where the prefix is longer than [`PREFIX_LENGTH_MAX`](crate::source::PREFIX_LENGTH_MAX); its width is fixed in each source's code.
    pub fn go_to(&mut self, prefix: &[u8], committed_at: Timestamp) {
        self.session.current.go_to(prefix, committed_at);
    }

    /// Begins a transaction, of which an earlier session may have handed over a part.
    ///
    /// # Panics
    /// As [`Self::go_to`].
    pub fn begin(&mut self, prefix: &[u8], committed_at: Timestamp, id: &str, handed_over: HandedOver) {
        self.go_to(prefix, committed_at);
        self.session.current.begin(id, handed_over);
    }

    /// Ends the transaction: its newest event was its last.
    pub fn commit(&mut self) {
        self.session.close(self.out, true);
        self.session.current.transaction = None;
        self.session.counts.transactions += 1;
    }

    /// Counts a change of a table that no feed publishes.
    pub const fn skip(&mut self, operation: Operation) {
        self.session.counts.events[operation as usize] += 1;
        self.session.counts.filtered += 1;
    }

    /// The position of the change with this ordinal, for an error.
    pub fn position(&mut self, ordinal: u64) -> Position {
        self.session.current.position(ordinal)
    }

    /// Counts a change, and returns how to publish it. `None` where the feed does not publish the operation, or begins later.
    ///
    /// `ordinal` orders the changes of a transaction, or of one entry of a log without transactions. A change takes two: `ordinal`, and the
    /// next one where it changes the key.
    #[inline]
    pub fn admit<'a>(
        &'a mut self,
        definition: &'a Definition,
        operation: Operation,
        change: T::Change,
        ordinal: u64,
    ) -> Option<Admitted<'a, T>> {
        self.session.counts.events[operation as usize] += 1;
        if !definition.operations.admits(operation) {
            self.session.counts.filtered += 1;
            return None;
        }
        let start = self.session.starts.get(definition.feed.index())?.as_ref()?;
        if !start.admits(change) {
            return None;
        }
        Some(Admitted { session: self.session, out: self.out, encoder: &definition.encoder, ordinal, alone: Seen::Alone })
    }
}

/// A change that is published, once the source says what its rows are.
#[derive(Debug)]
pub struct Admitted<'a, T> {
    session: &'a mut Emission<T>,
    out: &'a mut BatchWriter,
    encoder: &'a Encoder,
    ordinal: u64,
    /// Where it was seen, outside of transactions.
    alone: Seen<'static>,
}

/// The rows of one event.
#[derive(Clone, Copy)]
struct Rows<R> {
    key: Option<R>,
    before: Option<R>,
    after: Option<R>,
    counterpart: Option<R>,
}

impl<T: LogToken> Admitted<'_, T> {
    /// The position of its event, for an error.
    pub fn position(&mut self) -> Position {
        self.session.current.position(self.ordinal)
    }

    /// Marks the change, which no transaction has: it was found by comparing rows, and stands for all that happened to the row meanwhile.
    #[must_use]
    pub fn found_by_comparison(self) -> Self {
        Self { alone: Seen::ByComparison, ..self }
    }

    /// A row was added.
    ///
    /// # Errors
    /// If the row does not fit its relation. The batch is then unchanged. As for all calls.
    pub fn insert<R: Row + Copy>(mut self, new: R) -> Result<(), RowError> {
        self.put(Operation::Insert, Rows { key: Some(new), before: None, after: Some(new), counterpart: None })
    }

    /// A row changed and kept its key. `before` is the old row, where the log carries more of it than the key.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn update<R: Row + Copy>(mut self, before: Option<R>, new: R) -> Result<(), RowError> {
        self.put(Operation::Update, Rows { key: Some(new), before, after: Some(new), counterpart: None })
    }

    /// A row changed its key: published as a delete of the old row and an insert of the new one.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn change_key<R: Row + Copy>(mut self, old: R, before: Option<R>, new: R) -> Result<(), RowError> {
        self.put(Operation::Delete, Rows { key: Some(old), before, after: None, counterpart: Some(new) })?;
        self.ordinal += 1;
        self.put(Operation::Insert, Rows { key: Some(new), before: None, after: Some(new), counterpart: Some(old) })
    }

    /// A row was removed. `before` is the old row, where the log carries more of it than the key.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn delete<R: Row + Copy>(mut self, old: R, before: Option<R>) -> Result<(), RowError> {
        self.put(Operation::Delete, Rows { key: Some(old), before, after: None, counterpart: None })
    }

    /// All rows of the table were removed at once.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn truncate(mut self) -> Result<(), RowError> {
        self.put(Operation::Truncate, Rows::<NoRow> { key: None, before: None, after: None, counterpart: None })
    }

    /// Writes an event, unless it was handed over earlier. Inside a transaction its record stays open until the next one, or the commit.
    fn put<R: Row + Copy>(&mut self, operation: Operation, rows: Rows<R>) -> Result<(), RowError> {
        let Self { session, out, encoder, ordinal, alone } = self;
        if session.current.was_handed_over(*ordinal) {
            return Ok(());
        }
        session.close(out, false);
        let current = &mut session.current;
        let position = current.position(*ordinal);
        let Some(transaction) = &mut current.transaction else {
            encoder.write(&event(operation, position, current.committed_at, *alone, rows), out)?;
            session.closed();
            return Ok(());
        };
        let index = transaction.index;
        let named = Transaction { id: &current.transaction_id, index };
        encoder.write(&event(operation, position, current.committed_at, Seen::In(named), rows), out)?;
        transaction.index += 1;
        current.open = Some(Inside { ordinal: *ordinal, index });
        Ok(())
    }
}

fn event<R>(operation: Operation, position: Position, timestamp: Timestamp, seen: Seen<'_>, rows: Rows<R>) -> Event<'_, R> {
    let Rows { key, before, after, counterpart } = rows;
    Event { operation, position, timestamp, seen, key, before, after, counterpart }
}
