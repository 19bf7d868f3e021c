//! The port to a database: what the engine asks of a backend, and what it may rely on.
//!
//! The engine (`crate::pipeline`) sees a database only through four traits. Each backend implements them in a folder of its own.
//!
//! | trait | what it is | how many there are |
//! |---|---|---|
//! | [`SourceConnector`] | prepares the database and opens the other three | one per process |
//! | [`Source`] | the open change log: live events | one per session |
//! | [`Prefeed`] | existing rows, read under snapshots | at most one per session |
//! | [`Probe`] | the end of the log, for the lag | one per process |
//!
//! A session begins with [`SourceConnector::connect`] and ends with the first error or with the stop. After a transient error the
//! engine drops the session and opens a new one, with backoff. Adapters do not retry on their own.
//!
//! [`file`](mod@file) is no backend: it reads the rows of a prefeed file for every backend.

#[cfg(any(feature = "postgres", feature = "mysql"))]
mod answer;
mod connector;
mod emission;
mod emitter;
pub mod file;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb"))]
mod gathering;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb"))]
mod key_ranges;
mod live;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb", feature = "rethinkdb"))]
mod past_heads;
#[cfg(feature = "postgres")]
pub mod postgres;
mod prefeed;
mod prefix;
mod probe;
#[cfg(feature = "rethinkdb")]
pub mod rethinkdb;
mod rows;
#[cfg(any(feature = "mongodb", feature = "rethinkdb"))]
mod shape;
mod slice;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod token;

#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use answer::Answer;
pub use connector::{Renewed, Resume, SourceConnector};
pub use emission::{Emission, HandedOver, Inside, PREFIX_LENGTH_MAX};
pub use emitter::{Admitted, Definition, Emitter};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb"))]
pub use gathering::{Gathering, SocketLog, gather};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb"))]
pub use key_ranges::{Key, KeyRange, KeyRanges};
pub use live::{Filled, Reread, Source, SourceProgress, TableChange};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mongodb", feature = "rethinkdb"))]
pub use past_heads::PastHeads;
pub use prefeed::{Cut, Opened, Prefeed, Scanned, ToRead};
pub use prefix::position_prefix;
pub use probe::Probe;
pub use rows::RowEmitter;
#[cfg(any(feature = "mongodb", feature = "rethinkdb"))]
pub use shape::Shape;
pub use slice::{RowPositions, Slice};
pub use token::LogToken;
