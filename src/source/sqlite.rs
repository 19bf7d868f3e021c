//! SQLite: triggers write each change into a log table, in the application's own transaction.
//!
//! Every process that writes to the file writes the log too, whatever its language. So nothing is lost while feedline is down. The
//! triggers run in the *writer's* SQLite, so they use nothing that old versions lack. They copy values as they are, without JSON: blobs,
//! infinities, 64-bit integers and text that is not UTF-8 arrive as they were stored.
//!
//! Every table and trigger carries the pipeline's name (`_feedline_{pipeline}_...`). Two pipelines on one database have a log each, and
//! neither trims the other's rows.
//!
//! Limits that an application must know:
//! - With triggers on a table, `ALTER TABLE ... DROP COLUMN` fails in SQLite itself (`error in trigger ...`). `feedline detach` removes
//!   the triggers before such a migration.
//! - A table that is dropped and made again loses its triggers. Changes until they are back are a gap, which is reported.
//! - One statement escapes every trigger: `INSERT OR FAIL` or `UPDATE OR FAIL` whose nested statement fails (a foreign key's action, or a
//!   trigger that runs before ours). It keeps its row and skips the triggers that have not run yet.
//!
//! Where to look: `capture` and the files that it names make and follow the triggers, `trigger` writes their SQL; `session` opens the log,
//! `reader` and `trim` are its threads, `log` encodes what the reader sends; `prefeed` reads existing rows; `history` checks that the log
//! is still the one that was read.

mod capture;
mod catalogue;
mod change;
mod columns;
mod connector;
mod database;
mod error;
mod establish;
mod estimate;
mod follow;
mod gap;
mod history;
mod identity;
mod install;
mod layout;
mod lock_holder;
mod log;
mod log_query;
mod log_row;
mod names;
mod open;
mod operation;
mod options;
mod page;
mod parse;
mod prefeed;
mod probe;
mod reader;
mod row;
mod scan;
mod schema;
mod session;
mod sql;
mod sweep;
mod table;
mod table_changes;
mod token;
mod trial;
mod trigger;
mod trim;
mod version;
mod wake;

pub use connector::Connector;
pub use error::Error;
pub use log::Log;
pub use options::Options;
pub use prefeed::Rows;
pub use probe::LogProbe;
pub use token::LogPosition;
