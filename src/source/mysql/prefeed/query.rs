//! Feeds whose prefeed is a query: the tables that it reads, and its columns.

use super::order::{KeyColumn, Spelling};
use super::table::Table;
use crate::fault::{Classify as _, Fault};
use crate::feed::{Feed, Feeds, PrefeedKind};
use crate::source::Key;
use crate::source::mysql::binlog::{BINARY, Storage, TableColumn};
use crate::source::mysql::charset::Charsets;
use crate::source::mysql::error::Error;
use crate::source::mysql::kind::Kind;
use crate::source::mysql::layout::Hints;
use crate::source::mysql::quote::identifier;
use crate::source::mysql::relation::Shape;
use crate::source::mysql::session::{Definition, Session};
use crate::source::mysql::tables;

/// The feed's query, if it has one, as an item of a `FROM` clause.
pub(super) fn from_item(feed: &Feed) -> Option<String> {
    match &feed.prefeed {
        // The line break ends a comment that may stand at the end of the query.
        PrefeedKind::Query(sql) => Some(format!("({}\n) AS q", sql.trim().trim_end_matches(';'))),
        PrefeedKind::None | PrefeedKind::Snapshot | PrefeedKind::File(_) => None,
    }
}

/// Turns the server's refusal of a read into an error that names the feed; other errors stay unchanged.
pub(super) fn explain_error(feed: &Feed, error: Error) -> Error {
    match error {
        Error::Refused(error) if matches!(feed.prefeed, PrefeedKind::Query(_)) && Error::Refused(error.clone()).fault() == Fault::Fatal => {
            refused(feed, error.to_string())
        }
        other => other,
    }
}

fn refused(feed: &Feed, reason: String) -> Error {
    Error::Query { table: feed.name.to_string(), reason }
}

/// The tables that the query may read, as quoted SQL names.
pub(super) async fn tables(feed: &Feed, from: &str, session: &mut Session) -> Result<Vec<String>, Error> {
    let explained = session.query(&format!("EXPLAIN FORMAT=TRADITIONAL SELECT * FROM {from}")).await;
    explained.map_err(|error| explain_error(feed, error))?;
    // The server notes the statement as it understood it, with the full name of each table.
    let notes = session.query("SHOW WARNINGS").await?;
    let mut named: Vec<(String, String)> = notes.iter().flat_map(|row| names(row.text(2))).collect();
    named.sort();
    named.dedup();
    let mut tables = Vec::new();
    for (schema, name) in named {
        // An alias with a column looks the same.
        tables.extend(tables::one(session, &schema, &name).await?.map(|table| table.sql_name()));
    }
    Ok(tables)
}

/// All pairs of quoted names with a point between.
fn names(statement: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut before: Option<String> = None;
    let mut rest = statement;
    while let Some((between, quoted)) = rest.split_once('`') {
        let Some((name, behind)) = quoted_name(quoted) else { break };
        if let (".", Some(schema)) = (between, before.take()) {
            found.push((schema, name.clone()));
        }
        before = Some(name);
        rest = behind;
    }
    found
}

/// A name up to its closing quote, and what follows. A quote in a name is doubled.
fn quoted_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (part, behind) = rest.split_once('`')?;
        name.push_str(part);
        match behind.strip_prefix('`') {
            Some(behind) => {
                name.push('`');
                rest = behind;
            }
            None => return Some((name, behind)),
        }
    }
}

/// Describes the query's columns and key.
pub(super) async fn describe(feed: &Feed, from: String, charsets: &Charsets, session: &mut Session) -> Result<Table, Error> {
    let prepared = session.prepare(&format!("SELECT * FROM {from}")).await.map_err(|error| explain_error(feed, error))?;
    session.forget(&prepared);
    if 0 < prepared.parameters {
        return Err(refused(feed, "it has parameters (?), which have no values".to_owned()));
    }
    let columns = prepared.columns.iter().map(|definition| {
        let unknown = || refused(feed, format!("column {:?} is of a type that is not known", definition.name));
        Ok(TableColumn {
            name: Some(definition.name.as_str().into()),
            storage: storage(definition).ok_or_else(unknown)?,
            is_nullable: !definition.is_not_null,
        })
    });
    let columns = columns.collect::<Result<Vec<_>, Error>>()?;
    if let Some(missing) = feed.key.iter().find(|key| columns.iter().all(|column| column.name.as_ref() != Some(*key))) {
        return Err(refused(feed, format!("it yields no column {missing:?}, which is the feed's key")));
    }
    let hints = tables::one(session, &feed.schema, &feed.table).await?.map(|table| Hints::of(&table)).unwrap_or_default();
    let Shape { columns: shapes, relation } = Shape::of(feed, &columns, &hints, charsets)?;
    let mut selected: Vec<_> = relation.columns.iter().map(|column| identifier(&column.name)).collect();
    let mut key = Vec::new();
    let mut identity = vec![format!("{:08x}", crc32c::crc32c(from.as_bytes()))];
    for (index, (column, shape)) in columns.iter().zip(&shapes).enumerate().filter(|(_, (_, shape))| shape.key) {
        let name = selected[index].clone();
        let spelling = Spelling::of(&column.storage, &shape.kind)
            .ok_or_else(|| refused(feed, format!("its key column {name} is of a type that has no order")))?;
        identity.push(format!("{name}:{:?}", column.storage));
        // No index makes a query's rows unique: rows that compare equal may still have different keys. So text is compared by its bytes.
        key.push(if matches!(shape.kind, Kind::Text(_)) {
            let expression = format!("CAST({name} AS BINARY)");
            selected.push(expression.clone());
            let spelling = Spelling::Bytes { before: "x'".to_owned(), behind: "'" };
            KeyColumn { expression, index: selected.len() - 1, spelling }
        } else {
            KeyColumn { expression: name, index, spelling }
        });
    }
    Ok(Table { from, selected, shapes, key, fingerprint: identity.join(";"), relation, is_query: true })
}

/// How the log would store a column that is described so; `None` if its type is not known.
fn storage(column: &Definition) -> Option<Storage> {
    let digits = column.decimals.min(6);
    let integer = |bytes| Storage::Integer { bytes, unsigned: column.is_unsigned };
    let small = u16::try_from(column.length).ok();
    let characters =
        |length, is_padded| Storage::Characters { prefix: 4, length, collation: column.collation, is_padded, is_compressed: false };
    Some(match column.kind {
        1 => integer(1),
        2 => integer(2),
        9 => integer(3),
        3 => integer(4),
        8 => integer(8),
        4 => Storage::Float,
        5 => Storage::Double,
        0 | 246 => {
            // The length counts the sign and the point too.
            let beside = u32::from(!column.is_unsigned) + u32::from(0 < column.decimals);
            let precision = u8::try_from(column.length.saturating_sub(beside)).unwrap_or(65).min(65);
            Storage::Decimal { precision, scale: column.decimals.min(30) }
        }
        13 => Storage::Year,
        16 => Storage::Bit { bits: u8::try_from(column.length).unwrap_or(64) },
        10 | 14 => Storage::Date,
        11 | 19 => Storage::Time { digits },
        12 | 18 => Storage::DateTime { digits },
        7 | 17 => Storage::Timestamp { digits },
        15 | 253 => characters(small, false),
        254 => characters(small, column.collation == BINARY),
        247..=252 => characters(None, false),
        245 => Storage::Json { prefix: 4 },
        255 => Storage::Geometry { prefix: 4 },
        242 => Storage::Vector { prefix: 4 },
        _ => return None,
    })
}

/// Refuses a row with the same key as the row before it. In key order such rows are neighbours.
pub(super) fn check_key(feed: &Feed, before: Option<&Key>, key: &Key) -> Result<(), Error> {
    if before == Some(key) { Err(refused(feed, format!("it yields the key ({}) more than once", key.join(", ")))) } else { Ok(()) }
}

/// Lets the server plan the queries, without running them. Adds its objections to `found`.
pub(crate) async fn verify(feeds: &Feeds, session: &mut Session, found: &mut Vec<Error>) -> Result<(), Error> {
    let mut charsets = None;
    for feed in feeds.iter() {
        let Some(from) = from_item(feed) else { continue };
        let charsets = match &mut charsets {
            Some(charsets) => charsets,
            none => none.insert(Charsets::read(session).await?),
        };
        match describe(feed, from, charsets, session).await {
            Err(error) if error.fault() == Fault::Transient => return Err(error),
            tried => found.extend(tried.err()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn tables_are_found_in_the_servers_own_words() {
        let note = "/* select#1 */ select `q`.`a` AS `a` from `e`.`u` join `e 2`.`v``w` `x` where (`x`.`b` = `e`.`u`.`c`)";
        let pair = |schema: &str, name: &str| (schema.to_owned(), name.to_owned());
        let found = names(note);
        assert!(found.contains(&pair("e", "u")) && found.contains(&pair("e 2", "v`w")) && found.contains(&pair("q", "a")), "{found:?}");
        assert_eq!(names("no `end"), []);
    }
}
