//! Rows that went without any trigger, found by the notes that they left.
//!
//! `UPDATE OR REPLACE` may push out a row whose own foreign key takes the updated row along (`ON DELETE CASCADE`), and goes on to
//! push out others; nothing runs after an update of which no row is left. The notes say which rows it was about to push out: one
//! whose row is gone, and of which nobody logged that, is logged here.

use crate::source::sqlite::Error;
use crate::source::sqlite::capture::Capture;
use crate::source::sqlite::follow::Active;
use crate::source::sqlite::sql::{numbered, quoted};
use crate::source::sqlite::trigger::{CLOCK, op};
use rusqlite::Connection;

impl Capture<'_> {
    /// Logs what is gone and was not logged, in a transaction of the caller's.
    pub(super) fn sweep(&self, connection: &Connection) -> Result<(), Error> {
        for active in self.actives(connection)?.iter().filter(|active| active.version.sweep) {
            let written = connection.execute(&self.missed(active), []);
            written.map_err(|source| self.failed("log rows that went without a trigger", source))?;
        }
        Ok(())
    }

    /// Whether there is anything to look at.
    pub(super) fn is_swept(&self, connection: &Connection) -> Result<bool, Error> {
        let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM main.{} WHERE gone IS NULL)", quoted(&self.names.notes));
        let is_empty: bool =
            connection.query_row(&sql, [], |row| row.get(0)).map_err(|source| self.failed("look for notes left behind", source))?;
        Ok(is_empty || !self.actives(connection)?.iter().any(|active| active.version.sweep))
    }

    fn missed(&self, active: &Active) -> String {
        let (tid, layout) = (active.tid, &active.version.layout);
        let keys = numbered("k", layout.key_len());
        let equals: Vec<_> = layout.key_names().enumerate().map(|(index, name)| format!("r.{} = n.k{index}", quoted(name))).collect();
        format!(
            "INSERT INTO main.{}(tid, op, at{keys}) SELECT DISTINCT {tid}, {}, {CLOCK}{} FROM main.{} AS n
             WHERE n.gone IS NULL AND n.u >= '{tid}/' AND n.u < '{tid}0' AND NOT EXISTS (SELECT 1 FROM main.{} AS r WHERE {})",
            quoted(&self.names.log),
            op::DELETE,
            numbered("n.k", layout.key_len()),
            quoted(&self.names.notes),
            quoted(&layout.table),
            equals.join(" AND "),
        )
    }
}
