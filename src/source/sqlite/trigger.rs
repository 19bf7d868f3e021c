//! The triggers: SQL that runs in the writer's process, in the writer's SQLite, in the writer's transaction.
//!
//! An error in a trigger breaks the application's write, so nothing here can fail: functions that SQLite has had for ever,
//! no constraint that could be violated, no JSON.
//!
//! `INSERT OR REPLACE` removes rows without a word to delete triggers, unless the writer has set `recursive_triggers`.
//! Therefore a BEFORE trigger notes the rows that the new one may push out, for each unique set, and the AFTER trigger logs a
//! delete for those of them that are gone. Logging deletes in BEFORE would invent some for INSERT OR IGNORE, DO NOTHING and
//! UPSERT. A note is found again by the new row's own values, so that triggers and foreign keys may write to the table in
//! between.
//! Where `recursive_triggers` is on, the delete trigger has written the delete; it says so in the note. What an update pushes out
//! of which nothing is left in the end is found by the notes, see `sweep`.

use crate::source::sqlite::capture::Names;
use crate::source::sqlite::schema::{Affinity, Named, Shape, Unique, Value};
use crate::source::sqlite::sql::{numbered, of_row, quoted};
use std::fmt::Write as _;

/// The number of an operation in the log.
pub(super) mod op {
    /// A new row.
    pub(in crate::source::sqlite) const INSERT: i64 = 1;
    /// A row removed: only its key is in the log.
    pub(in crate::source::sqlite) const DELETE: i64 = 2;
    /// A new row in the place of one with the same key.
    pub(in crate::source::sqlite) const REPLACE: i64 = 3;
    /// A row changed: its old key is in the log too.
    pub(in crate::source::sqlite) const UPDATE: i64 = 4;
    /// A row read again by feedline after columns were added.
    pub(in crate::source::sqlite) const REREAD: i64 = 5;
    /// No row of a table: where feedline began the log anew.
    pub(in crate::source::sqlite) const MARK: i64 = 6;
}

/// Columns of the log beside keys and values.
pub(super) const FIXED_COLUMNS: usize = 4;

/// The writer's clock in microseconds; SQLite's own is in milliseconds (`unixepoch('subsec')` is unknown before 3.42).
pub(super) const CLOCK: &str = "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000";

/// What a trigger is for; its letter ends its name.
const KINDS: [char; 5] = ['b', 'i', 'c', 'u', 'd'];

/// The names of the triggers on the version `tid` of a table.
pub(super) fn names(names: &Names, tid: i64) -> impl Iterator<Item = String> {
    KINDS.into_iter().map(move |kind| names.trigger(tid, kind))
}

/// Name and text of each trigger on a table, as SQLite stores them.
pub(super) fn triggers(names: &Names, tid: i64, shape: &Shape) -> Vec<(String, String)> {
    let writer = Writer { names, tid, shape };
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
            let when = if kind == 'c' { format!(" WHEN {}", writer.may_clash()) } else { String::new() };
            let table = quoted(&shape.layout.table);
            let sql = format!("CREATE TRIGGER {} {event} ON {table} FOR EACH ROW{when} BEGIN\n{body}END", quoted(&name));
            (name, sql)
        })
        .collect()
}

/// A column's value in a row, as it will be stored: `OR REPLACE` makes a default of NULL where NULL may not be.
fn stored(column: &Named, row: &str) -> String {
    let value = format!("{row}.{}", quoted(&column.name));
    match &column.instead {
        Some((default, collation)) if row == "NEW" => {
            format!("(CASE WHEN {value} IS NULL THEN {default} ELSE {value} END) COLLATE {}", quoted(collation))
        }
        _ => value,
    }
}

/// Which statement notes and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Insert,
    Update,
}

struct Writer<'a> {
    names: &'a Names,
    tid: i64,
    shape: &'a Shape,
}

impl Writer<'_> {
    fn uniques(&self) -> impl Iterator<Item = (usize, &Unique)> {
        std::iter::once(&self.shape.key).chain(&self.shape.others).enumerate()
    }

    fn key_columns(&self) -> Vec<String> {
        self.shape.layout.key_names().map(quoted).collect()
    }

    fn key_list(&self, prefix: &str) -> String {
        numbered(prefix, self.shape.layout.key_len())
    }

    /// A term's value for the row `row`, which is NEW or OLD: an expression is computed over a row of the same column names.
    fn value(&self, value: &Value, row: &str) -> String {
        match value {
            Value::Column(name) => match self.shape.columns.iter().find(|column| column.name == *name) {
                Some(column) => stored(column, row),
                None => format!("{row}.{}", quoted(name)),
            },
            Value::Expression(sql) => self.computed(sql, row),
        }
    }

    /// An index's expression, computed over a row. What it compares with a column takes the column's affinity, and a column of a
    /// subquery has one where it is a CAST, which changes no value of the kind that the affinity leaves there. Another kind of
    /// value (a blob in a TEXT column) is taken as it is.
    fn computed(&self, sql: &str, row: &str) -> String {
        let lower = sql.to_lowercase();
        let is_named = |column: &&Named| column.name.contains(['"', '`', ']', '\'']) || lower.contains(&column.name.to_lowercase());
        let columns: Vec<_> = self.shape.columns.iter().filter(is_named).collect();
        let over = |cast: bool| {
            let list = columns.iter().map(|column| {
                let value = stored(column, row);
                let value = match column.affinity {
                    Affinity::Text if cast => format!("CAST({value} AS TEXT)"),
                    Affinity::Numeric if cast => format!("CAST({value} AS NUMERIC)"),
                    _ => value,
                };
                format!("{value} AS {}", quoted(&column.name))
            });
            let list: Vec<_> = list.collect();
            format!("(SELECT ({sql}) FROM (SELECT {}))", if list.is_empty() { "1".to_owned() } else { list.join(", ") })
        };
        let odd = columns.iter().filter_map(|column| {
            let kind = format!("typeof({row}.{})", quoted(&column.name));
            match column.affinity {
                Affinity::Blob => None,
                Affinity::Text => Some(format!("{kind} = 'blob'")),
                Affinity::Numeric => Some(format!("{kind} IN ('text', 'blob')")),
            }
        });
        let odd: Vec<_> = odd.collect();
        if odd.is_empty() {
            return over(false);
        }
        format!("(CASE WHEN {} THEN {} ELSE {} END)", odd.join(" OR "), over(false), over(true))
    }

    /// The name of a note: the table, the unique set, which statement's row it is for, and that row's new values in the set.
    /// An update's names hold the row's old key, since an update may run within an insert of the same values (a foreign key's
    /// action on a row that is about to be replaced). NULL where the set does not count the row.
    fn note_name(&self, index: usize, unique: &Unique, cause: Cause) -> String {
        let row = match cause {
            Cause::Insert => "'i/'".to_owned(),
            Cause::Update => format!("'u/' || {} || '/'", self.row_name("OLD")),
        };
        let values: Vec<_> = unique.terms.iter().map(|term| format!("quote({})", self.value(&term.value, "NEW"))).collect();
        let name = format!("'{}/{index}/' || {row} || {}", self.tid, values.join(" || ',' || "));
        match &unique.predicate {
            Some(predicate) => format!("CASE WHEN {} THEN {name} END", self.computed(predicate, "NEW")),
            None => name,
        }
    }

    fn note_names(&self, cause: Cause) -> String {
        self.uniques().map(|(index, unique)| self.note_name(index, unique, cause)).collect::<Vec<_>>().join(", ")
    }

    /// The name of a row in the notes, from its key.
    fn row_name(&self, row: &str) -> String {
        let values: Vec<_> = self.key_columns().iter().map(|column| format!("quote({row}.{column})")).collect();
        format!("'{}/' || {}", self.tid, values.join(" || ',' || "))
    }

    /// Whether the note is of the row: their keys are the same bytes.
    fn is_of(&self, row: &str) -> String {
        let pairs = self.key_columns().into_iter().enumerate();
        pairs.map(|(index, column)| format!("k{index} IS {row}.{column} COLLATE BINARY")).collect::<Vec<_>>().join(" AND ")
    }

    /// Whether two rows have the very same key.
    fn same_row(&self, one: &str, other: &str) -> String {
        let pairs = self.key_columns().into_iter();
        let pairs: Vec<_> = pairs.map(|column| format!("{one}.{column} IS {other}.{column} COLLATE BINARY")).collect();
        format!("({})", pairs.join(" AND "))
    }

    fn forget(&self, cause: Cause) -> String {
        format!("  DELETE FROM {} WHERE u IN ({});\n", quoted(&self.names.notes), self.note_names(cause))
    }

    /// Notes the rows that agree with the new one in a unique set.
    fn note(&self, cause: Cause) -> String {
        let mut sql = match cause {
            // A note of the same key tells insert from replace, so it must be this statement's.
            Cause::Insert => self.forget(cause) + &self.forget_next(),
            // An update of the row that is being updated (by a trigger that runs before ours) must not forget for it. An old
            // note does no harm: whatever logs that a row is gone says so in all its notes.
            Cause::Update => self.load(),
        };
        for (index, unique) in self.uniques() {
            let equals = unique.terms.iter().map(|term| {
                let there = match &term.value {
                    Value::Column(name) => format!("r.{}", quoted(name)),
                    Value::Expression(sql) => format!("({sql})"),
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
                of_row("r", self.shape.layout.key_names()),
                quoted(&self.shape.layout.table),
                conditions.join(" AND "),
            )
            .expect("a string takes all");
        }
        sql
    }

    /// Names the columns from which others are computed. Before an update SQLite computes a generated column of the columns that
    /// the trigger names, and of NULL for the rest.
    fn load(&self) -> String {
        let columns = &self.shape.columns;
        if !columns.iter().any(|column| column.computed) {
            return String::new();
        }
        let stored = columns.iter().filter(|column| !column.computed).map(|column| format!("NEW.{}", quoted(&column.name)));
        format!("  SELECT {};\n", stored.collect::<Vec<_>>().join(", "))
    }

    /// Whether an update may push a row out: a value that some unique set holds is another one.
    fn may_clash(&self) -> String {
        if self.uniques().any(|(_, unique)| unique.is_computed()) {
            return "1".into();
        }
        let mut conditions = Vec::new();
        for (_, unique) in self.uniques() {
            for term in &unique.terms {
                if let Value::Column(name) = &term.value {
                    let condition = format!("OLD.{0} IS NOT NEW.{0} COLLATE BINARY", quoted(name));
                    if !conditions.contains(&condition) {
                        conditions.push(condition);
                    }
                }
            }
        }
        conditions.join(" OR ")
    }

    /// Logs a delete for each noted row that is gone, and says so in all its notes. `gone` may be taken for granted in some.
    fn pushed_out(&self, is_named: impl Fn(&str) -> String, only: &str, granted: Option<&str>) -> String {
        let (log, notes, key) = (quoted(&self.names.log), quoted(&self.names.notes), self.key_list("k"));
        let still = |note: &str| {
            let equals = self.key_columns().into_iter().enumerate();
            let equals = equals
                .map(|(index, column)| format!("r.{column} = {note}.k{index} COLLATE {}", quoted(self.key_collation(&column))))
                .collect::<Vec<_>>();
            format!("EXISTS (SELECT 1 FROM {} AS r WHERE {})", quoted(&self.shape.layout.table), equals.join(" AND "))
        };
        format!(
            "  INSERT INTO {log}(tid, op, at{key}) SELECT DISTINCT {}, {}, {CLOCK}{} FROM {notes} AS n
    WHERE ({of_note}) AND n.gone IS NULL AND ({only}) AND ({}NOT {});
  UPDATE {notes} SET gone = 0 WHERE gone IS NULL AND w IN (SELECT w FROM {notes} WHERE ({of_any}) AND gone IS NULL)
    AND ({only}) AND NOT {};
",
            self.tid,
            op::DELETE,
            self.key_list("n.k"),
            granted.map_or_else(String::new, |name| format!("n.u = {name} OR ")),
            still("n"),
            still(&notes),
            of_note = is_named("n.u"),
            of_any = is_named("u"),
        )
    }

    fn key_collation(&self, column: &str) -> &str {
        let mut terms = self.shape.key.terms.iter();
        let term = terms.find(|term| matches!(&term.value, Value::Column(name) if quoted(name) == column));
        term.map_or("BINARY", |term| &term.collation)
    }

    /// The row that now has the key of the row `with`, as a source of values: a foreign key's action or another trigger may
    /// have changed it since, and has then logged that first (`updated_at = ...` in the application's own AFTER trigger).
    fn of_key(&self, with: &str) -> String {
        let equals = self.key_columns().into_iter().map(|column| {
            let collation = quoted(self.key_collation(&column));
            format!("r.{column} IS {with}.{column} COLLATE {collation}")
        });
        format!("FROM {} AS r WHERE {}", quoted(&self.shape.layout.table), equals.collect::<Vec<_>>().join(" AND "))
    }

    fn inserted(&self) -> String {
        let mut sql = String::new();
        let others: Vec<_> = self.uniques().skip(1).map(|(index, unique)| self.note_name(index, unique, Cause::Insert)).collect();
        if !others.is_empty() {
            sql += &self.pushed_out(|name| format!("{name} IN ({})", others.join(", ")), "1", None);
        }
        let (log, notes) = (quoted(&self.names.log), quoted(&self.names.notes));
        let replaced = self.note_name(0, &self.shape.key, Cause::Insert);
        let layout = &self.shape.layout;
        let old: String = (0..self.shape.layout.key_len()).fold(String::new(), |mut list, index| {
            write!(list, ", (SELECT k{index} FROM {notes} WHERE u = {replaced})").expect("a string takes all");
            list
        });
        write!(
            sql,
            "  DELETE FROM {log} WHERE seq IN (SELECT gone FROM {notes} WHERE u = {replaced} AND gone IS NOT NULL);
  INSERT INTO {log}(tid, op, at{}{})
    SELECT {}, CASE WHEN EXISTS (SELECT 1 FROM {notes} WHERE u = {replaced}) THEN {} ELSE {} END, {CLOCK}{old}{} {};
",
            self.key_list("k"),
            numbered("v", layout.columns.len()),
            self.tid,
            op::REPLACE,
            op::INSERT,
            of_row("r", layout.names()),
            self.of_key("NEW"),
        )
        .expect("a string takes all");
        sql + &self.forget(Cause::Insert)
    }

    fn updated(&self) -> String {
        // The row that had the new key is gone in any case: the changed one has taken its place.
        let key = self.note_name(0, &self.shape.key, Cause::Update);
        let names = self.note_names(Cause::Update);
        let pushed_out = self.pushed_out(|name| format!("{name} IN ({names})"), &self.may_clash(), Some(&key));
        let current = self.of_key("NEW");
        let (log, layout) = (quoted(&self.names.log), &self.shape.layout);
        // A trigger that moved the row on has logged its move from the new key; the old key is gone all the same.
        format!(
            "{pushed_out}  INSERT INTO {log}(tid, op, at{keys}{}) SELECT {tid}, {}, {CLOCK}{old}{} {current};
  INSERT INTO {log}(tid, op, at{keys}) SELECT {tid}, {}, {CLOCK}{old} WHERE NOT {same} AND NOT EXISTS (SELECT 1 {current})
    AND NOT EXISTS (SELECT 1 {});
  UPDATE {notes} SET gone = 0 WHERE w = {} AND {} AND NOT {same};
{}",
            numbered("v", layout.columns.len()),
            op::UPDATE,
            of_row("r", layout.names()),
            op::DELETE,
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

    /// What an update pushed out of whose own row nothing is left: a row that it pushed out took it along (ON DELETE CASCADE), and
    /// no trigger runs after such an update.
    fn taken_along(&self) -> String {
        if !self.shape.cascades {
            return String::new();
        }
        let noted = |name: &str| {
            let ranges = self.uniques().map(|(index, _)| {
                let begin = format!("'{}/{index}/u/' || {} || '/'", self.tid, self.row_name("OLD"));
                // A literal begins with a sign, a digit or a letter.
                format!("({name} >= {begin} AND {name} < {begin} || '~')")
            });
            ranges.collect::<Vec<_>>().join(" OR ")
        };
        self.pushed_out(noted, "1", None)
    }

    /// Before an insert SQLite does not tell the number that it will give the row: -1 stands for it. A note of that number, left
    /// behind by an insert that was ignored, would make a replacement of the insert.
    fn forget_next(&self) -> String {
        if !self.shape.is_numbered {
            return String::new();
        }
        let (notes, table) = (quoted(&self.names.notes), &self.shape.layout.table);
        let column = self.key_columns().join("");
        let name = |next: String| format!("'{}/0/i/' || quote({next})", self.tid);
        format!(
            "  DELETE FROM {notes} WHERE NEW.{column} = -1 AND u IN ({}, {});\n",
            name(format!("(SELECT max({column}) + 1 FROM {})", quoted(table))),
            name(format!("(SELECT max(seq) + 1 FROM sqlite_sequence WHERE name = '{}')", table.replace('\'', "''"))),
        )
    }

    fn deleted(&self) -> String {
        let (log, notes) = (quoted(&self.names.log), quoted(&self.names.notes));
        let taken_along = self.taken_along();
        format!(
            "{taken_along}  INSERT INTO {log}(tid, op, at{}) VALUES ({}, {}, {CLOCK}{});
  UPDATE {notes} SET gone = (SELECT max(seq) FROM {log}) WHERE w = {} AND {};
",
            self.key_list("k"),
            self.tid,
            op::DELETE,
            of_row("OLD", self.shape.layout.key_names()),
            self.row_name("OLD"),
            self.is_of("OLD"),
        )
    }
}
