//! Decodes the binary log of MySQL and MariaDB, in place: it turns bytes into borrowed views, without I/O. No input makes it panic.
//!
//! The log describes itself: the definition of a table, with the names of its columns, comes before its rows (`binlog_row_metadata = FULL`).

mod bytes;
mod compression;
mod control;
mod decimal;
mod event;
mod gtid;
mod json_diff;
mod jsonb;
mod message;
mod rows;
mod statement;
mod storage;
mod table_map;
mod temporal;
#[cfg(test)]
pub(super) mod tests;
mod value;

pub use bytes::Malformed;
pub use compression::{Packed, Payload, PayloadEvents};
pub use control::{FormatDescription, Heartbeat, Rotate};
pub use decimal::{Decimal, TEXT_LENGTH_MAX as DECIMAL_LENGTH_MAX};
pub use event::{Checksum, Event, Header};
pub use gtid::{Alter, GroupEnd, MariaGtid, MariaGtidList, MariaId, MySqlGtid, MySqlId, Xa};
pub use json_diff::apply as apply_json_diff;
pub use jsonb::write as write_json;
pub use message::{Message, decode};
pub use rows::{Change, Image, RowChange, RowChanges, Rows, Values};
pub use statement::{Query, Writing, XaPrepare};
pub use storage::{BINARY, Labels, Storage};
pub use table_map::{Table, TableColumn, TableMap};
pub use temporal::{Date, Instant, Text, Time};
pub use value::{Compressed, Value};
