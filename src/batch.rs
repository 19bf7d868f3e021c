//! Batches of encoded records: the unit that travels from the source to the sink.
//!
//! A [`Budget`] lends memory to a [`BatchWriter`]. Each record is written once, into the writer's arena. A sealed [`Batch`] is only read,
//! and gives its memory back when it is dropped. The sink settles an [`Ack`] for each batch.

mod ack;
mod arena;
mod budget;
mod lease;
mod record;
mod sealed;
mod seq;
mod writer;

pub use ack::{Ack, AckCount, Settled};
pub use budget::Budget;
pub use record::Record;
pub use sealed::Batch;
pub use seq::Seq;
pub use writer::{BatchWriter, Ending, OpenBody, OpenRecords, RecordWriter};
