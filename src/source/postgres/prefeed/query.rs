//! Rows of a query in place of a table's: what it reads, and what its columns are.

use super::order::{self, Order};
use super::ranges::Key;
use super::table::{KeyColumn, Table};
use crate::event::{Column, Relation};
use crate::fault::{Classify as _, Fault};
use crate::feed::{Feed, PrefeedKind};
use crate::format::Format;
use crate::source::postgres::error::Error;
use crate::source::postgres::quote::{identifier, table as named};
use crate::source::postgres::session::Session;
use crate::source::postgres::types::Types;
use serde_json::Value;

/// The feed's query, if it has one, as a table of a `FROM` clause.
pub(super) fn derived(feed: &Feed) -> Option<String> {
    match &feed.prefeed {
        // The query may end with a comment.
        PrefeedKind::Query(sql) => Some(format!("({}\n) AS q", sql.trim().trim_end_matches(';'))),
        PrefeedKind::None | PrefeedKind::Snapshot | PrefeedKind::File(_) => None,
    }
}

/// A character that its encoding does not define, or that UTF-8 has not.
const UNCONVERTIBLE: [&str; 2] = ["22021", "22P05"];

/// What the server says against the query of this feed; other errors stay what they are.
pub(super) fn blamed(feed: &Feed, error: Error) -> Error {
    match error {
        Error::Refused(said) if UNCONVERTIBLE.contains(&said.sqlstate.as_str()) => {
            Error::Unconvertible { table: feed.name.to_string(), reason: said.to_string() }
        }
        Error::Refused(error) if matches!(feed.prefeed, PrefeedKind::Query(_)) => refused(feed, error.to_string()),
        other => other,
    }
}

fn refused(feed: &Feed, reason: String) -> Error {
    Error::Query { table: feed.name.to_string(), reason }
}

/// The tables that the query reads, as SQL names them: they are locked like a feed's own.
pub(super) async fn tables(feed: &Feed, from: &str, session: &mut Session) -> Result<Vec<String>, Error> {
    let explained =
        session.query_one(&format!("EXPLAIN (VERBOSE, FORMAT JSON) SELECT * FROM {from}")).await.map_err(|error| blamed(feed, error))?;
    let plan: Value = serde_json::from_str(explained.text(0)).map_err(|_| Error::Protocol { what: "a plan in JSON" })?;
    let mut tables = Vec::new();
    collect(&plan, &mut tables);
    tables.sort();
    tables.dedup();
    Ok(tables)
}

fn collect(plan: &Value, tables: &mut Vec<String>) {
    match plan {
        Value::Object(node) => {
            if let (Some(Value::String(schema)), Some(Value::String(table))) = (node.get("Schema"), node.get("Relation Name")) {
                tables.push(named(schema, table));
            }
            node.values().for_each(|value| collect(value, tables));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, tables)),
        _ => {}
    }
}

/// Describes what the query yields.
pub(super) async fn describe(feed: &Feed, from: String, format: &Format, types: &mut Types, session: &mut Session) -> Result<Table, Error> {
    let columns = session.columns(&format!("SELECT * FROM {from} LIMIT 0")).await.map_err(|error| blamed(feed, error))?;
    let unknown = types.unknown(columns.iter().map(|column| column.type_oid));
    types.learn(&unknown, session).await?;
    let mut key = Vec::new();
    let mut identity = vec![format!("{:08x}", crc32c::crc32c(from.as_bytes()))];
    for name in &feed.key {
        let place = columns.iter().position(|column| *column.name == **name);
        let place = place.ok_or_else(|| refused(feed, format!("it yields no column {name:?}, which is the feed's key")))?;
        let (oid, modifier) = (columns[place].type_oid, columns[place].modifier);
        let found = order::defaults(&[oid], session).await?.remove(&oid);
        let found = found.ok_or_else(|| refused(feed, format!("its key column {name:?} is of a type that has no order")))?;
        // No index keeps a query's rows apart: those that are equal may be of different keys still.
        let exact = (!found.is_exact).then(Order::of_output);
        for order in std::iter::once(found.order).chain(exact) {
            identity.push(format!("{name}:{oid}:{modifier}:{}", order.fingerprint()));
            key.push(KeyColumn { name: identifier(name), place, order });
        }
    }
    let is_key = |name: &str| feed.key.iter().any(|key| **key == *name);
    let described = columns.iter().map(|column| Column { name: column.name.as_str().into(), key: is_key(&column.name) }).collect();
    let relation = Relation { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns: described };
    Ok(Table {
        from,
        filter: None,
        columns: columns.iter().map(|column| identifier(&column.name)).collect(),
        kinds: columns.iter().map(|column| types.kind(column.type_oid)).collect(),
        key,
        fingerprint: identity.join(";"),
        encoder: format.prepare(&relation).await.map_err(|error| refused(feed, error.to_string()))?,
        is_query: true,
    })
}

/// Refuses a second row with the key of the one before it: in key order they are neighbours.
pub(super) fn check_key(feed: &Feed, table: &Table, before: Option<&Key>, key: &Key) -> Result<(), Error> {
    if before != Some(key) {
        return Ok(());
    }
    // A column that is compared twice has its value there twice.
    let named = table.key.iter().zip(key).filter(|(column, _)| !column.order.is_of_output()).map(|(_, value)| value.as_str());
    Err(refused(feed, format!("it yields the key ({}) more than once", named.collect::<Vec<_>>().join(", "))))
}

/// Asks the server what it makes of the queries, changing nothing; what it says against them is found.
pub(crate) async fn verify(
    feeds: &crate::feed::Feeds,
    format: &Format,
    session: &mut Session,
    found: &mut Vec<Error>,
) -> Result<(), Error> {
    for feed in feeds.iter() {
        let Some(from) = derived(feed) else { continue };
        session.query("BEGIN READ ONLY").await?;
        match look(feed, from, format, session).await {
            Err(error) if error.fault() == Fault::Transient => return Err(error),
            looked => found.extend(looked.err()),
        }
        session.query("ROLLBACK").await?;
    }
    Ok(())
}

async fn look(feed: &Feed, from: String, format: &Format, session: &mut Session) -> Result<(), Error> {
    tables(feed, &from, session).await?;
    describe(feed, from, format, &mut Types::default(), session).await.map(drop)
}
