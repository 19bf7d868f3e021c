//! What the publication says of a table's columns: PostgreSQL refuses an update where that does not go with the replica identity.

use crate::feed::Feed;
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::quote::literal;
use crate::source::postgres::session::Session;
use std::collections::HashMap;
use std::sync::Arc;

/// The publication, as it is before a start changes it.
#[derive(Debug, Default)]
pub(crate) struct Publication {
    /// Whether it holds stored generated columns.
    generated: bool,
    /// Tables that it lists, by schema and name.
    tables: HashMap<(String, String), Listed>,
    /// Whether it shows updates or deletes, which PostgreSQL refuses where they do not go with it.
    shows_changes: bool,
    /// Whether the server asks whether the identity is free of columns that are not published.
    pub(super) asks_for_generated: bool,
}

/// What it lists of one table.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// The columns that it names; all where `None`.
    pub(super) columns: Option<Vec<Arc<str>>>,
    /// The columns by which it chooses rows.
    pub(super) filter: Vec<Arc<str>>,
}

impl Publication {
    pub(crate) async fn read(options: &Options, session: &mut Session) -> Result<Self, Error> {
        let version = session.version();
        let asks_for_generated = version.publishes_generated_columns();
        if !version.has_publication_lists() {
            return Ok(Self { asks_for_generated, ..Self::default() });
        }
        let generated = if asks_for_generated { "p.pubgencols = 's'" } else { "false" };
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
        let shows_changes = rows.first().is_some_and(|row| row.is_true(5));
        Ok(Self {
            generated: shows_changes && rows.first().is_some_and(|row| row.is_true(0)),
            shows_changes,
            tables: rows
                .iter()
                .map(|row| {
                    let listed = Listed { columns: names(row.get(3)), filter: names(row.get(4)).unwrap_or_default() };
                    ((row.text(1).to_owned(), row.text(2).to_owned()), listed)
                })
                .collect(),
            asks_for_generated,
        })
    }

    /// Whether it holds this stored generated column.
    pub(super) fn holds_generated(&self, feed: &Feed, column: &str) -> bool {
        match self.listed(feed).and_then(|listed| listed.columns.as_ref()) {
            Some(columns) => columns.iter().any(|listed| **listed == *column),
            None => self.generated,
        }
    }

    /// Whether it holds the stored generated columns of a table of which it names no columns.
    pub(super) const fn holds_all_generated(&self) -> bool {
        self.generated
    }

    /// What it lists of the table, where the table's changes must go with that.
    pub(super) fn listed(&self, feed: &Feed) -> Option<&Listed> {
        self.selection(feed).filter(|_| self.shows_changes)
    }

    fn selection(&self, feed: &Feed) -> Option<&Listed> {
        self.tables.get(&(feed.schema.to_string(), feed.table.to_string()))
    }

    /// Whether the column's values are sent, or decide which rows are; `is_plain`: whether it is so where no columns are listed.
    pub(super) fn shows(&self, feed: &Feed, column: &str, is_plain: bool) -> bool {
        let Some(listed) = self.selection(feed) else { return is_plain };
        let is_named = |names: &[Arc<str>]| names.iter().any(|name| **name == *column);
        is_named(&listed.filter) || listed.columns.as_ref().map_or(is_plain, |columns| is_named(columns))
    }

    /// Whether it lists columns of the table.
    pub(crate) fn lists_columns(&self, feed: &Feed) -> bool {
        self.selection(feed).is_some_and(|listed| listed.columns.is_some())
    }
}
