//! The database of the exercise: tables in memory, and a log of transactions.

use crate::contract_source::RowChange;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// A database that several may read, and wait for.
pub type Database = Arc<watch::Sender<State>>;

/// Tables by name, and every transaction.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub tables: BTreeMap<String, Table>,
    pub log: Vec<Vec<Change>>,
}

/// A table with its rows, by key. The first value of a row is its key.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: BTreeMap<u32, Vec<String>>,
}

/// One change in the log, with the table's columns as they were.
#[derive(Clone, Debug)]
pub struct Change {
    pub table: String,
    pub columns: Vec<String>,
    pub old: Option<Vec<String>>,
    pub new: Option<Vec<String>>,
}

impl State {
    /// Adds a column to a table, with this value in its rows. The table is made if it is not there.
    pub fn add_column(&mut self, table: &str, column: &str, value: &str) {
        let table = self.tables.entry(table.to_owned()).or_default();
        table.columns.push(column.to_owned());
        table.rows.values_mut().for_each(|row| row.push(value.to_owned()));
    }

    pub fn commit(&mut self, name: &str, transaction: &[RowChange]) {
        let Table { columns, rows } = self.tables.get_mut(name).unwrap();
        let change = |RowChange { old, new }: &RowChange| {
            let old = old.map(|id| rows.remove(&id).unwrap());
            let new = new.as_ref().map(|(id, note)| {
                let mut row = old.clone().unwrap_or_else(|| vec![String::new(); columns.len()]);
                row.splice(..2, [id.to_string(), note.clone()]);
                rows.insert(*id, row.clone());
                row
            });
            Change { table: name.to_owned(), columns: columns.clone(), old, new }
        };
        self.log.push(transaction.iter().map(change).collect());
    }
}
