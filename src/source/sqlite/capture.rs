//! The change log and its triggers: made, verified, followed through changes of tables, and removed.

use crate::change::FeedId;
use crate::feed::{Feed, Feeds};
use crate::source::sqlite::identity::{self, Origin};
use crate::source::sqlite::schema::{self, Layout, Shape};
use crate::source::sqlite::sql::{numbered, of_row, quoted};
use crate::source::sqlite::token::Place;
use crate::source::sqlite::trigger::{self, CLOCK, FIXED_COLUMNS, op};
use crate::source::sqlite::{Error, error};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use std::collections::HashSet;
use std::path::Path;

/// The most columns that a table may have in a SQLite built with its defaults (`limits.html`, 2), as the writers' are.
const COLUMNS_MAX: usize = 2000;

/// Names of all that a pipeline makes in a database.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    pub(super) log: String,
    pub(super) notes: String,
    pub(super) tables: String,
    pub(super) meta: String,
}

impl Names {
    pub(super) fn new(pipeline: &str) -> Self {
        let prefix = format!("_feedline_{pipeline}_");
        let name = |suffix: &str| format!("{prefix}{suffix}");
        Self { log: name("log"), notes: name("notes"), tables: name("tables"), meta: name("meta"), prefix }
    }

    /// The name of a trigger on the version `tid` of a table.
    pub(super) fn trigger(&self, tid: i64, kind: char) -> String {
        format!("{}{tid}_{kind}", self.prefix)
    }

    fn all_tables(&self) -> [&str; 4] {
        [&self.log, &self.notes, &self.tables, &self.meta]
    }

    /// Whether a trigger is one of ours, and not of a pipeline whose name begins with this one's.
    fn owns(&self, trigger: &str) -> bool {
        let parts = trigger.strip_prefix(&self.prefix).and_then(|rest| rest.split_once('_'));
        parts.is_some_and(|(tid, kind)| !tid.is_empty() && tid.bytes().all(|byte| byte.is_ascii_digit()) && kind.len() == 1)
    }
}

/// What to do where the triggers of a captured table are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Changes since are unknown: a gap.
    Refuse,
    /// The table's rows are read after this anyway.
    Renew,
}

/// The log and triggers of one pipeline in one database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capture<'a> {
    pub(super) names: &'a Names,
    pub(super) feeds: &'a Feeds,
    pub(super) path: &'a Path,
}

/// A version of a table whose triggers are in place.
struct Active {
    tid: i64,
    layout: Layout,
}

impl Capture<'_> {
    /// Makes what is missing, in one transaction, and returns where the log begins. What is there is taken over.
    pub(super) fn establish(&self, connection: &mut Connection) -> Result<Place, Error> {
        self.in_one(connection, |transaction| {
            self.make_log(transaction)?;
            self.renew(transaction, i64::MAX, |_| Lost::Renew)?;
            let origin = Origin::read(transaction, self.names, self.path)?
                .ok_or_else(|| Error::Malformed { what: format!("table `{}`", self.names.meta) })?;
            let next = identity::head(transaction, self.names).map_err(|source| self.failed("read the log's head", source))?;
            Ok(Place { epoch: origin.epoch, next })
        })
    }

    /// Brings the triggers in line with the tables as they are now. Rows that the log holds from `settled` on may have been
    /// written by triggers that did not know a new column: they are read again. Writes only where something differs.
    pub(super) fn follow(&self, connection: &mut Connection, settled: i64, lost: impl Fn(FeedId) -> Lost) -> Result<bool, Error> {
        if self.is_in_line(connection)? {
            return Ok(false);
        }
        self.in_one(connection, |transaction| self.renew(transaction, settled, &lost))?;
        Ok(true)
    }

    /// Checks that each feed's table can be captured, changing nothing.
    pub(super) fn verify(&self, connection: &Connection) -> Vec<Error> {
        let check = |feed| self.describe(connection, feed).and_then(|shape| check_width(&shape));
        self.feeds.iter().filter_map(|feed| check(feed).err()).collect()
    }

    /// Removes triggers and tables; says what was removed.
    pub(super) fn detach(&self, connection: &mut Connection) -> Result<Vec<String>, Error> {
        self.in_one(connection, |transaction| {
            let failed = |source| self.failed("remove the change log", source);
            let mut removed = Vec::new();
            for name in self.our_triggers(transaction).map_err(failed)? {
                transaction.execute_batch(&format!("DROP TRIGGER main.{}", quoted(&name))).map_err(failed)?;
                removed.push(format!("trigger {name}"));
            }
            for name in self.names.all_tables() {
                if has_table(transaction, name).map_err(failed)? {
                    transaction.execute_batch(&format!("DROP TABLE main.{}", quoted(name))).map_err(failed)?;
                    removed.push(format!("table {name}"));
                }
            }
            Ok(removed)
        })
    }

    fn failed(&self, action: &'static str, source: rusqlite::Error) -> Error {
        error::Error::sqlite(action, self.path, source)
    }

    fn in_one<T>(&self, connection: &mut Connection, work: impl FnOnce(&Transaction<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(|source| self.failed("begin a transaction", source))?;
        let done = work(&transaction)?;
        transaction.commit().map_err(|source| self.failed("commit the change log's definition", source))?;
        Ok(done)
    }

    fn make_log(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let failed = |source| self.failed("make the change log", source);
        if Origin::read(transaction, self.names, self.path)?.is_some() {
            return Ok(());
        }
        let [log, notes, tables, meta] = self.names.all_tables().map(quoted);
        let index = |suffix: &str| quoted(&format!("{}_{suffix}", self.names.notes));
        let sql = format!(
            "CREATE TABLE main.{meta}(epoch INTEGER, uuid TEXT, trimmed INTEGER);
             INSERT INTO {meta} VALUES (CAST(strftime('%s', 'now') AS INTEGER), lower(hex(randomblob(16))), 0);
             CREATE TABLE main.{tables}(tid INTEGER PRIMARY KEY AUTOINCREMENT, layout TEXT, active INTEGER);
             CREATE TABLE main.{notes}(u TEXT, w TEXT, gone INTEGER, k0);
             CREATE INDEX main.{} ON {notes}(u);
             CREATE INDEX main.{} ON {notes}(w);
             CREATE TABLE main.{log}(seq INTEGER PRIMARY KEY AUTOINCREMENT, tid INTEGER, op INTEGER, at INTEGER, k0, v0);",
            index("u"),
            index("w"),
        );
        transaction.execute_batch(&sql).map_err(failed)
    }

    fn describe(&self, connection: &Connection, feed: &Feed) -> Result<Shape, Error> {
        schema::describe(connection, self.path, feed)
    }

    fn is_in_line(&self, connection: &Connection) -> Result<bool, Error> {
        let actives = self.actives(connection)?;
        if actives.iter().any(|active| self.feeds.of_table(schema::SCHEMA, &active.layout.table).is_none()) {
            return Ok(false);
        }
        for feed in self.feeds.iter() {
            let shape = self.describe(connection, feed)?;
            let Some(active) = actives.iter().find(|active| active.layout.table == feed.table) else { return Ok(false) };
            if active.layout != shape.layout || !self.has_triggers(connection, active, &shape)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn renew(&self, transaction: &Transaction<'_>, settled: i64, lost: impl Fn(FeedId) -> Lost) -> Result<(), Error> {
        for active in self.actives(transaction)? {
            if self.feeds.of_table(schema::SCHEMA, &active.layout.table).is_none() {
                self.retire(transaction, &active)?;
            }
        }
        for feed in self.feeds.iter() {
            let shape = self.describe(transaction, feed)?;
            let active = self.actives(transaction)?.into_iter().find(|active| active.layout.table == feed.table);
            if let Some(active) = &active {
                if active.layout == shape.layout && self.has_triggers(transaction, active, &shape)? {
                    continue;
                }
                if lost(feed.id) == Lost::Refuse && !self.is_watched(transaction, active)? {
                    return Err(Error::CaptureLost { table: feed.table.clone() });
                }
                self.retire(transaction, active)?;
            }
            let tid = self.install(transaction, &shape)?;
            if let Some(active) = active {
                self.reread(transaction, &active, tid, &shape, settled)?;
            }
        }
        Ok(())
    }

    fn actives(&self, connection: &Connection) -> Result<Vec<Active>, Error> {
        let failed = |source| self.failed("read the captured tables", source);
        let sql = format!("SELECT tid, layout FROM main.{} WHERE active ORDER BY tid", quoted(&self.names.tables));
        let mut statement = connection.prepare(&sql).map_err(failed)?;
        let rows: Vec<(i64, String)> =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect).map_err(failed)?;
        rows.into_iter().map(|(tid, text)| Ok(Active { tid, layout: parse_layout(tid, &text)? })).collect()
    }

    fn our_triggers(&self, connection: &Connection) -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'trigger' ORDER BY name")?;
        let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(names.into_iter().filter(|name| self.names.owns(name)).collect())
    }

    /// Whether the triggers are exactly those that the table needs now.
    fn has_triggers(&self, connection: &Connection, active: &Active, shape: &Shape) -> Result<bool, Error> {
        for (name, sql) in trigger::triggers(self.names, active.tid, shape) {
            let found: Option<String> = connection
                .query_row("SELECT sql FROM main.sqlite_schema WHERE type = 'trigger' AND name = ?1", [&name], |row| row.get(0))
                .optional()
                .map_err(|source| self.failed("read the triggers", source))?;
            if found.as_deref() != Some(&sql) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether all its triggers are there and on the table of that name, whatever they say: none of its changes went unseen.
    fn is_watched(&self, connection: &Connection, active: &Active) -> Result<bool, Error> {
        let failed = |source| self.failed("read the triggers", source);
        let mut statement = connection
            .prepare("SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE")
            .map_err(failed)?;
        let found: HashSet<String> =
            statement.query_map([active.layout.table.as_ref()], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
        Ok(trigger::names(self.names, active.tid).all(|name| found.contains(&name)))
    }

    fn retire(&self, transaction: &Transaction<'_>, active: &Active) -> Result<(), Error> {
        let failed = |source| self.failed("remove triggers", source);
        for name in trigger::names(self.names, active.tid) {
            transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS main.{}", quoted(&name))).map_err(failed)?;
        }
        let sql = format!("UPDATE main.{} SET active = 0 WHERE tid = ?1", quoted(&self.names.tables));
        transaction.execute(&sql, [active.tid]).map_err(failed)?;
        Ok(())
    }

    /// Makes the log wide enough, writes down what a row will hold, and creates the triggers.
    fn install(&self, transaction: &Transaction<'_>, shape: &Shape) -> Result<i64, Error> {
        let failed = |source| self.failed("make triggers", source);
        check_width(shape)?;
        widen(transaction, &self.names.log, 'k', shape.layout.key_len()).map_err(failed)?;
        widen(transaction, &self.names.log, 'v', shape.layout.columns.len()).map_err(failed)?;
        widen(transaction, &self.names.notes, 'k', shape.layout.key_len()).map_err(failed)?;
        let layout = serde_json::to_string(&shape.layout).expect("names and flags are JSON");
        let sql = format!("INSERT INTO main.{}(layout, active) VALUES (?1, 1)", quoted(&self.names.tables));
        transaction.execute(&sql, params![layout]).map_err(failed)?;
        let tid = transaction.last_insert_rowid();
        for (_, sql) in trigger::triggers(self.names, tid, shape) {
            transaction.execute_batch(&sql).map_err(failed)?;
        }
        // Compiling each kind of statement compiles the triggers: an error in one would break the application's writes.
        let table = quoted(&shape.layout.table);
        let first = quoted(shape.layout.key_names().next().unwrap_or_default());
        for statement in [
            format!("EXPLAIN INSERT INTO main.{table}({first}) VALUES (NULL)"),
            format!("EXPLAIN UPDATE main.{table} SET {first} = {first}"),
            format!("EXPLAIN DELETE FROM main.{table}"),
        ] {
            transaction.prepare(&statement).map_err(failed)?;
        }
        Ok(tid)
    }

    /// Logs anew the rows that were written before the triggers knew a new column.
    fn reread(&self, transaction: &Transaction<'_>, old: &Active, tid: i64, shape: &Shape, settled: i64) -> Result<(), Error> {
        let layout = &shape.layout;
        if layout.columns.iter().all(|column| old.layout.columns.iter().any(|known| known.name == column.name)) {
            return Ok(());
        }
        // Where the old version lacks a key column, its rows cannot be found again by key.
        let mut places = Vec::new();
        for column in layout.columns.iter().filter(|column| column.key) {
            let Some(place) = old.layout.columns.iter().position(|known| known.name == column.name) else { return Ok(()) };
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

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1)", [name], |row| row.get(0))
}

fn check_width(shape: &Shape) -> Result<(), Error> {
    let max = COLUMNS_MAX - FIXED_COLUMNS;
    let columns = shape.layout.columns.len() + shape.layout.key_len();
    if max < columns {
        return Err(Error::TooWide { table: shape.layout.table.clone(), columns, max });
    }
    Ok(())
}

fn widen(transaction: &Transaction<'_>, table: &str, letter: char, count: usize) -> rusqlite::Result<()> {
    for index in width(transaction, table, letter)?..count {
        transaction.execute_batch(&format!("ALTER TABLE main.{} ADD COLUMN {letter}{index}", quoted(table)))?;
    }
    Ok(())
}

/// How many numbered columns of a letter a table of ours has.
pub(super) fn width(connection: &Connection, table: &str, letter: char) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM pragma_table_info(?1, 'main') WHERE name GLOB ?2")?;
    let count: i64 = statement.query_row(params![table, format!("{letter}[0-9]*")], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Reads what [`Capture::install`] wrote down.
pub(super) fn parse_layout(tid: i64, text: &str) -> Result<Layout, Error> {
    serde_json::from_str(text).map_err(|_| Error::Malformed { what: format!("the description of table version {tid}") })
}

/// Which values a log row of an operation holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holds {
    pub(super) old_key: bool,
    pub(super) values: bool,
}

/// What rows of an operation hold; `None` for an unknown operation.
pub(super) const fn holds(operation: i64) -> Option<Holds> {
    match operation {
        op::INSERT => Some(Holds { old_key: false, values: true }),
        op::DELETE => Some(Holds { old_key: true, values: false }),
        op::REPLACE | op::UPDATE | op::REREAD => Some(Holds { old_key: true, values: true }),
        _ => None,
    }
}
