//! Reads a table's definition from SQLite's catalogue: its columns, its key, its unique sets.

use crate::feed::Feed;
use crate::source::sqlite::columns::{self, CatalogueColumn, default_collation};
use crate::source::sqlite::error::Error;
use crate::source::sqlite::layout::{Layout, LayoutColumn};
use crate::source::sqlite::parse::{self, IndexDefinition};
use crate::source::sqlite::table::{ColumnDefinition, TableSchema, Term, TermValue, UniqueSet};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::path::Path;
use std::sync::Arc;

/// Reads the feed's table as it is now.
///
/// # Errors
/// Where the table is gone, or the feed's key is not usable.
pub(super) fn describe(connection: &Connection, path: &Path, feed: &Feed) -> Result<TableSchema, Error> {
    let table = &feed.table;
    let failed = |source| Error::sqlite("describe a table", path, source);
    let columns = columns::read(connection, table).map_err(failed)?;
    if columns.is_empty() {
        return Err(Error::TableGone { table: table.clone() });
    }
    let keyless = |what: String| Error::Keyless { table: table.clone(), what };
    if feed.key.is_empty() {
        return Err(keyless("it has no primary key".into()));
    }
    if let Some(missing) = feed.key.iter().find(|name| !columns.iter().any(|column| column.name == **name && !column.is_left_out())) {
        return Err(keyless(format!("column `{missing}` does not exist or is not stored")));
    }
    let uniques = uniques(connection, path, table, &columns)?;
    let Some(key_index) = uniques.iter().position(|unique| unique.is_of_columns(&feed.key)) else {
        return Err(keyless(format!("no primary key or unique index on exactly ({})", feed.key.join(", "))));
    };
    let in_key = |column: &CatalogueColumn| feed.key.contains(&column.name);
    if let Some(column) = columns.iter().find(|column| in_key(column) && !column.not_null && column.primary == 0) {
        return Err(keyless(format!("column `{}` may be NULL", column.name)));
    }
    let kept = || columns.iter().filter(|column| !column.is_left_out());
    let layout_columns = kept().map(|column| LayoutColumn {
        name: column.name.clone(),
        blob: column.is_for_blobs(in_key(column)),
        key: in_key(column),
        strict: column.strict,
    });
    let layout = Layout { table: table.clone(), columns: layout_columns.collect() };
    let mut others = uniques;
    let key = others.remove(key_index);
    let definition = kept().map(|column| ColumnDefinition {
        name: column.name.clone(),
        declared: column.declared.clone(),
        default: column.default.clone(),
        hidden: column.hidden,
    });
    let definition = definition.collect();
    let table_columns = columns.iter().map(|column| columns::for_triggers(connection, table, column));
    let table_columns = table_columns.collect::<rusqlite::Result<_>>().map_err(failed)?;
    let is_numbered = key_index == 0 && key.terms.len() == 1 && has_number(connection, table, &columns).map_err(failed)?;
    let cascades = connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM pragma_foreign_key_list(?1, 'main') WHERE on_delete = 'CASCADE')",
            [table.as_ref()],
            |row| row.get(0),
        )
        .map_err(failed)?;
    Ok(TableSchema { layout, columns: table_columns, definition, is_numbered, cascades, key, others })
}

/// Reads every unique set of the table: row number, primary key, constraints, unique indexes.
fn uniques(connection: &Connection, path: &Path, table: &Arc<str>, columns: &[CatalogueColumn]) -> Result<Vec<UniqueSet>, Error> {
    let failed = |source| Error::sqlite("read a table's indexes", path, source);
    let mut found = Vec::new();
    let mut has_primary_index = false;
    let indexes: Vec<(String, String)> = connection
        .prepare_cached("SELECT name, origin FROM pragma_index_list(?1, 'main') WHERE \"unique\" ORDER BY seq")
        .and_then(|mut statement| statement.query_map([table.as_ref()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .map_err(failed)?;
    for (name, origin) in indexes {
        has_primary_index |= origin == "pk";
        found.push(unique(connection, path, table, &name)?);
    }
    let primary: Vec<_> = columns.iter().filter(|column| column.primary != 0).map(|column| column.name.clone()).collect();
    if !primary.is_empty() && !has_primary_index {
        // INTEGER PRIMARY KEY is the row number and has no index.
        found.insert(0, UniqueSet::of_columns(primary));
    } else if let Some(rowid) = rowid_name(connection, table, columns).map_err(failed)? {
        found.push(UniqueSet::of_columns([Arc::from(rowid)]));
    }
    Ok(found)
}

/// Whether the primary key is the row number.
fn has_number(connection: &Connection, table: &str, columns: &[CatalogueColumn]) -> rusqlite::Result<bool> {
    let has_index: bool =
        connection
            .query_row("SELECT EXISTS (SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk')", [table], |row| row.get(0))?;
    Ok(!has_index && columns.iter().any(|column| column.primary != 0))
}

/// The name under which the row number of a table can be read; `None` for a table without row numbers.
fn rowid_name(connection: &Connection, table: &str, columns: &[CatalogueColumn]) -> rusqlite::Result<Option<&'static str>> {
    let without: bool =
        connection.query_row("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1", [table], |row| row.get(0))?;
    let free = |name: &&str| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    Ok(if without { None } else { ["rowid", "_rowid_", "oid"].into_iter().find(free) })
}

/// Reads one unique index.
fn unique(connection: &Connection, path: &Path, table: &Arc<str>, index: &str) -> Result<UniqueSet, Error> {
    let failed = |source| Error::sqlite("read an index", path, source);
    let terms: Vec<(Option<String>, String)> = connection
        .prepare_cached("SELECT name, coll FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno")
        .and_then(|mut statement| statement.query_map([index], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .map_err(failed)?;
    let sql: Option<String> = connection
        .query_row("SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND name = ?1", params![index], |row| row.get(0))
        .optional()
        .map_err(failed)?
        .flatten();
    let parsed = match sql {
        Some(sql) => parse::unique_index(&sql).ok_or_else(|| Error::Index { table: table.clone(), index: index.to_owned() })?,
        // The index of a constraint: plain columns.
        None => IndexDefinition { terms: vec![String::new(); terms.len()], predicate: None },
    };
    if parsed.terms.len() != terms.len() {
        return Err(Error::Index { table: table.clone(), index: index.to_owned() });
    }
    let mut found = Vec::with_capacity(terms.len());
    for ((name, collation), text) in terms.into_iter().zip(parsed.terms) {
        let by_default = match &name {
            Some(name) => default_collation(connection, table, name).map_err(failed)?.is_some_and(|own| own == collation),
            None => false,
        };
        let value = name.map_or(TermValue::Expression(text), |name| TermValue::Column(name.into()));
        found.push(Term { value, collation, by_default });
    }
    Ok(UniqueSet { terms: found, predicate: parsed.predicate })
}
