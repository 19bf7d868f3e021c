//! The triggers that write the change log. They are SQL that runs in the writer's process, SQLite and transaction.
//!
//! An error in a trigger would break the application's write. So they use only functions that every SQLite version has, no constraint that
//! can be violated, and no JSON.
//!
//! `INSERT OR REPLACE` deletes rows without running delete triggers, unless the writer has set `recursive_triggers`. Therefore a BEFORE
//! trigger notes the rows that the new row may replace, for each unique set. The AFTER trigger logs a delete for each noted row that is
//! gone. Logging deletes in the BEFORE trigger would invent deletes for INSERT OR IGNORE, DO NOTHING and UPSERT. A note is found by the
//! new row's own values, so that triggers and foreign keys may write to the table in between.
//!
//! With `recursive_triggers` on, the delete trigger has logged the delete; it says so in the note. An update may delete rows and leave no
//! row of its own: what it deleted is found later by the notes, see `sweep`.

use crate::source::sqlite::names::Names;
use crate::source::sqlite::operation;
use crate::source::sqlite::sql::{numbered, of_row, quoted};
use crate::source::sqlite::table::{TableSchema, TermValue};
use std::fmt::Write as _;

mod expression;

use expression::{Cause, TriggerSql};

/// How many columns the log has beside keys and values.
pub(super) const FIXED_COLUMNS: usize = 4;

/// The writer's clock in microseconds. SQLite's resolution is a millisecond; `unixepoch('subsec')` exists since 3.42 only.
pub(super) const CLOCK: &str = "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000";

/// The last letter of each trigger's name: before insert, after insert, before update, after update, after delete.
const KINDS: [char; 5] = ['b', 'i', 'c', 'u', 'd'];

/// The names of the triggers on the version `tid` of a table.
pub(super) fn names(names: &Names, tid: i64) -> impl Iterator<Item = String> {
    KINDS.into_iter().map(move |kind| names.trigger(tid, kind))
}

/// The name and the SQL of each trigger on a table, as SQLite stores them.
pub(super) fn triggers(names: &Names, tid: i64, table: &TableSchema) -> Vec<(String, String)> {
    let writer = TriggerSql { names, tid, table };
    KINDS
        .into_iter()
        .map(|kind| {
            let name = names.trigger(tid, kind);
            let (event, body) = match kind {
                'b' => ("BEFORE INSERT".to_owned(), writer.note(Cause::Insert)),
                'i' => ("AFTER INSERT".to_owned(), writer.inserted()),
                'c' => ("BEFORE UPDATE".to_owned(), writer.note(Cause::Update)),
                'u' => ("AFTER UPDATE".to_owned(), writer.updated()),
                _ => ("AFTER DELETE".to_owned(), writer.deleted()),
            };
            let when = if kind == 'c' { format!(" WHEN {}", writer.may_conflict()) } else { String::new() };
            let on = quoted(&table.layout.table);
            let sql = format!("CREATE TRIGGER {} {event} ON {on} FOR EACH ROW{when} BEGIN\n{body}END", quoted(&name));
            (name, sql)
        })
        .collect()
}

impl TriggerSql<'_> {
    /// Deletes the notes of this statement's row.
    fn forget(&self, cause: Cause) -> String {
        format!("  DELETE FROM {} WHERE u IN ({});\n", quoted(&self.names.notes), self.note_names(cause))
    }

    /// Notes the rows that equal the new one in a unique set.
    fn note(&self, cause: Cause) -> String {
        let mut sql = match cause {
            // A note of the same key tells a replace from an insert, so it must be of this statement.
            Cause::Insert => self.forget(cause) + &self.forget_assigned(),
            // A trigger that runs before ours may update the row that is being updated, and must not delete its notes. An old note does
            // no harm: whatever logs that a row is gone says so in all notes of the row.
            Cause::Update => self.name_columns(),
        };
        for (index, unique) in self.uniques() {
            let equals = unique.terms.iter().map(|term| {
                let there = match &term.value {
                    TermValue::Column(name) => format!("r.{}", quoted(name)),
                    TermValue::Expression(sql) => format!("({sql})"),
                };
                format!("{there} = {} COLLATE {}", self.value(&term.value, "NEW"), quoted(&term.collation))
            });
            let mut conditions: Vec<_> = equals.collect();
            if let Some(predicate) = &unique.predicate {
                conditions.push(format!("({predicate})"));
                conditions.push(self.computed(predicate, "NEW"));
            }
            if cause == Cause::Update {
                conditions.push(format!("NOT {}", self.same_row("r", "OLD")));
            }
            writeln!(
                sql,
                "  INSERT INTO {}(u, w{}) SELECT {}, {}{} FROM {} AS r WHERE {};",
                quoted(&self.names.notes),
                self.key_list("k"),
                self.note_name(index, unique, cause),
                self.row_name("r"),
                of_row("r", self.table.layout.key_names()),
                quoted(&self.table.layout.table),
                conditions.join(" AND "),
            )
            .expect("a string takes all");
        }
        sql
    }

    /// Names every stored column of NEW. In a BEFORE UPDATE trigger SQLite computes generated columns from the columns that the trigger
    /// names, and from NULL for the others.
    fn name_columns(&self) -> String {
        let columns = &self.table.columns;
        if !columns.iter().any(|column| column.computed) {
            return String::new();
        }
        let stored = columns.iter().filter(|column| !column.computed).map(|column| format!("NEW.{}", quoted(&column.name)));
        format!("  SELECT {};\n", stored.collect::<Vec<_>>().join(", "))
    }

    /// Logs a delete for each noted row that is gone, and marks all notes of that row. Rows in notes with the name `surely_gone` are not
    /// looked up.
    fn log_replaced(&self, is_named: impl Fn(&str) -> String, only: &str, surely_gone: Option<&str>) -> String {
        let (log, notes, key) = (quoted(&self.names.log), quoted(&self.names.notes), self.key_list("k"));
        let still_exists = |note: &str| {
            let equals = self.key_columns().into_iter().enumerate();
            let equals = equals
                .map(|(index, column)| format!("r.{column} = {note}.k{index} COLLATE {}", quoted(self.key_collation(&column))))
                .collect::<Vec<_>>();
            format!("EXISTS (SELECT 1 FROM {} AS r WHERE {})", quoted(&self.table.layout.table), equals.join(" AND "))
        };
        format!(
            "  INSERT INTO {log}(tid, op, at{key}) SELECT DISTINCT {}, {}, {CLOCK}{} FROM {notes} AS n
    WHERE ({of_note}) AND n.gone IS NULL AND ({only}) AND ({}NOT {});
  UPDATE {notes} SET gone = 0 WHERE gone IS NULL AND w IN (SELECT w FROM {notes} WHERE ({of_any}) AND gone IS NULL)
    AND ({only}) AND NOT {};
",
            self.tid,
            operation::DELETE,
            self.key_list("n.k"),
            surely_gone.map_or_else(String::new, |name| format!("n.u = {name} OR ")),
            still_exists("n"),
            still_exists(&notes),
            of_note = is_named("n.u"),
            of_any = is_named("u"),
        )
    }

    /// The body of the AFTER INSERT trigger.
    fn inserted(&self) -> String {
        let mut sql = String::new();
        let others: Vec<_> = self.uniques().skip(1).map(|(index, unique)| self.note_name(index, unique, Cause::Insert)).collect();
        if !others.is_empty() {
            sql += &self.log_replaced(|name| format!("{name} IN ({})", others.join(", ")), "1", None);
        }
        let (log, notes) = (quoted(&self.names.log), quoted(&self.names.notes));
        let key_note = self.note_name(0, &self.table.key, Cause::Insert);
        let layout = &self.table.layout;
        let old: String = (0..self.table.layout.key_len()).fold(String::new(), |mut list, index| {
            write!(list, ", (SELECT k{index} FROM {notes} WHERE u = {key_note})").expect("a string takes all");
            list
        });
        write!(
            sql,
            "  DELETE FROM {log} WHERE seq IN (SELECT gone FROM {notes} WHERE u = {key_note} AND gone IS NOT NULL);
  INSERT INTO {log}(tid, op, at{}{})
    SELECT {}, CASE WHEN EXISTS (SELECT 1 FROM {notes} WHERE u = {key_note}) THEN {} ELSE {} END, {CLOCK}{old}{} {};
",
            self.key_list("k"),
            numbered("v", layout.columns.len()),
            self.tid,
            operation::REPLACE,
            operation::INSERT,
            of_row("r", layout.names()),
            self.of_key("NEW"),
        )
        .expect("a string takes all");
        sql + &self.forget(Cause::Insert)
    }

    /// The body of the AFTER UPDATE trigger.
    fn updated(&self) -> String {
        // The row that had the new key is surely gone: the changed one has its key now.
        let key = self.note_name(0, &self.table.key, Cause::Update);
        let names = self.note_names(Cause::Update);
        let replaced = self.log_replaced(|name| format!("{name} IN ({names})"), &self.may_conflict(), Some(&key));
        let current = self.of_key("NEW");
        let (log, layout) = (quoted(&self.names.log), &self.table.layout);
        // A trigger may have changed the key again: it has logged the change from the new key, and the old key is gone as well.
        format!(
            "{replaced}  INSERT INTO {log}(tid, op, at{keys}{}) SELECT {tid}, {}, {CLOCK}{old}{} {current};
  INSERT INTO {log}(tid, op, at{keys}) SELECT {tid}, {}, {CLOCK}{old} WHERE NOT {same} AND NOT EXISTS (SELECT 1 {current})
    AND NOT EXISTS (SELECT 1 {});
  UPDATE {notes} SET gone = 0 WHERE w = {} AND {} AND NOT {same};
{}",
            numbered("v", layout.columns.len()),
            operation::UPDATE,
            of_row("r", layout.names()),
            operation::DELETE,
            self.of_key("OLD"),
            self.row_name("OLD"),
            self.is_of("OLD"),
            self.forget(Cause::Update),
            keys = self.key_list("k"),
            notes = quoted(&self.names.notes),
            same = self.same_row("NEW", "OLD"),
            tid = self.tid,
            old = of_row("OLD", layout.key_names()),
        )
    }

    /// Logs the rows that an update replaced, where deleting one of them then deleted the updated row itself (ON DELETE CASCADE): no
    /// AFTER UPDATE trigger runs then.
    fn log_cascaded(&self) -> String {
        if !self.table.cascades {
            return String::new();
        }
        let noted = |name: &str| {
            let ranges = self.uniques().map(|(index, _)| {
                let begin = format!("'{}/{index}/u/' || {} || '/'", self.tid, self.row_name("OLD"));
                // An SQL literal begins with a sign, a digit, a quote or a letter: all sort before `~`.
                format!("({name} >= {begin} AND {name} < {begin} || '~')")
            });
            ranges.collect::<Vec<_>>().join(" OR ")
        };
        self.log_replaced(noted, "1", None)
    }

    /// Deletes notes of the row number that SQLite is about to assign. A BEFORE INSERT trigger sees -1 in its place. A note of that number,
    /// left by an insert that was ignored, would turn this insert into a replace.
    fn forget_assigned(&self) -> String {
        if !self.table.is_numbered {
            return String::new();
        }
        let (notes, table) = (quoted(&self.names.notes), &self.table.layout.table);
        let column = self.key_columns().join("");
        let name = |next: String| format!("'{}/0/i/' || quote({next})", self.tid);
        format!(
            "  DELETE FROM {notes} WHERE NEW.{column} = -1 AND u IN ({}, {});\n",
            name(format!("(SELECT max({column}) + 1 FROM {})", quoted(table))),
            name(format!("(SELECT max(seq) + 1 FROM sqlite_sequence WHERE name = '{}')", table.replace('\'', "''"))),
        )
    }

    /// The body of the AFTER DELETE trigger.
    fn deleted(&self) -> String {
        let (log, notes) = (quoted(&self.names.log), quoted(&self.names.notes));
        let cascaded = self.log_cascaded();
        format!(
            "{cascaded}  INSERT INTO {log}(tid, op, at{}) VALUES ({}, {}, {CLOCK}{});
  UPDATE {notes} SET gone = (SELECT max(seq) FROM {log}) WHERE w = {} AND {};
",
            self.key_list("k"),
            self.tid,
            operation::DELETE,
            of_row("OLD", self.table.layout.key_names()),
            self.row_name("OLD"),
            self.is_of("OLD"),
        )
    }
}
