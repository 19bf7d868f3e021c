//! RethinkDB: a changefeed for each table fills a local store, and the pipeline reads the store.
//!
//! RethinkDB has no log. A changefeed exists in the memory of one server, has no position, and is gone with its connection; what happened
//! before the next one is opened is told by nobody, deletes least of all. So the source keeps a log of its own: one SQLite file, the *store*,
//! in which one transaction holds what changed (the log) and the document as it is now (the documents). The store is made before the first
//! changefeed is opened, and belongs on a volume that outlives the process.
//!
//! What fills the store (the *collection*: a task for each table, and one writing thread) is owned by the connector and outlives sessions:
//! neither an outage of the broker nor the failure of another table costs a scan. For each table it opens
//! `changes(include_initial, include_states, include_types, squash: false)`, and writes frame by frame; the next frame is asked for when this
//! one is durable.
//! - `initial`: the document is compared with the stored one. If it differs, or is new, the log is told. In the very first scan of a table it
//!   is not: nobody has been told of any document yet, and the prefeed reads them from the store.
//! - `add`, `change`, `remove`: the same. Once the scan is complete, each must fit the stored document; if not, a change was left out.
//! - `ready`: stored documents that this scan has not shown are gone, and the log is told of each.
//! - `error`: the server threw its queue away. The feed is opened again, and the scan finds what was in it.
//!
//! So everything that the ports ask for is there, although RethinkDB has none of it:
//!
//! | port | what it is here |
//! |---|---|
//! | token | the epoch of the store, and a number of its log |
//! | log | the rows of the store's log, which are removed once they are durable elsewhere |
//! | snapshot and cut | one read transaction of the store: its documents, and the end of its log |
//! | identity | the UUID of the database: another cluster has another one |
//! | gap | a store that is missing, or an older copy: it is made anew, and every table is read again after a `reset` |
//!
//! What cannot be promised: states that a document had while no feed was open, or in a queue that overflowed. The final state is always told.
//! RethinkDB shows a write before it is flushed, so a crash of its server may take back what was published; the scan after it tells what is
//! there then.
//!
//! A table has no schema: its columns are the fields of its documents ([`Shape`](crate::source::Shape)). A document's key may be respelled
//! (a `TIME` in another time zone): that is a change of the key for readers.
//!
//! Where to look: `session` is the client, of `wire` and `handshake`; `response` reads what a feed says; `follow` is a table's task,
//! `store` the store; `log`, `prefeed` and `probe` read it; `document` and `value` make cells.

mod collection;
mod connector;
mod document;
mod error;
mod feed_end;
mod follow;
mod handshake;
mod key;
mod log;
mod options;
mod prefeed;
mod probe;
mod progress;
mod query;
mod response;
mod scan;
mod server_error;
mod session;
mod store;
mod time;
mod token;
mod value;
mod wire;

pub use connector::Connector;
pub use error::Error;
pub use feed_end::FeedEnd;
pub use handshake::HandshakeError;
pub use log::Log;
pub use options::Options;
pub use prefeed::Rows;
pub use probe::LogProbe;
pub use server_error::{ErrorKind, ServerError};
pub use token::LogPosition;
