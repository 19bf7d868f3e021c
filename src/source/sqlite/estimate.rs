//! Estimates how many rows a table has, without reading the whole of a large one.

use crate::feed::Feed;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::open;
use crate::source::sqlite::sql::quoted;
use rusqlite::OptionalExtension as _;
use std::path::Path;

/// Counts the rows of a table with up to a million rows. For a larger one takes the number of ANALYZE, or else the span of row numbers.
pub(super) fn expected_rows(path: &Path, feed: &Feed) -> Result<Option<u64>, Error> {
    const COUNTED_MAX: u64 = 1_000_000;
    let (connection, _) = open::open(path)?;
    let count = format!("SELECT count(*) FROM (SELECT 1 FROM main.{} LIMIT {})", quoted(&feed.table), COUNTED_MAX + 1);
    let counted: rusqlite::Result<i64> = connection.query_row(&count, [], |row| row.get(0));
    if let Some(rows) = counted.ok().and_then(|rows| u64::try_from(rows).ok()).filter(|rows| *rows <= COUNTED_MAX) {
        return Ok(Some(rows));
    }
    let statistics: rusqlite::Result<Option<String>> = connection
        .query_row("SELECT stat FROM main.sqlite_stat1 WHERE tbl = ?1 LIMIT 1", [feed.table.as_ref()], |row| row.get(0))
        .optional();
    if let Some(count) = statistics.ok().flatten().and_then(|text| text.split(' ').next()?.parse().ok()) {
        return Ok(Some(count));
    }
    let span = format!("SELECT max(rowid) - min(rowid) + 1 FROM main.{}", quoted(&feed.table));
    let span: rusqlite::Result<Option<i64>> = connection.query_row(&span, [], |row| row.get(0));
    // The span of an empty table is NULL. A table without row numbers has no cheap estimate.
    Ok(span.ok().map(|span| u64::try_from(span.unwrap_or(0)).unwrap_or(0)))
}
