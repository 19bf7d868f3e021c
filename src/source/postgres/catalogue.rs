//! Which tables the database has.

use super::error::Error;
use super::session::Session;
use crate::feed::Table;
use std::sync::Arc;

/// Ordinary and partitioned tables of all schemas but the system's; partitions are part of their root.
const TABLES: &str = "\
SELECT n.nspname, c.relname, a.attname, COALESCE(a.attnum = ANY (i.indkey), false), c.relreplident <> 'f' AND a.attstorage <> 'p' \
FROM pg_catalog.pg_class c \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary \
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' \
AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
ORDER BY n.nspname, c.relname, c.oid, a.attnum";

/// The names of the same tables.
pub(super) const NAMES: &str = "\
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' \
AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1, 2";

/// All tables that could be published, in the order of their names.
pub(super) async fn tables(session: &mut Session) -> Result<Vec<Table>, Error> {
    let mut tables: Vec<Table> = Vec::new();
    for row in session.query(TABLES).await? {
        let (schema, name, column) = (row.text(0), row.text(1), Arc::<str>::from(row.text(2)));
        if tables.last().is_none_or(|table| (&*table.schema, &*table.name) != (schema, name)) {
            tables.push(Table {
                schema: schema.into(),
                name: name.into(),
                primary_key: Vec::new(),
                columns: Vec::new(),
                leaves_values_out: false,
            });
        }
        let Some(table) = tables.last_mut() else { continue };
        let is_key = row.is_true(3);
        if is_key {
            table.primary_key.push(Arc::clone(&column));
        }
        // Only values that may be stored outside of their row are left out.
        table.leaves_values_out |= row.is_true(4) && !is_key;
        table.columns.push(column);
    }
    Ok(tables)
}
