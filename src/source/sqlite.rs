//! SQLite: triggers write each change into a log table, in the application's own transaction.
//!
//! Whoever writes to the file, in whatever language, writes the log too; a crash of feedline or a day without it loses
//! nothing. The triggers run in the *writer's* SQLite, so they use nothing that old versions lack, and they copy values as
//! they are (no JSON), so that blobs, infinities, 64-bit integers and text that is not UTF-8 arrive as they were stored.
//!
//! Every table and trigger of a pipeline carries its name (`_feedline_{pipeline}_...`): two pipelines on one database have a
//! log each, and neither trims the other's rows.
//!
//! What the application must know: with triggers on a table, `ALTER TABLE ... DROP COLUMN` fails in SQLite itself
//! (`error in trigger ...`); `feedline detach` removes them before such a migration. A table that is dropped and built anew
//! loses its triggers, and what was written meanwhile is a gap, which is reported and never skipped. One statement escapes every
//! trigger: `INSERT OR FAIL` or `UPDATE OR FAIL` whose own nested statement (a foreign key's action, a trigger that runs before
//! ours) fails, keeps its row and skips the triggers that are still to run.

mod capture;
mod connector;
mod error;
mod follow;
mod history;
mod identity;
mod index;
mod log;
mod page;
mod prefeed;
mod probe;
mod reader;
mod row;
mod scan;
mod schema;
mod sql;
mod sweep;
mod token;
mod trial;
mod trigger;
mod trim;
mod wake;

pub use connector::{Connector, Options};
pub use error::Error;
pub use log::Log;
pub use prefeed::Rows;
pub use probe::LogProbe;
