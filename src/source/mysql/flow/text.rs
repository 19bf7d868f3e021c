//! The text of a statement: its session wrote it in the session's character set (`character_set_client`).
//!
//! The server writes some statements itself. It names tables in them in the session's character set too, but in UTF-8 in a `CREATE TABLE` that
//! comes of a query or of a temporary table (MariaDB 10.11 `sql/sql_show.cc`, `show_create_table`; seen on MySQL 9.7 as well). Nothing tells
//! such a text from one of the session.

use super::statement::Statement;
use crate::source::mysql::binlog::Query;
use crate::source::mysql::charset::Charsets;
use crate::source::mysql::error::Error;
use crate::source::mysql::lookup::Lookup;
use std::borrow::Cow;

/// The longest text that the server is asked to decode.
const LENGTH_MAX: usize = 1 << 20;

/// Reads a statement; in all its readings, where it has several. `None` where it may concern a table and cannot be read. Cancel safe.
pub(super) async fn read(query: &Query<'_>, sql: &[u8], charsets: &Charsets, lookup: &mut Lookup) -> Result<Option<Vec<Statement>>, Error> {
    let plain = String::from_utf8_lossy(sql);
    let read = |text: &str| Statement::read(text, query.writing);
    let first = read(&plain);
    // In every character set its keywords are the same.
    let Some(collation) = query.writing.collation.filter(|_| first.names_table()) else { return Ok(Some(vec![first])) };
    let Some(decoded) = decode(sql, &plain, collation.into(), charsets, lookup).await? else { return Ok(None) };
    let mut readings = vec![read(&decoded)];
    if matches!((&first, &plain), (Statement::Create { .. }, Cow::Borrowed(text)) if *text != decoded) {
        readings.push(first);
    }
    Ok(Some(readings))
}

async fn decode<'s>(
    sql: &'s [u8],
    plain: &'s str,
    collation: u32,
    charsets: &Charsets,
    lookup: &mut Lookup,
) -> Result<Option<Cow<'s, str>>, Error> {
    if let Some(charset) = charsets.get(collation) {
        return Ok(charset.decode_statement(sql));
    }
    match charsets.undecodable(collation) {
        Some(_) if LENGTH_MAX < sql.len() => Ok(None),
        Some(charset) if !sql.is_ascii() => Ok(lookup.text(charset, sql).await?.map(Cow::Owned)),
        // Names in `binary` are in UTF-8 for the server.
        Some(_) | None => Ok(Some(Cow::Borrowed(plain))),
    }
}
