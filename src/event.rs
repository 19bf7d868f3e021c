//! Events: what happened to a row, when, in which feed, and the row as its source shows it.

mod change;
mod row;

pub use change::{FeedId, Head, Operation, Operations, Timestamp};
pub use row::{Bytes, Cell, Column, Elements, Event, NoRow, Position, Relation, Row, RowError, Transaction};
