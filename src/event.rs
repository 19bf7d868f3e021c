//! Events: what happened to a row, in which feed and when, with the row as its source shows it.

mod calendar;
mod change;
mod head;
mod kind;
mod operation;
mod position;
mod relation;
mod row;

pub use calendar::{civil, day_number};
pub use change::{Event, Seen, Transaction};
pub use head::{FeedId, Head, Timestamp};
pub use kind::ColumnKind;
pub use operation::{Operation, Operations};
pub use position::Position;
pub use relation::{Column, Relation};
pub use row::{Bytes, Cell, Elements, Fields, NoRow, Row, RowError};
