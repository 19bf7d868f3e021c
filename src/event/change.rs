//! One change of a row or a table, before a format writes it.

use crate::event::head::Timestamp;
use crate::event::operation::Operation;
use crate::event::position::Position;

/// An event's place in its source transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// The source's name of the transaction.
    pub id: &'a str,
    /// Counts from 0 over the events of the transaction that this pipeline publishes.
    pub index: u64,
}

/// One change, ready to be written down. `R` is the source's row.
#[derive(Clone, Copy)]
pub struct Event<'a, R> {
    /// What happened.
    pub operation: Operation,
    /// Where in the log.
    pub position: Position,
    /// Record time, see [`crate::event::Head::timestamp`].
    pub timestamp: Timestamp,
    /// The transaction, where the log shows transactions. Such a record stays open until
    /// [`crate::format::Format::close`] says whether it was the last.
    pub transaction: Option<Transaction<'a>>,
    /// The row that carries the key: every key column must be present in it. `None` for table-wide operations.
    pub key: Option<R>,
    /// The old row, where the log carries more of it than the key.
    pub before: Option<R>,
    /// The new row; `None` for deletes and table-wide operations.
    pub after: Option<R>,
    /// The row with the other key, where this event is half of a key change: the new one on a delete, the old one on an insert.
    pub counterpart: Option<R>,
}
