//! Lists the database's tables for the catalogue.

use crate::feed::{Catalogue, Table};
use crate::source::sqlite::columns;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::layout::SCHEMA;
use crate::source::sqlite::open;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;

/// Lists the tables of the database.
pub(super) fn read(path: &Path) -> Result<Catalogue, Error> {
    let failed = |source| Error::sqlite("read the catalogue", path, source);
    let (connection, _) = open::open(path)?;
    let mut tables = Vec::new();
    for name in table_names(&connection).map_err(failed)? {
        match table(&connection, &name) {
            Ok(table) => tables.push(table),
            // An event cannot name it.
            Err(rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::Utf8Error(..)) => {
                tracing::warn!(table = %name, "table left out: the name of one of its columns is not UTF-8");
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let views = names(&connection, VIEWS).map_err(failed)?.into_iter().map(|name| (SCHEMA.into(), name)).collect();
    Ok(Catalogue { database: database_name(path), tables, views })
}

/// The database's name: the file's, with its extension.
fn database_name(path: &Path) -> Arc<str> {
    path.file_name().unwrap_or_default().to_string_lossy().into()
}

/// The ordinary tables of the database, without ours.
const TABLES: &str = r"SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
    AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT LIKE '\_feedline\_%' ESCAPE '\' ORDER BY name";
const VIEWS: &str = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'view' ORDER BY name";

/// The names of the tables that could be published.
pub(super) fn table_names(connection: &Connection) -> rusqlite::Result<Vec<Arc<str>>> {
    names(connection, TABLES)
}

/// The names that this query returns. A name that is not UTF-8 cannot be configured, and is left out.
fn names(connection: &Connection, query: &str) -> rusqlite::Result<Vec<Arc<str>>> {
    let mut statement = connection.prepare(query)?;
    let names: Vec<Option<Arc<str>>> =
        statement.query_map([], |row| Ok(row.get_ref(0)?.as_str().ok().map(Arc::from)))?.collect::<rusqlite::Result<_>>()?;
    Ok(names.into_iter().flatten().collect())
}

/// A table with its columns and its primary key, in table order.
fn table(connection: &Connection, name: &Arc<str>) -> rusqlite::Result<Table> {
    let columns = columns::read(connection, name)?;
    Ok(Table {
        schema: SCHEMA.into(),
        name: name.clone(),
        primary_key: columns.iter().filter(|column| column.primary != 0).map(|column| column.name.clone()).collect(),
        columns: columns.into_iter().filter(|column| !column.is_left_out()).map(|column| column.name).collect(),
        leaves_values_out: false,
    })
}
