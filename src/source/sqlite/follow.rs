//! Tables that change: whether the triggers are those that a table needs now, what may have gone unseen while they were not, and
//! which rows read otherwise since.

use crate::checkpoint::{self, Identity};
use crate::event::FeedId;
use crate::source::sqlite::capture::{Capture, Lost, has_table};
use crate::source::sqlite::history::History;
use crate::source::sqlite::schema::{self, Defined, Layout, Shape};
use crate::source::sqlite::sql::{numbered, of_row, quoted};
use crate::source::sqlite::token::LogPosition;
use crate::source::sqlite::trigger::{self, CLOCK, op};
use crate::source::sqlite::{Error, index};
use crate::source::{Renewed, Reread, TableChange};
use rusqlite::{Connection, OptionalExtension as _, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A version of a table whose triggers are in place.
pub(super) struct Active {
    pub(super) tid: i64,
    pub(super) version: Version,
}

/// What is kept of a version beside the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Version {
    #[serde(flatten)]
    pub(super) layout: Layout,
    /// The unique sets that its triggers watch; unknown of an old one.
    #[serde(default)]
    pub(super) uniques: Option<BTreeSet<String>>,
    /// What its triggers are, but for names, which SQLite changes in them.
    #[serde(default)]
    pub(super) triggers: Option<u32>,
    /// Whether rows of it may go without a trigger, so that its notes are looked through.
    #[serde(default)]
    pub(super) sweep: bool,
    /// How often rows may have gone unseen so far, so that the table was to be read again.
    #[serde(default)]
    pub(super) lapses: Lapses,
}

/// How often a table was to be read again for what its triggers did not log: durable here before anybody knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lapses {
    /// Rows may be gone.
    gone: u32,
    /// Rows may read otherwise.
    changed: u32,
}

/// What a checkpoint remembers of a table.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    columns: Vec<Defined>,
    #[serde(default)]
    lapses: Lapses,
}

impl Remembered {
    fn layout(&self) -> checkpoint::Layout {
        checkpoint::Layout(serde_json::to_string(self).expect("names and numbers are JSON").into())
    }

    /// Why the rows are to be read again that were sent while the table was as `before` says.
    fn reread(&self, before: &Self) -> Option<Reread> {
        if before.lapses.gone != self.lapses.gone {
            let reason = "a unique index was made and rows were written before the triggers knew it".to_owned();
            return Some(Reread { reset: true, reason });
        }
        let changed = |reason| Some(Reread { reset: false, reason });
        if before.lapses.changed != self.lapses.changed {
            return changed("many rows were written before the triggers knew a new column".to_owned());
        }
        let Some(added) = self.columns.strip_prefix(before.columns.as_slice()) else {
            return changed("its columns are others".to_owned());
        };
        let has_default = |column: &&Defined| column.default.as_ref().is_some_and(|default| !default.eq_ignore_ascii_case("null"));
        added.iter().find(has_default).and_then(|column| changed(format!("column `{}` was added with a default", column.name)))
    }
}

/// How the triggers of a table stand to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// They are those that it needs.
    InLine,
    /// They were left alone, and the table has changed.
    Behind,
    /// Some are gone, or somebody changed them: what they missed is unknown.
    Lost,
}

/// Reading rows again holds the write lock: a few milliseconds for these.
const ROWS_MAX: i64 = 500;

impl Capture<'_> {
    /// Brings the triggers in line with the tables as they are now. Rows that the log holds from `settled` on may have been
    /// written by triggers that did not know a new column or index. Writes only where something differs; whether it did.
    pub(super) fn follow(&self, connection: &mut Connection, settled: i64, lost: impl Fn(FeedId) -> Lost) -> Result<bool, Error> {
        let retired = self.unpublished(connection)?;
        let behind = self.behind(connection)?;
        if !retired.is_empty() {
            self.in_one(connection, |transaction| retired.iter().try_for_each(|tid| self.retire(transaction, *tid)))?;
        }
        self.renew(connection, &behind, settled, lost)?;
        Ok(!retired.is_empty() || !behind.is_empty())
    }

    /// Makes the triggers of these feeds anew, a table at a time: who writes meanwhile waits for no more than that.
    pub(super) fn renew(
        &self,
        connection: &mut Connection,
        feeds: &[FeedId],
        settled: i64,
        lost: impl Fn(FeedId) -> Lost,
    ) -> Result<(), Error> {
        for id in feeds {
            let feed = self.feeds.get(*id);
            self.in_one(connection, |transaction| {
                let shape = self.describe(transaction, feed)?;
                match self.actives(transaction)?.into_iter().find(|active| active.version.layout.table == feed.table) {
                    Some(active) => self.renew_one(transaction, &active, &shape, settled, lost(feed.id)),
                    None => self.install(transaction, &shape, Lapses::default()).map(drop),
                }
            })?;
        }
        Ok(())
    }

    /// How the tables look now, where that is not as they were seen last.
    pub(super) fn table_changes(
        &self,
        connection: &Connection,
        known: &mut [Option<checkpoint::Layout>],
    ) -> Result<Vec<TableChange>, Error> {
        let actives = self.actives(connection)?;
        let mut found = Vec::new();
        for feed in self.feeds.iter() {
            let active = actives.iter().find(|active| active.version.layout.table == feed.table);
            let lapses = active.map_or_else(Lapses::default, |active| active.version.lapses);
            let now = Remembered { columns: self.describe(connection, feed)?.definition, lapses };
            let Some(known) = known.get_mut(feed.id.index()) else { continue };
            let layout = now.layout();
            if known.as_ref() == Some(&layout) {
                continue;
            }
            let before = known.as_ref().and_then(|known| serde_json::from_str::<Remembered>(&known.0).ok());
            let reread = before.and_then(|before| now.reread(&before));
            *known = Some(layout.clone());
            found.push(TableChange { feed: feed.id, layout, reread });
        }
        Ok(found)
    }

    /// Where the log goes on after a gap, and of which feeds something is missing.
    pub(super) fn renewed(&self, connection: &mut Connection, known: &Identity, lost: LogPosition) -> Result<Renewed, Error> {
        let all = || self.feeds.iter().map(|feed| feed.id).collect();
        let history = History { connection, names: self.names, path: self.path };
        match history.check(known, lost) {
            Ok(head) => {
                let feeds = self.lost(connection)?;
                if feeds.is_empty() {
                    let place = LogPosition { next: head, last: history.before(head)?, ..lost };
                    return Ok(Renewed { token: place.token(), feeds: all() });
                }
                // Of the others nothing is missing.
                Ok(Renewed { token: lost.token(), feeds })
            }
            // What is missing may lie anywhere before the head.
            Err(Error::LogLost { .. }) => {
                let head = history.proved(1, None)?;
                let place = LogPosition { next: head, last: history.before(head)?, ..lost };
                Ok(Renewed { token: place.token(), feeds: all() })
            }
            Err(Error::Rewound { .. }) => {
                let place = self.in_one(connection, |transaction| {
                    History { connection: transaction, names: self.names, path: self.path }.begin_anew(lost)
                })?;
                Ok(Renewed { token: place.token(), feeds: all() })
            }
            Err(error) => Err(error),
        }
    }

    /// The feeds whose changes may have gone unseen.
    fn lost(&self, connection: &Connection) -> Result<Vec<FeedId>, Error> {
        let actives = self.actives(connection)?;
        let mut lost = Vec::new();
        for feed in self.feeds.iter() {
            let shape = self.describe(connection, feed)?;
            if let Some(active) = actives.iter().find(|active| active.version.layout.table == feed.table)
                && self.standing(connection, active, &shape)? == Standing::Lost
            {
                lost.push(feed.id);
            }
        }
        Ok(lost)
    }

    /// The feeds whose triggers are gone or are not ours any more, as a start would refuse them; `is_live` says which are
    /// published already.
    pub(super) fn refuse_lost(&self, connection: &Connection, is_live: impl Fn(FeedId) -> bool) -> Result<(), Error> {
        let lost = self.lost(connection)?.into_iter().find(|feed| is_live(*feed));
        lost.map_or(Ok(()), |feed| Err(Error::CaptureLost { table: self.feeds.get(feed).table.clone() }))
    }

    /// Versions of tables that are no longer published.
    fn unpublished(&self, connection: &Connection) -> Result<Vec<i64>, Error> {
        let is_published = |active: &Active| self.feeds.of_table(schema::SCHEMA, &active.version.layout.table).is_some();
        Ok(self.actives(connection)?.iter().filter(|active| !is_published(active)).map(|active| active.tid).collect())
    }

    /// The feeds whose triggers are not those that their tables need.
    fn behind(&self, connection: &Connection) -> Result<Vec<FeedId>, Error> {
        let actives = self.actives(connection)?;
        let mut behind = Vec::new();
        for feed in self.feeds.iter() {
            let shape = self.describe(connection, feed)?;
            let active = actives.iter().find(|active| active.version.layout.table == feed.table);
            let is_in_line = match active {
                Some(active) => self.standing(connection, active, &shape)? == Standing::InLine,
                None => false,
            };
            if !is_in_line {
                behind.push(feed.id);
            }
        }
        Ok(behind)
    }

    fn renew_one(&self, transaction: &Transaction<'_>, active: &Active, shape: &Shape, settled: i64, lost: Lost) -> Result<(), Error> {
        let standing = self.standing(transaction, active, shape)?;
        if standing == Standing::InLine {
            return Ok(());
        }
        if standing == Standing::Lost && lost == Lost::Refuse {
            return Err(Error::CaptureLost { table: active.version.layout.table.clone() });
        }
        let mut lapses = active.version.lapses;
        let known = active.version.uniques.as_ref();
        let is_watched = known.is_none_or(|known| shape.unique_sets().is_subset(known));
        if !is_watched && self.wrote_more_than(transaction, active.tid, settled, 0)? {
            lapses.gone += 1;
        }
        self.retire(transaction, active.tid)?;
        // Where the key is compared by the application's own collation, rows cannot be found by it here.
        let is_foreign = shape.key.terms.iter().any(|term| schema::is_foreign(&term.collation));
        let is_wider = !has_all(&active.version.layout, &shape.layout);
        let many = is_wider && self.wrote_more_than(transaction, active.tid, settled, if is_foreign { 0 } else { ROWS_MAX })?;
        lapses.changed += u32::from(many);
        let tid = self.install(transaction, shape, lapses)?;
        if !many {
            self.reread(transaction, active, tid, shape, settled)?;
        }
        Ok(())
    }

    pub(super) fn actives(&self, connection: &Connection) -> Result<Vec<Active>, Error> {
        if !has_table(connection, &self.names.tables).map_err(|source| self.failed("read the captured tables", source))? {
            return Ok(Vec::new());
        }
        let failed = |source| self.failed("read the captured tables", source);
        let sql = format!("SELECT tid, layout FROM main.{} WHERE active ORDER BY tid", quoted(&self.names.tables));
        let mut statement = connection.prepare(&sql).map_err(failed)?;
        let rows: Vec<(i64, String)> =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect).map_err(failed)?;
        let parsed = rows.into_iter().map(|(tid, text)| {
            let version = serde_json::from_str(&text);
            version
                .map(|version| Active { tid, version })
                .map_err(|_| Error::Malformed { what: format!("the description of table version {tid}") })
        });
        parsed.collect()
    }

    fn standing(&self, connection: &Connection, active: &Active, shape: &Shape) -> Result<Standing, Error> {
        let (mut found, mut is_in_line) = (Vec::new(), active.version.layout == shape.layout);
        let needed = trigger::triggers(self.names, active.tid, shape);
        for (name, sql) in &needed {
            let there: Option<String> = connection
                .query_row(
                    "SELECT sql FROM main.sqlite_schema WHERE type = 'trigger' AND name = ?1 AND tbl_name = ?2 COLLATE NOCASE",
                    [name.as_str(), &active.version.layout.table],
                    |row| row.get(0),
                )
                .optional()
                .map_err(|source| self.failed("read the triggers", source))?;
            let Some(there) = there else { return Ok(Standing::Lost) };
            is_in_line &= there == *sql;
            found.push(there);
        }
        let is_ours = active.version.triggers.is_none_or(|made| made == likeness(&found));
        Ok(match (is_in_line, is_ours) {
            (true, _) => Standing::InLine,
            (false, true) => Standing::Behind,
            (false, false) => Standing::Lost,
        })
    }

    /// Whether more than so many rows of a version were written, from a number on.
    fn wrote_more_than(&self, transaction: &Transaction<'_>, tid: i64, settled: i64, rows: i64) -> Result<bool, Error> {
        let log = quoted(&self.names.log);
        let sql = format!("SELECT EXISTS (SELECT 1 FROM main.{log} WHERE seq >= ?1 AND tid = ?2 AND op <> ?3 LIMIT 1 OFFSET ?4)");
        let failed = |source| self.failed("look for rows under an old definition", source);
        transaction.query_row(&sql, [settled, tid, op::DELETE, rows], |row| row.get(0)).map_err(failed)
    }

    /// Logs anew the rows that were written before the triggers knew a new column.
    fn reread(&self, transaction: &Transaction<'_>, old: &Active, tid: i64, shape: &Shape, settled: i64) -> Result<(), Error> {
        let (layout, known) = (&shape.layout, &old.version.layout);
        if has_all(known, layout) {
            return Ok(());
        }
        // Where the old version lacks a key column, its rows cannot be found again by key.
        let mut places = Vec::new();
        for column in layout.columns.iter().filter(|column| column.key) {
            let Some(place) = known.columns.iter().position(|known| known.name == column.name) else { return Ok(()) };
            places.push((place, quoted(&column.name)));
        }
        let log = quoted(&self.names.log);
        let sql = format!(
            "INSERT INTO main.{log}(tid, op, at{}{}) SELECT {tid}, {}, {CLOCK}{}{}
             FROM (SELECT DISTINCT {} FROM main.{log} WHERE tid = {} AND seq >= ?1 AND op <> {}) AS l CROSS JOIN main.{} AS t ON {}",
            numbered("k", layout.key_len()),
            numbered("v", layout.columns.len()),
            op::REREAD,
            of_row("t", layout.key_names()),
            of_row("t", layout.names()),
            places.iter().map(|(place, _)| format!("v{place}")).collect::<Vec<_>>().join(", "),
            old.tid,
            op::DELETE,
            quoted(&layout.table),
            places.iter().map(|(place, name)| format!("t.{name} = l.v{place}")).collect::<Vec<_>>().join(" AND "),
        );
        transaction.execute(&sql, [settled]).map_err(|source| self.failed("read rows again after ADD COLUMN", source))?;
        Ok(())
    }
}

impl Version {
    pub(super) fn new(shape: &Shape, triggers: &[(String, String)], lapses: Lapses) -> Self {
        let texts: Vec<_> = triggers.iter().map(|(_, sql)| sql.clone()).collect();
        // A row is looked for by its key as the column itself is compared, by SQLite's own means.
        let sweep = shape.cascades && shape.key.terms.iter().all(|term| term.by_default && !schema::is_foreign(&term.collation));
        Self { layout: shape.layout.clone(), uniques: Some(shape.unique_sets()), triggers: Some(likeness(&texts)), sweep, lapses }
    }
}

/// Whether a version knows all columns of a table.
fn has_all(known: &Layout, layout: &Layout) -> bool {
    layout.columns.iter().all(|column| known.columns.iter().any(|known| known.name == column.name))
}

/// What triggers say, but for names: RENAME changes those in them, and nothing else does.
fn likeness(triggers: &[String]) -> u32 {
    triggers.iter().fold(0, |checksum, sql| crc32c::crc32c_append(checksum, index::signs(sql).as_bytes()))
}
