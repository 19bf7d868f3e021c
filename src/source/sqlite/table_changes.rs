//! Compares tables with what the checkpoint remembers of them, and says which rows read otherwise now.

use crate::checkpoint;
use crate::source::live::{Reread, TableChange};
use crate::source::sqlite::capture::Capture;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::table::ColumnDefinition;
use crate::source::sqlite::version::MissedRows;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

/// What a checkpoint remembers of a table.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredTable {
    columns: Vec<ColumnDefinition>,
    #[serde(default, rename = "lapses")]
    missed: MissedRows,
}

impl StoredTable {
    fn layout(&self) -> checkpoint::Layout {
        checkpoint::Layout(serde_json::to_string(self).expect("names and numbers are JSON").into())
    }

    /// Why the rows that were sent while the table was as `before` are to be read again.
    fn reread(&self, before: &Self) -> Option<Reread> {
        if before.missed.gone != self.missed.gone {
            let reason = "a unique index was made and rows were written before the triggers knew it".to_owned();
            return Some(Reread { reset: true, reason });
        }
        let changed = |reason| Some(Reread { reset: false, reason });
        if before.missed.changed != self.missed.changed {
            return changed("many rows were written before the triggers knew a new column".to_owned());
        }
        let Some(added) = self.columns.strip_prefix(before.columns.as_slice()) else {
            return changed("its columns were changed".to_owned());
        };
        let has_default = |column: &&ColumnDefinition| column.default.as_ref().is_some_and(|default| !default.eq_ignore_ascii_case("null"));
        added.iter().find(has_default).and_then(|column| changed(format!("column `{}` was added with a default", column.name)))
    }
}

impl Capture<'_> {
    /// Returns the tables that are not as they are `known`, and updates `known`.
    pub(super) fn table_changes(
        &self,
        connection: &Connection,
        known: &mut [Option<checkpoint::Layout>],
    ) -> Result<Vec<TableChange>, Error> {
        let installed = self.installed_versions(connection)?;
        let mut changes = Vec::new();
        for feed in self.feeds.iter() {
            let missed = self.version_of(feed.id, &installed).map_or_else(MissedRows::default, |installed| installed.version.missed);
            let now = StoredTable { columns: self.describe(connection, feed)?.definition, missed };
            let Some(known) = known.get_mut(feed.id.index()) else { continue };
            let layout = now.layout();
            if known.as_ref() == Some(&layout) {
                continue;
            }
            let before = known.as_ref().and_then(|known| serde_json::from_str::<StoredTable>(&known.0).ok());
            let reread = before.and_then(|before| now.reread(&before));
            *known = Some(layout.clone());
            changes.push(TableChange { feed: feed.id, layout, reread });
        }
        Ok(changes)
    }
}
