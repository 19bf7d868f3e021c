//! The local store: what the source has received, in one SQLite file that it owns.
//!
//! One transaction holds a change in the log *and* the document as it is now. So the documents of the store are always those that the log,
//! read to its end, leaves behind; a reader that has taken the log to some row has exactly what the store had then.

mod apply;
mod file;
mod log_page;
mod seen;
mod statements;
mod tables;
mod writer;

pub(super) use file::{Origin, create, next_seq, open, remove};
pub(super) use log_page::{LogPage, LogRow};
pub(super) use tables::StoredTable;
pub(super) use writer::{Watched, Writer, WriterClient};
