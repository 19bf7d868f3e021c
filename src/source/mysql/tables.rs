//! Describes tables from the catalogue: columns, unique indexes, engine, and what the log does not say of a column.
//!
//! Source of the names: MySQL documentation, "`INFORMATION_SCHEMA` Tables"; MariaDB documentation, "Information Schema Tables".

use super::error::Error;
use super::kind::Hint;
use super::quote::{self, identifier, literal};
use super::session::Session;
use crate::feed::Feeds;
use crate::source::Answer;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) mod check;

/// A table that could be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Its schema, which is called a database too.
    pub(super) schema: Arc<str>,
    pub(super) name: Arc<str>,
    /// The engine that stores its rows, as the server names it: `InnoDB`.
    pub(super) engine: Arc<str>,
    /// Whether it keeps the old versions of its rows (`WITH SYSTEM VERSIONING` of MariaDB).
    pub(super) is_versioned: bool,
    /// All columns in table order, invisible and generated ones too: the log has them all.
    pub(super) columns: Vec<Column>,
    /// Its unique indexes without expressions, the primary key first.
    pub(super) unique: Vec<UniqueIndex>,
    /// Whether it has a foreign key.
    pub(super) has_foreign_key: bool,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: Arc<str>,
    /// Its type as the server writes it: `int(11) unsigned`, `enum('a','b')`.
    pub(super) type_name: Arc<str>,
    pub(super) is_nullable: bool,
    /// The character set of its text or its labels; `None` for all others.
    pub(super) charset: Option<Arc<str>>,
    /// The collation of its text or its labels.
    pub(super) collation: Option<Arc<str>>,
    /// What its type is on MariaDB where the log shows it as another one.
    pub(super) hint: Option<Hint>,
}

/// A unique index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UniqueIndex {
    pub(super) name: Arc<str>,
    /// Its columns, in the order of the index.
    pub(super) columns: Vec<Arc<str>>,
    /// Whether it holds only the beginning of a column.
    pub(super) has_prefix: bool,
}

impl UniqueIndex {
    /// Whether it is the primary key.
    pub(super) fn is_primary(&self) -> bool {
        &*self.name == "PRIMARY"
    }
}

impl Table {
    /// Its quoted name with its schema.
    pub(super) fn sql_name(&self) -> String {
        quote::table(&self.schema, &self.name)
    }

    /// The column of this name.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| *column.name == *name)
    }

    /// The primary key's columns in table order; empty without one.
    pub(super) fn primary_key(&self) -> Vec<Arc<str>> {
        let Some(index) = self.unique.iter().find(|index| index.is_primary()) else { return Vec::new() };
        self.columns.iter().filter(|column| index.columns.contains(&column.name)).map(|column| Arc::clone(&column.name)).collect()
    }

    /// A unique index over columns of this key that are never null: no two rows have equal keys then. The primary key if possible.
    pub(super) fn unique_index(&self, key: &[Arc<str>]) -> Option<&UniqueIndex> {
        let is_key = |name: &Arc<str>| key.contains(name) && self.column(name).is_some_and(|column| !column.is_nullable);
        self.unique.iter().find(|index| index.columns.iter().all(is_key))
    }
}

/// Schemas of the server itself.
const SYSTEM: &str = "('information_schema', 'mysql', 'ndbinfo', 'performance_schema', 'sys')";

/// All tables that could be published and that our user may see, ordered by name. A user sees a table on which it has any privilege, and of
/// a table of which it may read some columns only those. Views, sequences and temporary tables have no rows in the log.
pub(super) async fn all(session: &mut Session) -> Result<Vec<Table>, Error> {
    read(session, |schema| format!("{schema} NOT IN {SYSTEM}")).await
}

/// The feeds' tables that exist.
pub(super) async fn of(feeds: &Feeds, session: &mut Session) -> Result<Vec<Table>, Error> {
    let mut tables = all(session).await?;
    tables.retain(|table| feeds.of_table(&table.schema, &table.name).is_some());
    Ok(tables)
}

/// The table of this name; `None` if it does not exist or our user may not see it.
pub(super) async fn one(session: &mut Session, schema: &str, name: &str) -> Result<Option<Table>, Error> {
    // With both names given like this, MariaDB opens one table and not all.
    let tables = read(session, |column| format!("{column} = {} AND TABLE_NAME = {}", literal(schema), literal(name))).await?;
    // The comparison of the catalogue may not mind case or accents.
    Ok(tables.into_iter().find(|table| *table.schema == *schema && *table.name == *name))
}

/// What belongs to one table.
type Name = (Arc<str>, Arc<str>);

/// Reads tables. `only` is a condition on the column of this name, which holds the schema.
async fn read(session: &mut Session, only: impl Fn(&str) -> String) -> Result<Vec<Table>, Error> {
    let filter = only("TABLE_SCHEMA");
    let mut tables: Vec<Table> = session
        .query(&format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE, TABLE_TYPE FROM information_schema.TABLES \
             WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND {filter}"
        ))
        .await?
        .iter()
        .map(described)
        .collect();
    tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    let by_name: HashMap<Name, usize> =
        tables.iter().enumerate().map(|(index, table)| ((Arc::clone(&table.schema), Arc::clone(&table.name)), index)).collect();
    let index_of = |row: &Answer| by_name.get(&(Arc::from(row.text(0)), Arc::from(row.text(1)))).copied();

    let columns = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME, COLLATION_NAME, DATA_TYPE \
         FROM information_schema.COLUMNS WHERE {filter} ORDER BY ORDINAL_POSITION"
    );
    let is_mariadb = session.is_mariadb();
    for row in session.query(&columns).await? {
        if let Some(index) = index_of(&row) {
            tables[index].columns.push(column(&row, is_mariadb));
        }
    }
    let indexes = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS \
         WHERE NON_UNIQUE = 0 AND {filter} ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX"
    );
    let mut with_expressions: Vec<(usize, Arc<str>)> = Vec::new();
    for row in session.query(&indexes).await? {
        let Some(index) = index_of(&row) else { continue };
        // An expression has no column.
        let Some(column) = row.get(3) else {
            with_expressions.push((index, row.text(2).into()));
            continue;
        };
        index_column(&mut tables[index].unique, row.text(2), column, row.get(4).is_some());
    }
    for (index, name) in with_expressions {
        tables[index].unique.retain(|unique| unique.name != name);
    }
    let references = format!(
        "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_NAME IS NOT NULL AND {filter}"
    );
    for row in session.query(&references).await? {
        if let Some(index) = index_of(&row) {
            tables[index].has_foreign_key = true;
        }
    }
    if is_mariadb {
        let checks = format!(
            "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS WHERE {}",
            only("CONSTRAINT_SCHEMA")
        );
        for row in session.query(&checks).await? {
            if let Some(index) = index_of(&row) {
                note_json(&mut tables[index].columns, row.text(2));
            }
        }
    }
    Ok(tables)
}

fn described(row: &Answer) -> Table {
    Table {
        schema: row.text(0).into(),
        name: row.text(1).into(),
        engine: row.text(2).into(),
        is_versioned: row.text(3) == "SYSTEM VERSIONED",
        columns: Vec::new(),
        unique: Vec::new(),
        has_foreign_key: false,
    }
}

fn column(row: &Answer, is_mariadb: bool) -> Column {
    let hint = match row.text(7) {
        "uuid" => Some(Hint::Uuid),
        "inet4" => Some(Hint::Inet4),
        "inet6" => Some(Hint::Inet6),
        _ => None,
    };
    Column {
        name: row.text(2).into(),
        type_name: row.text(3).into(),
        is_nullable: row.text(4) != "NO",
        charset: row.get(5).map(Arc::from),
        collation: row.get(6).map(Arc::from),
        hint: hint.filter(|_| is_mariadb),
    }
}

/// Adds a column to the index of this name, which comes last or is new.
fn index_column(indexes: &mut Vec<UniqueIndex>, name: &str, column: &str, is_prefix: bool) {
    match indexes.last_mut().filter(|index| *index.name == *name) {
        Some(index) => {
            index.columns.push(column.into());
            index.has_prefix |= is_prefix;
        }
        None => indexes.push(UniqueIndex { name: name.into(), columns: vec![column.into()], has_prefix: is_prefix }),
    }
}

/// A column that the type `JSON` of MariaDB made: text with this check (MariaDB documentation, "JSON Data Type").
fn note_json(columns: &mut [Column], check: &str) {
    let is_checked =
        |column: &&mut Column| &*column.type_name == "longtext" && format!("json_valid({})", identifier(&column.name)) == check;
    for column in columns.iter_mut().filter(is_checked) {
        column.hint = Some(Hint::Json);
    }
}

#[cfg(test)]
mod tests {
    use super::{Column, Table, UniqueIndex};
    use std::sync::Arc;

    fn table() -> Table {
        let column = |name: &str, is_nullable| Column {
            name: name.into(),
            type_name: "int".into(),
            is_nullable,
            charset: None,
            collation: None,
            hint: None,
        };
        let index = |name: &str, columns: &[&str]| UniqueIndex {
            name: name.into(),
            columns: columns.iter().map(|&column| column.into()).collect(),
            has_prefix: false,
        };
        Table {
            schema: "s".into(),
            name: "t".into(),
            engine: "InnoDB".into(),
            is_versioned: false,
            columns: vec![column("a", false), column("b", false), column("c", true)],
            unique: vec![index("PRIMARY", &["b", "a"]), index("of_a", &["a"]), index("of_c", &["c"])],
            has_foreign_key: false,
        }
    }

    #[test]
    fn a_key_is_unique_by_an_index_over_columns_of_it_that_are_never_null() {
        let found = |key: &[&str]| {
            let key: Vec<Arc<str>> = key.iter().map(|&column| column.into()).collect();
            table().unique_index(&key).map(|index| index.name.to_string())
        };
        assert_eq!(found(&["a", "b"]).as_deref(), Some("PRIMARY"));
        assert_eq!(found(&["a", "c"]).as_deref(), Some("of_a"));
        assert_eq!((found(&["b"]), found(&["c"]), found(&[])), (None, None, None));
    }

    #[test]
    fn a_primary_key_is_in_table_order() {
        assert_eq!(table().primary_key(), ["a".into(), "b".into()]);
    }
}
