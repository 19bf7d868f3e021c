//! Events: one change of a row or a table, before a format encodes it.

use crate::event::head::Timestamp;
use crate::event::operation::Operation;
use crate::event::position::Position;

/// The transaction of an event, and the event's index in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// The source's name for the transaction.
    pub id: &'a str,
    /// Counts from 0 over the events of the transaction that this pipeline publishes.
    pub index: u64,
}

/// Where a change was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// In a transaction. The record then stays open until [`crate::format::Format::close`] says whether it was the transaction's last.
    In(Transaction<'a>),
    /// In a log that shows no transactions, or as an existing row.
    Alone,
    /// In no log: the source compared the rows that exist with what it had published, and found the difference. States in between are not
    /// known, and the time is that of the comparison.
    ByComparison,
}

/// One change, ready to be encoded. `R` is the source's row type.
#[derive(Clone, Copy)]
pub struct Event<'a, R> {
    /// What happened.
    pub operation: Operation,
    /// The position in the log.
    pub position: Position,
    /// See [`crate::event::Head::timestamp`].
    pub timestamp: Timestamp,
    /// Where it was seen.
    pub seen: Seen<'a>,
    /// The row with the key. Every key column must have a value. `None` for table-wide operations.
    pub key: Option<R>,
    /// The old row, if the log carries more of it than the key.
    pub before: Option<R>,
    /// The new row; `None` for deletes and table-wide operations.
    pub after: Option<R>,
    /// The row with the other key, if this event is one of the two that stand for a change of the key: on the delete the new row,
    /// on the insert the old row.
    pub counterpart: Option<R>,
}
