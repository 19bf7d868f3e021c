//! Checks whether a table can be followed by its feed's key.

use super::Table;
use crate::feed::Feed;
use crate::preflight::named;
use crate::source::mysql::charset::Charsets;
use crate::source::mysql::error::Error;
use crate::source::mysql::quote::identifier;
use std::sync::Arc;

/// Finds all reasons why the table cannot be followed.
pub(crate) fn check(feed: &Feed, table: &Table, charsets: &Charsets) -> Vec<Error> {
    let mut errors: Vec<Error> = [engine(feed, table), versions(table), charset(table, charsets)]
        .into_iter()
        .flatten()
        .map(|reason| Error::Unfit { table: feed.name.to_string(), reason })
        .collect();
    errors.extend(key(feed, table));
    errors
}

/// Whether statements of its tables are undone when they fail, and snapshots show its rows.
pub(crate) fn is_transactional(table: &Table) -> bool {
    table.engine.eq_ignore_ascii_case("InnoDB")
}

fn engine(feed: &Feed, table: &Table) -> Option<String> {
    let (engine, name) = (&table.engine, table.sql_name());
    if engine.eq_ignore_ascii_case("MEMORY") {
        return Some(format!("its engine MEMORY forgets rows at a restart; run: ALTER TABLE {name} ENGINE = InnoDB"));
    }
    let is_unreadable = !is_transactional(table) && feed.prefeed.is_read();
    is_unreadable
        .then(|| format!("its engine {engine} has no snapshots; run: ALTER TABLE {name} ENGINE = InnoDB, or set prefeed = \"none\" for it"))
}

/// The log shows each old version that is kept as a row that was added, with the same key.
fn versions(table: &Table) -> Option<String> {
    table.is_versioned.then(|| {
        let name = table.sql_name();
        format!("it keeps old versions, which the log shows as new rows; run: ALTER TABLE {name} DROP SYSTEM VERSIONING")
    })
}

fn charset(table: &Table, charsets: &Charsets) -> Option<String> {
    let is_unknown = |charset: &Arc<str>| &**charset != "binary" && charsets.of_name(charset).is_none();
    let unknown =
        table.columns.iter().filter_map(|column| Some((&column.name, column.charset.as_ref()?))).filter(|(_, charset)| is_unknown(charset));
    let columns: Vec<String> = unknown.map(|(column, charset)| format!("{} ({charset})", identifier(column))).collect();
    (!columns.is_empty()).then(|| {
        let name = table.sql_name();
        format!("feedline cannot decode text of {}; run: ALTER TABLE {name} CONVERT TO CHARACTER SET utf8mb4", named(columns))
    })
}

/// The key's columns must never be null, and no two rows may have the same key.
fn key(feed: &Feed, table: &Table) -> Vec<Error> {
    let keyless = |reason: String, remedy: String| Error::Keyless { table: feed.name.to_string(), reason, remedy };
    let name = table.sql_name();
    if feed.key.is_empty() {
        return vec![keyless("it has no primary key and the feed names no key".to_owned(), key_wanted(table))];
    }
    let nullable = feed.key.iter().filter_map(|column| table.column(column)).filter(|column| column.is_nullable);
    let errors: Vec<Error> = nullable
        .map(|column| {
            let column = identifier(&column.name);
            keyless(format!("{column} may be null"), format!("make it NOT NULL: ALTER TABLE {name} MODIFY {column} ... NOT NULL"))
        })
        .collect();
    if !errors.is_empty() || table.unique_index(&feed.key).is_some() {
        return errors;
    }
    let columns: Vec<String> = feed.key.iter().map(|column| identifier(column)).collect();
    let reason = format!("no index keeps {} unique", named(columns.iter().cloned()));
    vec![keyless(reason, format!("run: ALTER TABLE {name} ADD UNIQUE ({})", columns.join(", ")))]
}

/// What to do about a table without a primary key: name the columns that are unique already, or add one.
fn key_wanted(table: &Table) -> String {
    let all: Vec<Arc<str>> = table.columns.iter().map(|column| Arc::clone(&column.name)).collect();
    match table.unique_index(&all) {
        Some(index) => {
            let columns: Vec<String> = index.columns.iter().map(|column| format!("{column:?}")).collect();
            format!("set the feed's key = [{}]", columns.join(", "))
        }
        None => format!("run: ALTER TABLE {} ADD PRIMARY KEY (...)", table.sql_name()),
    }
}
