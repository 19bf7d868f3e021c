//! Lists the tables of the database.

use super::error::Error;
use super::session::Session;
use super::tables;
use crate::feed::{Table, TableName};

const VIEWS: &str = "\
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')";

/// The names of the tables that [`tables::all`] describes.
const NAMES: &str = "\
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' \
AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1, 2";

/// All tables that can be published, ordered by name. Partitions are part of their root table.
pub(super) async fn tables(session: &mut Session) -> Result<Vec<Table>, Error> {
    let table = |table: tables::Table| Table {
        schema: table.root.schema.clone(),
        name: table.root.name.clone(),
        primary_key: table.primary_key(),
        columns: table.root.columns.iter().map(|column| column.name.clone()).collect(),
        leaves_values_out: table.leaves_values_out(),
    };
    Ok(tables::all(session).await?.into_iter().map(table).collect())
}

/// The names of all tables that can be published. Partitions are part of their root table.
pub(super) async fn names(session: &mut Session) -> Result<Vec<TableName>, Error> {
    listed(session, NAMES).await
}

/// Schema and name of each view, materialized ones too.
pub(super) async fn views(session: &mut Session) -> Result<Vec<TableName>, Error> {
    listed(session, VIEWS).await
}

async fn listed(session: &mut Session, sql: &str) -> Result<Vec<TableName>, Error> {
    let rows = session.query(sql).await?;
    Ok(rows.iter().map(|row| (row.text(0).into(), row.text(1).into())).collect())
}
