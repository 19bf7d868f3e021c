//! Keeps the triggers in line with tables that change, and logs again the rows that outdated triggers logged without new columns.

use crate::event::FeedId;
use crate::source::sqlite::capture::{Capture, OnLostTriggers};
use crate::source::sqlite::error::Error;
use crate::source::sqlite::layout::SCHEMA;
use crate::source::sqlite::operation;
use crate::source::sqlite::sql::{numbered, of_row, quoted};
use crate::source::sqlite::table::TableSchema;
use crate::source::sqlite::trigger::{self, CLOCK};
use crate::source::sqlite::version::{InstalledVersion, MissedRows, trigger_checksum};
use rusqlite::{Connection, OptionalExtension as _, Transaction};

/// Whether the triggers of a version are those that its table needs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TriggerState {
    /// They are.
    Current,
    /// Nobody touched them, and the table has changed.
    Outdated,
    /// Some are gone, or somebody changed them: what they missed is unknown.
    Lost,
}

/// The most rows that are read again under the write lock: it takes a few milliseconds.
const ROWS_MAX: i64 = 500;

impl Capture<'_> {
    /// Brings the triggers in line with the tables as they are now. Rows of the log from `settled` on may have been written by triggers
    /// that did not know a new column or index. Returns whether something differed; writes only then.
    pub(super) fn follow(
        &self,
        connection: &mut Connection,
        settled: i64,
        on_lost: impl Fn(FeedId) -> OnLostTriggers,
    ) -> Result<bool, Error> {
        let unpublished = self.unpublished(connection)?;
        let outdated = self.outdated(connection)?;
        if !unpublished.is_empty() {
            self.in_transaction(connection, |transaction| unpublished.iter().try_for_each(|tid| self.retire(transaction, *tid)))?;
        }
        self.reinstall_all(connection, &outdated, settled, on_lost)?;
        Ok(!unpublished.is_empty() || !outdated.is_empty())
    }

    /// Makes the triggers of these feeds again, in one transaction per table, so that writers wait only for that one.
    fn reinstall_all(
        &self,
        connection: &mut Connection,
        feeds: &[FeedId],
        settled: i64,
        on_lost: impl Fn(FeedId) -> OnLostTriggers,
    ) -> Result<(), Error> {
        for feed in feeds {
            self.in_transaction(connection, |transaction| {
                let table = self.describe(transaction, self.feeds.get(*feed))?;
                match self.version_of(*feed, &self.installed_versions(transaction)?) {
                    Some(installed) => self.reinstall(transaction, installed, &table, settled, on_lost(*feed)),
                    None => self.install(transaction, &table, MissedRows::default()).map(drop),
                }
            })?;
        }
        Ok(())
    }

    /// The feeds whose triggers are gone, or are not ours any more.
    pub(super) fn lost(&self, connection: &Connection) -> Result<Vec<FeedId>, Error> {
        let installed = self.installed_versions(connection)?;
        let mut lost = Vec::new();
        for feed in self.feeds.iter() {
            let table = self.describe(connection, feed)?;
            if let Some(installed) = self.version_of(feed.id, &installed)
                && self.trigger_state(connection, installed, &table)? == TriggerState::Lost
            {
                lost.push(feed.id);
            }
        }
        Ok(lost)
    }

    /// The installed versions of tables that are no longer published.
    fn unpublished(&self, connection: &Connection) -> Result<Vec<i64>, Error> {
        let is_published = |installed: &InstalledVersion| self.feeds.of_table(SCHEMA, &installed.version.layout.table).is_some();
        let installed = self.installed_versions(connection)?;
        Ok(installed.iter().filter(|installed| !is_published(installed)).map(|installed| installed.tid).collect())
    }

    /// The feeds whose triggers are not those that their tables need.
    fn outdated(&self, connection: &Connection) -> Result<Vec<FeedId>, Error> {
        let installed = self.installed_versions(connection)?;
        let mut outdated = Vec::new();
        for feed in self.feeds.iter() {
            let table = self.describe(connection, feed)?;
            let is_current = match self.version_of(feed.id, &installed) {
                Some(installed) => self.trigger_state(connection, installed, &table)? == TriggerState::Current,
                None => false,
            };
            if !is_current {
                outdated.push(feed.id);
            }
        }
        Ok(outdated)
    }

    fn reinstall(
        &self,
        transaction: &Transaction<'_>,
        installed: &InstalledVersion,
        table: &TableSchema,
        settled: i64,
        on_lost: OnLostTriggers,
    ) -> Result<(), Error> {
        let state = self.trigger_state(transaction, installed, table)?;
        if state == TriggerState::Current {
            return Ok(());
        }
        if state == TriggerState::Lost && on_lost == OnLostTriggers::Refuse {
            return Err(Error::CaptureLost { table: installed.version.layout.table.clone() });
        }
        let mut missed = installed.version.missed;
        let known = installed.version.uniques.as_ref();
        let is_watched = known.is_none_or(|known| table.unique_sets().is_subset(known));
        if !is_watched && self.wrote_more_than(transaction, installed.tid, settled, 0)? {
            missed.gone += 1;
        }
        self.retire(transaction, installed.tid)?;
        // Where the key has a collation of the application's own, rows cannot be found by key here.
        let rows_max = if table.has_foreign_key_collation() { 0 } else { ROWS_MAX };
        let is_wider = !installed.version.layout.has_columns_of(&table.layout);
        let are_many = is_wider && self.wrote_more_than(transaction, installed.tid, settled, rows_max)?;
        missed.changed += u32::from(are_many);
        let tid = self.install(transaction, table, missed)?;
        if !are_many {
            self.reread(transaction, installed, tid, table, settled)?;
        }
        Ok(())
    }

    fn trigger_state(&self, connection: &Connection, installed: &InstalledVersion, table: &TableSchema) -> Result<TriggerState, Error> {
        let (mut stored, mut is_current) = (Vec::new(), installed.version.layout == table.layout);
        let needed = trigger::triggers(self.names, installed.tid, table);
        for (name, sql) in &needed {
            let found: Option<String> = connection
                .query_row(
                    "SELECT sql FROM main.sqlite_schema WHERE type = 'trigger' AND name = ?1 AND tbl_name = ?2 COLLATE NOCASE",
                    [name.as_str(), &installed.version.layout.table],
                    |row| row.get(0),
                )
                .optional()
                .map_err(|source| self.failed("read the triggers", source))?;
            let Some(found) = found else { return Ok(TriggerState::Lost) };
            is_current &= found == *sql;
            stored.push(found);
        }
        let is_untouched = installed.version.triggers.is_none_or(|made| made == trigger_checksum(&stored));
        Ok(match (is_current, is_untouched) {
            (true, _) => TriggerState::Current,
            (false, true) => TriggerState::Outdated,
            (false, false) => TriggerState::Lost,
        })
    }

    /// Whether the log holds more than this many written rows of a version, from a number on.
    fn wrote_more_than(&self, transaction: &Transaction<'_>, tid: i64, settled: i64, rows: i64) -> Result<bool, Error> {
        let log = quoted(&self.names.log);
        let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{log} WHERE seq >= ?1 AND tid = ?2 AND op <> ?3 LIMIT 1 OFFSET ?4)");
        let failed = |source| self.failed("look for rows under an old definition", source);
        transaction.query_row(&sql, [settled, tid, operation::DELETE, rows], |row| row.get(0)).map_err(failed)
    }

    /// Logs again the rows that were written before the triggers knew a new column.
    fn reread(
        &self,
        transaction: &Transaction<'_>,
        old: &InstalledVersion,
        tid: i64,
        table: &TableSchema,
        settled: i64,
    ) -> Result<(), Error> {
        let (layout, known) = (&table.layout, &old.version.layout);
        if known.has_columns_of(layout) {
            return Ok(());
        }
        // Where the old version lacks a key column, its rows cannot be found by key.
        let mut key_columns = Vec::new();
        for column in layout.columns.iter().filter(|column| column.key) {
            let Some(index) = known.columns.iter().position(|known| known.name == column.name) else { return Ok(()) };
            key_columns.push((index, quoted(&column.name)));
        }
        let log = quoted(&self.names.log);
        let sql = format!(
            "INSERT INTO main.{log}(tid, op, at{}{}) SELECT {tid}, {}, {CLOCK}{}{}
             FROM (SELECT DISTINCT {} FROM main.{log} WHERE tid = {} AND seq >= ?1 AND op <> {}) AS l CROSS JOIN main.{} AS t ON {}",
            numbered("k", layout.key_len()),
            numbered("v", layout.columns.len()),
            operation::REREAD,
            of_row("t", layout.key_names()),
            of_row("t", layout.names()),
            key_columns.iter().map(|(index, _)| format!("v{index}")).collect::<Vec<_>>().join(", "),
            old.tid,
            operation::DELETE,
            quoted(&layout.table),
            key_columns.iter().map(|(index, name)| format!("t.{name} = l.v{index}")).collect::<Vec<_>>().join(" AND "),
        );
        transaction.execute(&sql, [settled]).map_err(|source| self.failed("read rows again after ADD COLUMN", source))?;
        Ok(())
    }
}
