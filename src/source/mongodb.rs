//! MongoDB: the change stream of one database is the log, and reads at a cluster time are the snapshots.
//!
//! One stream carries the changes of all feeds' collections; the server leaves the others out. The client is a small one of its own, as those
//! of the other sources are: every connection finds the primary by itself, proves that it has reached the known cluster before anything that
//! it says is used, has a deadline for each wait, and hands out documents where they lie in the buffer of the socket.
//!
//! | port | what it is here |
//! |---|---|
//! | token | the cluster time, how many events of it were read, and the server's resume token, which is never compared |
//! | log | `$changeStream` with `startAfter`, or with `startAtOperationTime` where there is no resume token yet |
//! | snapshot and cut | reads with `atClusterTime`: T, and the place in front of T + 1 |
//! | identity | the `replicaSetId` of the replica set; of a sharded cluster its `clusterId` |
//! | gap | the oplog no longer holds what follows the token, or the cluster was set back |
//!
//! How a place is known to be passed (`change_stream`, `flow`): by an event behind it, or by the time in the server's token behind a reply. A
//! server whose tokens do not tell their time shows it by a reply without events, to a question that was asked later.
//!
//! An update whose whole document the server does not have is a partial row: the top-level fields that were set, the column `$update` with
//! MongoDB's description of all that changed, and `*` among the unchanged columns. What is not mentioned is not known, and not gone.
//!
//! Where to look: `session` is the client, of `wire`, `hello` and `login`; `bson` reads and writes documents; `document`, `value` and
//! `decimal` make rows and cells; `change_stream` and `change_event` are what the server sends, `flow` what becomes of it, `log` the port.

mod action;
mod bson;
mod catalogue;
mod change_event;
mod change_stream;
mod cluster;
mod connector;
mod decimal;
mod document;
mod error;
mod filter;
mod flow;
mod head;
mod hello;
mod hex;
mod log;
mod login;
mod options;
mod prefeed;
mod preflight;
mod probe;
mod server_error;
mod session;
mod snapshot;
mod token;
mod value;
mod wire;

pub use cluster::SameCluster;
pub use connector::Connector;
pub use error::Error;
pub use log::Log;
pub use options::{Image, Login, Options, Spelling};
pub use prefeed::Rows;
pub use probe::Probe;
pub use server_error::{ErrorKind, ServerError};
pub use token::{Place, Token};
