//! The sink that writes JSON lines to standard output or to a file: for the demo, for pipes and for tests.
//!
//! Each line is the body of one record; a tombstone writes nothing. Lines on standard output are confirmed when they are flushed, lines of a
//! file when they are on the disk (`fdatasync`). A crash can leave an unfinished line at the end of a file: it is cut off when
//! the file is opened again.

mod connector;
mod error;
mod options;
mod ownership;
mod session;
mod writer;

pub use connector::Connector;
pub use error::Error;
pub use options::{Options, Target};
pub use session::Session;
