//! Reads the columns of a table: name, type, default, affinity, collation.

use crate::source::sqlite::layout::{SCHEMA, StrictType};
use crate::source::sqlite::table::{Affinity, TableColumn};
use rusqlite::{Connection, OptionalExtension as _};
use std::sync::Arc;

/// A column as `PRAGMA table_xinfo` lists it.
pub(super) struct CatalogueColumn {
    pub(super) name: Arc<str>,
    pub(super) declared: String,
    pub(super) affinity: Affinity,
    /// Its type, if the table is STRICT.
    pub(super) strict: Option<StrictType>,
    pub(super) default: Option<String>,
    pub(super) not_null: bool,
    /// Its number in the primary key, from 1; 0 outside.
    pub(super) primary: u32,
    /// 1: hidden column of a virtual table; 2: generated, computed on reading; 3: generated and stored.
    pub(super) hidden: i64,
}

impl CatalogueColumn {
    /// Whether events leave the column out. A trigger of ours that reads a computed column would run the application's expression at
    /// each write, and the expression may fail.
    pub(super) const fn is_left_out(&self) -> bool {
        matches!(self.hidden, 1 | 2)
    }

    /// Whether readers expect bytes in the column. In a key each value is written in a way of its own, so there only a column that is
    /// declared as BLOB counts, and not one without a type, where text is as likely.
    pub(super) fn is_for_blobs(&self, is_key: bool) -> bool {
        self.affinity == Affinity::Blob && (!is_key || self.declared.to_ascii_uppercase().contains("BLOB"))
    }
}

/// The columns of a table, in table order.
pub(super) fn read(connection: &Connection, table: &str) -> rusqlite::Result<Vec<CatalogueColumn>> {
    let strict: bool = connection
        .query_row("SELECT strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1", [table], |row| row.get(0))
        .optional()?
        .unwrap_or(false);
    let mut statement = connection
        .prepare_cached("SELECT name, type, dflt_value, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid")?;
    let rows = statement.query_map([table], |row| {
        let declared = String::from_utf8_lossy(row.get_ref(1)?.as_bytes()?).into_owned();
        let default = row.get_ref(2)?.as_bytes_or_null()?.map(|text| String::from_utf8_lossy(text).into_owned());
        Ok(CatalogueColumn {
            name: row.get::<_, String>(0)?.into(),
            affinity: affinity(&declared, strict),
            strict: StrictType::parse(&declared).filter(|_| strict),
            declared,
            default,
            not_null: row.get(3)?,
            primary: row.get(4)?,
            hidden: row.get(5)?,
        })
    })?;
    rows.collect()
}

/// The affinity of a column of this declared type (`datatype3.html`, 3.1).
fn affinity(declared: &str, strict: bool) -> Affinity {
    let declared = declared.to_ascii_uppercase();
    let holds = |part: &str| declared.contains(part);
    match () {
        () if strict && declared == "ANY" => Affinity::Blob,
        () if holds("INT") => Affinity::Numeric,
        () if holds("CHAR") || holds("CLOB") || holds("TEXT") => Affinity::Text,
        () if declared.is_empty() || holds("BLOB") => Affinity::Blob,
        () => Affinity::Numeric,
    }
}

/// What the triggers need of a column.
pub(super) fn for_triggers(connection: &Connection, table: &str, column: &CatalogueColumn) -> rusqlite::Result<TableColumn> {
    let computed = matches!(column.hidden, 2 | 3);
    let default = column.default.as_ref().filter(|_| column.not_null && !computed);
    let null_default = match default.and_then(|default| stored_default(connection, &column.declared, default)) {
        Some(sql) => Some((sql, default_collation(connection, table, &column.name)?.unwrap_or_else(|| "BINARY".into()))),
        None => None,
    };
    Ok(TableColumn { name: column.name.clone(), affinity: column.affinity, computed, null_default })
}

/// The stored value of a default, as SQL; an expression stays an expression. `None` where it cannot be computed here, as with a
/// function of the application's own.
fn stored_default(connection: &Connection, declared: &str, default: &str) -> Option<String> {
    let is_literal = !default.contains('(') && !default.to_ascii_uppercase().starts_with("CURRENT_");
    let found = if is_literal {
        let make = format!(
            "CREATE TEMP TABLE _feedline_default(c {declared} DEFAULT {default}); INSERT INTO temp._feedline_default DEFAULT VALUES"
        );
        let value = connection
            .execute_batch(&make)
            .and_then(|()| connection.query_row("SELECT quote(c) FROM temp._feedline_default", [], |row| row.get(0)));
        // The table exists only if it could be made.
        let dropped = connection.execute_batch("DROP TABLE IF EXISTS temp._feedline_default");
        dropped.and(value)
    } else {
        connection.prepare(&format!("SELECT ({default})")).map(|_| format!("({default})"))
    };
    found.ok()
}

/// The collation of a column; `None` where it has none.
pub(super) fn default_collation(connection: &Connection, table: &str, column: &str) -> rusqlite::Result<Option<String>> {
    let (_, collation, ..) = connection.column_metadata(Some(SCHEMA), table, column)?;
    Ok(collation.map(|collation| collation.to_string_lossy().into_owned()))
}
