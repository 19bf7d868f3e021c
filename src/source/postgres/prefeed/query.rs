//! Feeds whose prefeed is a query: the tables that it reads, and its columns.

use super::order::{self, Order};
use super::table::{KeyColumn, Table};
use crate::fault::{Classify as _, Fault};
use crate::feed::{Feed, PrefeedKind};
use crate::source::Key;
use crate::source::postgres::error::Error;
use crate::source::postgres::quote::{identifier, table as named};
use crate::source::postgres::session::Session;
use crate::source::postgres::types::Types;
use serde_json::Value;

/// The feed's query, if it has one, as an item of a `FROM` clause.
pub(super) fn from_item(feed: &Feed) -> Option<String> {
    match &feed.prefeed {
        // The line break ends a comment that may stand at the end of the query.
        PrefeedKind::Query(sql) => Some(format!("({}\n) AS q", sql.trim().trim_end_matches(';'))),
        PrefeedKind::None | PrefeedKind::Snapshot | PrefeedKind::File(_) => None,
    }
}

/// SQLSTATEs of a character that is not defined in its encoding, and of one that does not exist in UTF-8.
const UNCONVERTIBLE: [&str; 2] = ["22021", "22P05"];

/// Turns the server's refusal of a read into an error that names the feed; other errors stay unchanged.
pub(super) fn explain_error(feed: &Feed, error: Error) -> Error {
    match error {
        Error::Refused(error) if UNCONVERTIBLE.contains(&error.sqlstate.as_str()) => {
            Error::Unconvertible { table: feed.name.to_string(), reason: error.to_string() }
        }
        Error::Refused(error) if matches!(feed.prefeed, PrefeedKind::Query(_)) => refused(feed, error.to_string()),
        other => other,
    }
}

fn refused(feed: &Feed, reason: String) -> Error {
    Error::Query { table: feed.name.to_string(), reason }
}

/// The tables that the query reads, as quoted SQL names. They are locked like a feed's own table.
pub(super) async fn tables(feed: &Feed, from: &str, session: &mut Session) -> Result<Vec<String>, Error> {
    let explained = session
        .query_one(&format!("EXPLAIN (VERBOSE, FORMAT JSON) SELECT * FROM {from}"))
        .await
        .map_err(|error| explain_error(feed, error))?;
    let plan: Value = serde_json::from_str(explained.text(0)).map_err(|_| Error::Protocol { what: "a plan in JSON" })?;
    let mut tables = Vec::new();
    collect_tables(&plan, &mut tables);
    tables.sort();
    tables.dedup();
    Ok(tables)
}

fn collect_tables(plan: &Value, tables: &mut Vec<String>) {
    match plan {
        Value::Object(node) => {
            if let (Some(Value::String(schema)), Some(Value::String(table))) = (node.get("Schema"), node.get("Relation Name")) {
                tables.push(named(schema, table));
            }
            node.values().for_each(|value| collect_tables(value, tables));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_tables(value, tables)),
        _ => {}
    }
}

/// Describes the query's columns and key.
pub(super) async fn describe(feed: &Feed, from: String, types: &mut Types, session: &mut Session) -> Result<Table, Error> {
    let columns = session.columns(&format!("SELECT * FROM {from}")).await.map_err(|error| explain_error(feed, error))?;
    let unknown = types.unknown(columns.iter().map(|column| column.type_oid));
    types.learn(&unknown, session).await?;
    let mut key = Vec::new();
    let mut identity = vec![format!("{:08x}", crc32c::crc32c(from.as_bytes()))];
    for name in &feed.key {
        let index = columns.iter().position(|column| *column.name == **name);
        let index = index.ok_or_else(|| refused(feed, format!("it yields no column {name:?}, which is the feed's key")))?;
        let (oid, modifier) = (columns[index].type_oid, columns[index].modifier);
        let default = order::defaults(&[oid], session).await?.remove(&oid);
        let default = default.ok_or_else(|| refused(feed, format!("its key column {name:?} is of a type that has no order")))?;
        // No index makes a query's rows unique: rows that compare equal may still have different keys.
        let exact = (!default.is_exact).then(Order::of_output);
        for order in std::iter::once(default.order).chain(exact) {
            identity.push(format!("{name}:{oid}:{modifier}:{}", order.fingerprint()));
            key.push(KeyColumn { name: identifier(name), index, order });
        }
    }
    let relation = types.relation(feed, columns.iter().map(|column| (column.name.as_str(), column.type_oid, column.modifier)));
    Ok(Table {
        from,
        filter: None,
        columns: columns.iter().map(|column| identifier(&column.name)).collect(),
        kinds: columns.iter().map(|column| types.kind(column.type_oid)).collect(),
        key,
        fingerprint: identity.join(";"),
        relation,
        is_query: true,
    })
}

/// Refuses a row with the same key as the row before it. In key order such rows are neighbours.
pub(super) fn check_key(feed: &Feed, table: &Table, before: Option<&Key>, key: &Key) -> Result<(), Error> {
    if before != Some(key) {
        return Ok(());
    }
    // The value of a column that is compared in two ways is in the key twice.
    let values = table.key.iter().zip(key).filter(|(column, _)| !column.order.is_of_output()).map(|(_, value)| value.as_str());
    Err(refused(feed, format!("it yields the key ({}) more than once", values.collect::<Vec<_>>().join(", "))))
}

/// Lets the server plan the queries, without running them. Adds its objections to `found`.
pub(crate) async fn verify(feeds: &crate::feed::Feeds, session: &mut Session, found: &mut Vec<Error>) -> Result<(), Error> {
    for feed in feeds.iter() {
        let Some(from) = from_item(feed) else { continue };
        session.query("BEGIN READ ONLY").await?;
        let tried = try_query(feed, from, session).await;
        // Before the error is judged: the session is used again.
        session.query("ROLLBACK").await?;
        match tried {
            Err(error) if error.fault() == Fault::Transient => return Err(error),
            tried => found.extend(tried.err()),
        }
    }
    Ok(())
}

async fn try_query(feed: &Feed, from: String, session: &mut Session) -> Result<(), Error> {
    // First, because it shows that the text is one statement.
    describe(feed, from.clone(), &mut Types::default(), session).await?;
    tables(feed, &from, session).await.map(drop)
}
