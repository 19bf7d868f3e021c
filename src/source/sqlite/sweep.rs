//! Logs rows that were deleted without any trigger. They are found by the notes that the triggers left.
//!
//! `UPDATE OR REPLACE` may replace a row whose deletion deletes the updated row too (a foreign key with `ON DELETE CASCADE`), and goes on
//! to replace others. No trigger runs after an update that leaves no row. The notes name the rows that it was about to replace: a row that
//! is gone, and whose delete was not logged, is logged here.

use crate::source::sqlite::capture::Capture;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::operation;
use crate::source::sqlite::sql::{numbered, quoted};
use crate::source::sqlite::trigger::CLOCK;
use crate::source::sqlite::version::InstalledVersion;
use rusqlite::Connection;

impl Capture<'_> {
    /// Logs the deletes that no trigger logged, in a transaction of the caller's.
    pub(super) fn sweep(&self, connection: &Connection) -> Result<(), Error> {
        for installed in self.installed_versions(connection)?.iter().filter(|installed| installed.version.sweep) {
            let written = connection.execute(&self.insert_missed(installed), []);
            written.map_err(|source| self.failed("log rows that were deleted without a trigger", source))?;
        }
        Ok(())
    }

    /// Whether there is nothing to sweep.
    pub(super) fn is_swept(&self, connection: &Connection) -> Result<bool, Error> {
        let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM main.{} WHERE gone IS NULL)", quoted(&self.names.notes));
        let is_empty: bool =
            connection.query_row(&sql, [], |row| row.get(0)).map_err(|source| self.failed("look for notes left behind", source))?;
        Ok(is_empty || !self.installed_versions(connection)?.iter().any(|installed| installed.version.sweep))
    }

    fn insert_missed(&self, installed: &InstalledVersion) -> String {
        let (tid, layout) = (installed.tid, &installed.version.layout);
        let keys = numbered("k", layout.key_len());
        let equals: Vec<_> = layout.key_names().enumerate().map(|(index, name)| format!("r.{} = n.k{index}", quoted(name))).collect();
        format!(
            "INSERT INTO main.{}(tid, op, at{keys}) SELECT DISTINCT {tid}, {}, {CLOCK}{} FROM main.{} AS n
             WHERE n.gone IS NULL AND n.u >= '{tid}/' AND n.u < '{tid}0' AND NOT EXISTS (SELECT 1 FROM main.{} AS r WHERE {})",
            quoted(&self.names.log),
            operation::DELETE,
            numbered("n.k", layout.key_len()),
            quoted(&self.names.notes),
            quoted(&layout.table),
            equals.join(" AND "),
        )
    }
}
