//! Column lists, row filters and generated columns of the publication, for checks against replica identities: PostgreSQL refuses an
//! update of a table whose replica identity does not fit them.

use crate::feed::Feed;
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::quote::literal;
use crate::source::postgres::session::Session;
use std::collections::HashMap;
use std::sync::Arc;

/// The publication as it is now, before a start changes it.
#[derive(Debug, Default)]
pub(crate) struct Publication {
    /// Whether it publishes stored generated columns of tables without a column list.
    generated: bool,
    /// The tables with an entry of their own, by schema and name.
    tables: HashMap<(String, String), TableEntry>,
    /// Whether it publishes updates or deletes. Only then PostgreSQL checks replica identities.
    publishes_changes: bool,
    /// Whether the server refuses replica identities with generated columns that are not published.
    pub(super) server_checks_generated: bool,
}

/// The entry of one table.
#[derive(Debug, Default)]
pub(super) struct TableEntry {
    /// Its column list; `None`: all columns.
    pub(super) columns: Option<Vec<Arc<str>>>,
    /// The columns that its row filter uses.
    pub(super) filter: Vec<Arc<str>>,
}

impl Publication {
    pub(crate) async fn read(options: &Options, session: &mut Session) -> Result<Self, Error> {
        let version = session.version();
        let server_checks_generated = version.publishes_generated_columns();
        if !version.has_publication_lists() {
            return Ok(Self { server_checks_generated, ..Self::default() });
        }
        let generated = if server_checks_generated { "p.pubgencols = 's'" } else { "false" };
        let names = "pg_catalog.json_agg(DISTINCT a.attname)";
        let rows = session
            .query(&format!(
                "SELECT {generated}, n.nspname, c.relname, \
                 (SELECT {names} FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs)), \
                 (SELECT {names} FROM pg_catalog.regexp_matches(r.prqual::text, ':varattno (\\d+)', 'g') AS named \
                  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = named[1]::int2), p.pubupdate OR p.pubdelete \
                 FROM pg_catalog.pg_publication p LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid \
                 LEFT JOIN pg_catalog.pg_class c ON c.oid = r.prrelid LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE p.pubname = {}",
                literal(&options.publication)
            ))
            .await?;
        let names = |text: Option<&str>| text.and_then(|text| serde_json::from_str::<Vec<Arc<str>>>(text).ok());
        let publishes_changes = rows.first().is_some_and(|row| row.is_true(5));
        Ok(Self {
            generated: publishes_changes && rows.first().is_some_and(|row| row.is_true(0)),
            publishes_changes,
            tables: rows
                .iter()
                .map(|row| {
                    let entry = TableEntry { columns: names(row.get(3)), filter: names(row.get(4)).unwrap_or_default() };
                    ((row.text(1).to_owned(), row.text(2).to_owned()), entry)
                })
                .collect(),
            server_checks_generated,
        })
    }

    /// Whether it publishes this stored generated column.
    pub(super) fn holds_generated(&self, feed: &Feed, column: &str) -> bool {
        match self.checked_entry(feed).and_then(|entry| entry.columns.as_ref()) {
            Some(columns) => columns.iter().any(|name| **name == *column),
            None => self.generated,
        }
    }

    /// Whether it publishes the stored generated columns of a table without a column list.
    pub(super) const fn holds_all_generated(&self) -> bool {
        self.generated
    }

    /// The entry of the feed's table, if PostgreSQL checks its replica identity against it.
    pub(super) fn checked_entry(&self, feed: &Feed) -> Option<&TableEntry> {
        self.entry(feed).filter(|_| self.publishes_changes)
    }

    fn entry(&self, feed: &Feed) -> Option<&TableEntry> {
        self.tables.get(&(feed.schema.to_string(), feed.table.to_string()))
    }

    /// Whether the column is published or used by the row filter. `without_list`: whether it is published when there is no column list.
    pub(super) fn uses(&self, feed: &Feed, column: &str, without_list: bool) -> bool {
        let Some(entry) = self.entry(feed) else { return without_list };
        let is_in = |names: &[Arc<str>]| names.iter().any(|name| **name == *column);
        is_in(&entry.filter) || entry.columns.as_ref().map_or(without_list, |columns| is_in(columns))
    }

    /// Whether the feed's table has a column list.
    pub(crate) fn lists_columns(&self, feed: &Feed) -> bool {
        self.entry(feed).is_some_and(|entry| entry.columns.is_some())
    }
}
