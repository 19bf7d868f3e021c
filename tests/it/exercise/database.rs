//! The database of the exercise: a few statements, tables in memory, and a log of transactions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A row's values, the key first.
pub type Values = Vec<Option<String>>;

/// A table with its rows, by key.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: BTreeMap<i64, Values>,
}

/// Tables, by name.
pub type Rows = BTreeMap<String, Table>;

/// One change in the log, with the table's columns as they were.
#[derive(Clone, Debug)]
pub struct Change {
    pub table: String,
    pub columns: Vec<String>,
    pub old: Option<Values>,
    pub new: Option<Values>,
}

#[derive(Clone, Debug, Default)]
pub struct Database(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    tables: Rows,
    log: Vec<Vec<Change>>,
    /// The changes of a transaction that is open.
    open: Option<Vec<Change>>,
}

impl Database {
    pub fn transaction(&self, number: usize) -> Option<Vec<Change>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).log.get(number).cloned()
    }

    /// The tables, and how many transactions they show.
    pub fn snapshot(&self) -> (Rows, usize) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.tables.clone(), state.log.len())
    }

    pub fn run(&self, statement: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).run(statement);
    }
}

impl State {
    fn run(&mut self, statement: &str) {
        let words: Vec<&str> = statement.split([' ', ',', '(', ')', '=']).filter(|word| !word.is_empty()).collect();
        match words[..] {
            ["BEGIN"] => self.open = Some(Vec::new()),
            ["COMMIT"] => self.log.extend(self.open.take()),
            ["CREATE", "TABLE", table, ref columns @ ..] => {
                let is_name = |word: &&str| word.chars().all(char::is_lowercase);
                let columns = columns.iter().copied().filter(is_name).map(str::to_owned).collect();
                self.tables.insert(table.to_owned(), Table { columns, rows: BTreeMap::new() });
            }
            ["ALTER", "TABLE", table, "ADD", "COLUMN", column, ..] => {
                let table = self.tables.get_mut(table).unwrap();
                table.columns.push(column.to_owned());
                table.rows.values_mut().for_each(|row| row.push(None));
            }
            ["INSERT", "INTO", table, "VALUES", ..] => {
                let values = statement.split_once('(').unwrap().1.trim_end_matches(')').split(", ").map(value).collect();
                self.change(table, None, Some(values));
            }
            ["UPDATE", table, "SET", column, .., "WHERE", "id", id] => {
                let new = statement.split_once(" = ").unwrap().1.split_once(" WHERE").unwrap().0;
                let old = self.tables[table].rows[&id.parse().unwrap()].clone();
                let column = self.tables[table].columns.iter().position(|name| name == column).unwrap();
                let mut values = old.clone();
                values[column] = value(new);
                self.change(table, Some(old), Some(values));
            }
            ["DELETE", "FROM", table, "WHERE", "id", id] => {
                let old = self.tables[table].rows[&id.parse().unwrap()].clone();
                self.change(table, Some(old), None);
            }
            _ => panic!("no statement of the exercise: {statement}"),
        }
    }

    fn change(&mut self, name: &str, old: Option<Values>, new: Option<Values>) {
        let key = |values: &Values| values[0].as_deref().unwrap().parse::<i64>().unwrap();
        let table = self.tables.get_mut(name).unwrap();
        if let Some(old) = &old {
            table.rows.remove(&key(old));
        }
        if let Some(new) = &new {
            table.rows.insert(key(new), new.clone());
        }
        let change = Change { table: name.to_owned(), columns: table.columns.clone(), old, new };
        match &mut self.open {
            Some(open) => open.push(change),
            None => self.log.push(vec![change]),
        }
    }
}

fn value(text: &str) -> Option<String> {
    (text != "NULL").then(|| text.trim_matches('\'').to_owned())
}
