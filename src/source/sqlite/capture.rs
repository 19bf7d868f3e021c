//! The change log and its triggers: made, verified, followed through changes of tables, and removed.

use crate::fault::Code;
use crate::feed::{Feed, Feeds};
use crate::preflight::Warning;
use crate::source::sqlite::follow::{Lapses, Version};
use crate::source::sqlite::history::History;
use crate::source::sqlite::identity::{self, Origin};
use crate::source::sqlite::schema::{self, Layout, Shape, Unique};
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::LogPosition;
use crate::source::sqlite::trial::Trial;
use crate::source::sqlite::trigger::{self, FIXED_COLUMNS, op};
use crate::source::sqlite::{Error, error, index, scan};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
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

    /// Whether a name begins as those of ours do.
    pub(super) fn is_ours(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
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

impl Capture<'_> {
    /// Makes what is missing, and returns where the log begins. What is there is taken over.
    pub(super) fn establish(&self, connection: &mut Connection) -> Result<LogPosition, Error> {
        let place = self.in_one(connection, |transaction| {
            self.make_log(transaction)?;
            let history = History { connection: transaction, names: self.names, path: self.path };
            let next = identity::head(transaction, self.names).map_err(|source| self.failed("read the log's head", source))?;
            Ok(LogPosition { epoch: history.origin()?.epoch, next, last: history.before(next)? })
        })?;
        // What these log before all are there lies behind the place.
        self.follow(connection, i64::MAX, |_| Lost::Renew)?;
        Ok(place)
    }

    /// Checks that each feed's table can be captured, changing nothing.
    pub(super) fn verify(&self, connection: &Connection) -> Vec<Error> {
        let mut trial = match Trial::new(*self, connection) {
            Ok(trial) => trial,
            Err(error) => return vec![error],
        };
        let mut check = |feed| {
            let shape = self.describe(connection, feed)?;
            check_width(&shape)?;
            connection
                .prepare(&scan::select(&shape, true))
                .map_err(|source| self.failed("read a table in the order of its key", source))?;
            trial.install(feed)
        };
        self.feeds.iter().filter_map(|feed| check(feed).err()).collect()
    }

    /// Triggers of the application's that may keep changes from the log.
    pub(super) fn warnings(&self, connection: &Connection) -> Result<Vec<Warning>, Error> {
        let failed = |source| self.failed("read the application's triggers", source);
        let mut statement = connection
            .prepare("SELECT tbl_name, name, sql FROM main.sqlite_schema WHERE type = 'trigger' ORDER BY name")
            .map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let text = |index: usize| row.get_ref(index).ok().and_then(|value| value.as_str().ok()).unwrap_or_default();
            let (table, name) = (text(0), text(1));
            if self.feeds.iter().any(|feed| feed.table.eq_ignore_ascii_case(table)) && index::ignores_after(text(2)) {
                let message = format!(
                    "trigger `{name}` on table `{table}` says RAISE(IGNORE) after the row is written, which may skip feedline's: such a change is missing from the log; use RAISE(ABORT), or a BEFORE trigger"
                );
                found.push(Warning { code: Code::SqliteUnseen, message });
            }
        }
        Ok(found)
    }

    /// Removes triggers and tables; says what was removed.
    pub(super) fn detach(&self, connection: &mut Connection) -> Result<Vec<String>, Error> {
        self.in_one(connection, |transaction| {
            let failed = |source| self.failed("remove the change log", source);
            let mut removed = Vec::new();
            for name in self.our_triggers(transaction).map_err(failed)? {
                transaction.execute_batch(&format!("DROP TRIGGER main.{}", quoted(&name))).map_err(failed)?;
                removed.push(format!("removed trigger {name}"));
            }
            for name in self.names.all_tables() {
                if has_table(transaction, name).map_err(failed)? {
                    transaction.execute_batch(&format!("DROP TABLE main.{}", quoted(name))).map_err(failed)?;
                    removed.push(format!("removed table {name}"));
                }
            }
            Ok(removed)
        })
    }

    pub(super) fn failed(&self, action: &'static str, source: rusqlite::Error) -> Error {
        error::Error::sqlite(action, self.path, source)
    }

    pub(super) fn in_one<T>(
        &self,
        connection: &mut Connection,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = begun.map_err(|source| self.failed("begin a transaction", source))?;
        let done = work(&transaction)?;
        transaction.commit().map_err(|source| self.failed("commit the change log's definition", source))?;
        Ok(done)
    }

    pub(super) fn make_log(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
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

    pub(super) fn describe(&self, connection: &Connection, feed: &Feed) -> Result<Shape, Error> {
        schema::describe(connection, self.path, feed)
    }

    fn our_triggers(&self, connection: &Connection) -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'trigger' ORDER BY name")?;
        let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(names.into_iter().filter(|name| self.names.owns(name)).collect())
    }

    pub(super) fn retire(&self, transaction: &Transaction<'_>, tid: i64) -> Result<(), Error> {
        let failed = |source| self.failed("remove triggers", source);
        for name in trigger::names(self.names, tid) {
            transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS main.{}", quoted(&name))).map_err(failed)?;
        }
        let sql = format!("UPDATE main.{} SET active = 0 WHERE tid = ?1", quoted(&self.names.tables));
        transaction.execute(&sql, [tid]).map_err(failed)?;
        Ok(())
    }

    /// Makes the log wide enough, writes down what a row will hold, and creates the triggers.
    pub(super) fn install(&self, transaction: &Transaction<'_>, shape: &Shape, lapses: Lapses) -> Result<i64, Error> {
        let failed = |source| self.failed("make triggers", source);
        check_width(shape)?;
        widen(transaction, &self.names.log, 'k', shape.layout.key_len()).map_err(failed)?;
        widen(transaction, &self.names.log, 'v', shape.layout.columns.len()).map_err(failed)?;
        widen(transaction, &self.names.notes, 'k', shape.layout.key_len()).map_err(failed)?;
        let tables = quoted(&self.names.tables);
        transaction.execute(&format!("INSERT INTO main.{tables}(active) VALUES (1)"), []).map_err(failed)?;
        let tid = transaction.last_insert_rowid();
        let triggers = trigger::triggers(self.names, tid, shape);
        let version = serde_json::to_string(&Version::new(shape, &triggers, lapses)).expect("names and flags are JSON");
        let sql = format!("UPDATE main.{tables} SET layout = ?1 WHERE tid = ?2");
        transaction.execute(&sql, params![version, tid]).map_err(failed)?;
        // Compiling each kind of statement compiles the triggers: an error in one would break the application's writes. Where the
        // table needs what only the application has, a function or a module, nothing can be compiled here, now or before.
        let table = quoted(&shape.layout.table);
        let first = quoted(shape.layout.key_names().next().unwrap_or_default());
        let mut statements = vec![
            format!("EXPLAIN INSERT INTO main.{table}({first}) VALUES (NULL)"),
            format!("EXPLAIN UPDATE main.{table} SET {first} = {first}"),
            format!("EXPLAIN DELETE FROM main.{table}"),
        ];
        statements.retain(|statement| transaction.prepare(statement).is_ok());
        for (_, sql) in triggers {
            transaction.execute_batch(&sql).map_err(failed)?;
        }
        let is_computed = shape.others.iter().any(Unique::is_computed);
        for statement in statements {
            match transaction.prepare(&statement) {
                // An index's expression is in the triggers too; who writes to that index has its function.
                Err(error) if is_computed && error.to_string().contains(" function: ") => {}
                prepared => drop(prepared.map_err(failed)?),
            }
        }
        Ok(tid)
    }
}

pub(super) fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
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
