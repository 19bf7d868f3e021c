//! The query that reads rows of the change log.

use crate::source::sqlite::layout::Layout;
use crate::source::sqlite::log_row::Heading;
use crate::source::sqlite::names::Names;
use crate::source::sqlite::operation;
use crate::source::sqlite::page::Page;
use crate::source::sqlite::sql::{numbered, quoted};
use rusqlite::{Connection, Row, params};

/// How many key columns (`k0`, `k1`, ...) and value columns (`v0`, `v1`, ...) the log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width {
    keys: usize,
    values: usize,
}

impl Width {
    pub(super) fn read(connection: &Connection, names: &Names) -> rusqlite::Result<Self> {
        Ok(Self { keys: count_columns(connection, &names.log, 'k')?, values: count_columns(connection, &names.log, 'v')? })
    }
}

/// How many numbered columns with a letter a table of ours has.
pub(super) fn count_columns(connection: &Connection, table: &str, letter: char) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM pragma_table_info(?1, 'main') WHERE name GLOB ?2")?;
    let count: i64 = statement.query_row(params![table, format!("{letter}[0-9]*")], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Reads the log's rows from a number on: number, version, operation and clock, then keys, then values.
pub(super) fn select(names: &Names, width: Width) -> String {
    let (keys, values) = (numbered("k", width.keys), numbered("v", width.values));
    format!("SELECT seq, tid, op, at{keys}{values} FROM main.{} WHERE seq >= ?1 ORDER BY seq", quoted(&names.log))
}

/// The heading of a row that [`select`] reads.
pub(super) fn heading(row: &Row<'_>) -> rusqlite::Result<Heading> {
    Ok(Heading { seq: row.get(0)?, tid: row.get(1)?, op: row.get(2)?, at: row.get(3)? })
}

/// Appends a row that [`select`] reads to a page, with the columns that its layout has.
pub(super) fn push(page: &mut Page, row: &Row<'_>, heading: Heading, layout: Option<&Layout>, width: Width) -> rusqlite::Result<()> {
    let (keys, values) = match (layout, operation::holds(heading.op)) {
        (Some(layout), Some(holds)) => {
            (if holds.old_key { layout.key_len() } else { 0 }, if holds.values { layout.columns.len() } else { 0 })
        }
        _ => (0, 0),
    };
    page.push(heading, |cells| {
        for index in (4..4 + keys).chain(4 + width.keys..4 + width.keys + values) {
            cells.push(row.get_ref(index)?);
        }
        Ok(())
    })
}
