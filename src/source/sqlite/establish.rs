//! Makes the change log and its triggers, checks before that they can be made, and removes them.

use crate::fault::Code;
use crate::preflight::Warning;
use crate::source::sqlite::capture::{Capture, OnLostTriggers, has_table};
use crate::source::sqlite::error::Error;
use crate::source::sqlite::identity::{self, Origin};
use crate::source::sqlite::install::check_width;
use crate::source::sqlite::parse;
use crate::source::sqlite::scan;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::token::LogPosition;
use crate::source::sqlite::trial::Trial;
use rusqlite::Connection;

impl Capture<'_> {
    /// Makes what is missing, keeps what is there, and returns where the log begins.
    pub(super) fn establish(&self, connection: &mut Connection) -> Result<LogPosition, Error> {
        let position = self.in_transaction(connection, |transaction| {
            self.make_log(transaction)?;
            let history = self.history(transaction);
            let next = identity::head(transaction, self.names).map_err(|source| self.failed("read the log's head", source))?;
            Ok(LogPosition { epoch: history.origin()?.epoch, next, last: history.before(next)? })
        })?;
        // Triggers are made one table at a time. What the first ones log before the last one is made lies behind the position.
        self.follow(connection, i64::MAX, |_| OnLostTriggers::Reinstall)?;
        Ok(position)
    }

    /// Checks that each feed's table can be captured. Changes nothing.
    pub(super) fn verify(&self, connection: &Connection) -> Vec<Error> {
        let mut trial = match Trial::new(*self, connection) {
            Ok(trial) => trial,
            Err(error) => return vec![error],
        };
        let mut check = |feed| {
            let table = self.describe(connection, feed)?;
            check_width(&table)?;
            connection
                .prepare(&scan::select(&table, true))
                .map_err(|source| self.failed("read a table in the order of its key", source))?;
            trial.install(feed)
        };
        self.feeds.iter().filter_map(|feed| check(feed).err()).collect()
    }

    /// What a start would do, for a person.
    pub(super) fn action(&self, connection: &Connection) -> Result<String, Error> {
        let (log, tables) = (&self.names.log, self.feeds.len());
        let tables = if tables == 1 { "1 table".to_owned() } else { format!("{tables} tables") };
        Ok(match Origin::read(connection, self.names, self.path)? {
            Some(_) => format!("read from the change log {log}, and keep its triggers on {tables}"),
            None => format!("make the change log {log}, and triggers on {tables} that write to it"),
        })
    }

    /// Warns of the application's triggers that may keep changes out of the log.
    pub(super) fn warnings(&self, connection: &Connection) -> Result<Vec<Warning>, Error> {
        let failed = |source| self.failed("read the application's triggers", source);
        let mut statement = connection
            .prepare("SELECT tbl_name, name, sql FROM main.sqlite_schema WHERE type = 'trigger' ORDER BY name")
            .map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut warnings = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let text = |index: usize| row.get_ref(index).ok().and_then(|value| value.as_str().ok()).unwrap_or_default();
            let (table, name) = (text(0), text(1));
            if self.feeds.iter().any(|feed| feed.table.eq_ignore_ascii_case(table)) && parse::skips_later_triggers(text(2)) {
                let message = format!(
                    "RAISE(IGNORE) in AFTER trigger `{name}` of table `{table}` may keep changes out of the log; use RAISE(ABORT), or a BEFORE trigger"
                );
                warnings.push(Warning { code: Code::SqliteUnseen, message });
            }
        }
        Ok(warnings)
    }

    /// Removes triggers and tables. Returns a line for each.
    pub(super) fn detach(&self, connection: &mut Connection) -> Result<Vec<String>, Error> {
        self.in_transaction(connection, |transaction| {
            let failed = |source| self.failed("remove the change log", source);
            let mut removed = Vec::new();
            for name in self.own_triggers(transaction).map_err(failed)? {
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

    fn own_triggers(&self, connection: &Connection) -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'trigger' ORDER BY name")?;
        let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(names.into_iter().filter(|name| self.names.is_own_trigger(name)).collect())
    }
}
