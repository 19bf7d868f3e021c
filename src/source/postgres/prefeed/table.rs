//! A table as the snapshot shows it: which columns are published, how its rows are ordered, how they are written down.

use super::order::{self, Index, Order};
use crate::event::{Column, FeedId, Relation};
use crate::feed::{Feed, Feeds};
use crate::format::{Encoder, Format};
use crate::source::postgres::error::Error;
use crate::source::postgres::kind::Kind;
use crate::source::postgres::options::Options;
use crate::source::postgres::quote::{identifier, literal, table};
use crate::source::postgres::session::{Answer, Session};
use crate::source::postgres::types::Types;
use crate::source::postgres::version::Version;
use std::collections::HashMap;

/// Columns that the publication carries, of the tables whose names are put in place of the last list.
const COLUMNS: &str = "\
SELECT p.schemaname, p.tablename, c.relkind, a.attname, a.attnum, a.atttypid, a.attcollation, \
a.atttypmod, {filter}, c.oid \
FROM pg_catalog.pg_publication_tables p \
JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname \
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
AND {listed} AND {written} \
WHERE p.pubname = {publication} AND (p.schemaname, p.tablename) IN ({tables}) \
ORDER BY p.schemaname, p.tablename, a.attnum";

/// A column by which rows are ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyColumn {
    pub(super) name: String,
    /// Its place among the columns that are read.
    pub(super) place: usize,
    pub(super) order: Order,
}

pub(super) struct Table {
    /// Where its rows are read from, as SQL names it.
    pub(super) from: String,
    /// Which rows the publication carries: all where `None`.
    pub(super) filter: Option<String>,
    /// All columns that are read, in table order.
    pub(super) columns: Vec<String>,
    pub(super) kinds: Vec<Kind>,
    /// In the order of the index that serves it, where there is one.
    pub(super) key: Vec<KeyColumn>,
    /// Changes when keys of before no longer compare with keys of now.
    pub(super) fingerprint: String,
    pub(super) encoder: Encoder,
    /// Whether it is a query, of which it is not known that its keys are unique.
    pub(super) is_query: bool,
}

/// One row of the answer.
struct Described<'a> {
    name: &'a str,
    type_oid: u32,
    /// Number, type, modifier and collation.
    identity: String,
}

/// The question for columns, as a server of this version understands it.
fn columns(version: Version) -> String {
    let (filter, listed) = if version.has_publication_lists() { ("p.rowfilter", "a.attname = ANY (p.attnames)") } else { ("NULL", "true") };
    let written = if version.publishes_generated_columns() { "true" } else { "a.attgenerated = ''" };
    COLUMNS.replace("{filter}", filter).replace("{listed}", listed).replace("{written}", written)
}

/// Describes these tables, as the session's snapshot shows them. One that is not published is not there.
pub(super) async fn describe(
    options: &Options,
    feeds: &Feeds,
    listed: &[&Feed],
    format: &Format,
    types: &mut Types,
    session: &mut Session,
) -> Result<HashMap<FeedId, Table>, Error> {
    let mut tables = HashMap::new();
    let mut keys = order::keys(feeds, listed, session).await?;
    let names = listed.iter().map(|feed| format!("({}, {})", literal(&feed.schema), literal(&feed.table)));
    let names = names.collect::<Vec<_>>().join(", ");
    let sql = columns(session.version()).replace("{publication}", &literal(&options.publication)).replace("{tables}", &names);
    let rows = session.query(&sql).await?;
    let oids: Vec<u32> = rows.iter().filter_map(|row| row.text(5).parse().ok()).collect();
    let unknown = types.unknown(oids);
    types.learn(&unknown, session).await?;
    for of_table in rows.chunk_by(|a, b| (a.text(0), a.text(1)) == (b.text(0), b.text(1))) {
        let feed = of_table.first().and_then(|row| feeds.of_table(row.text(0), row.text(1)));
        let Some(feed) = feed.filter(|feed| listed.iter().any(|other| other.id == feed.id)) else { continue };
        let Some(key) = keys.remove(&feed.id) else { continue };
        tables.insert(feed.id, Table::prepare(feed, of_table, key?, format, types).await?);
    }
    Ok(tables)
}

impl Table {
    async fn prepare(feed: &Feed, rows: &[Answer], key: Index, format: &Format, types: &Types) -> Result<Self, Error> {
        let described: Vec<Described<'_>> = rows
            .iter()
            .map(|row| Described {
                name: row.text(3),
                type_oid: row.text(5).parse().unwrap_or(0),
                identity: [4, 5, 7, 6].map(|part| row.text(part)).join(":"),
            })
            .collect();
        let head = &rows[0];
        // Rows of a table that inherits are its own; those of a partition are its root's.
        let only = if head.text(2) == "p" { "" } else { "ONLY " };
        let key = place(feed, &described, key)?;
        let is_key = |name: &str| feed.key.iter().any(|key| **key == *name);
        let columns = described.iter().map(|column| Column { name: column.name.into(), key: is_key(column.name) }).collect();
        let relation = Relation { feed: feed.id, schema: feed.schema.clone(), table: feed.table.clone(), columns };
        let encoder = format.prepare(&relation).await;
        let identities: Vec<_> =
            key.iter().map(|column| format!("{}:{}", described[column.place].identity, column.order.fingerprint())).collect();
        Ok(Self {
            from: format!("{only}{}", table(&feed.schema, &feed.table)),
            filter: head.get(8).map(str::to_owned),
            columns: described.iter().map(|column| identifier(column.name)).collect(),
            kinds: described.iter().map(|column| types.kind(column.type_oid)).collect(),
            key,
            fingerprint: format!("{};{}", head.text(9), identities.join(";")),
            encoder: encoder.map_err(|source| Error::Row {
                table: feed.name.to_string(),
                position: "its definition".to_owned(),
                source,
            })?,
            is_query: false,
        })
    }
}

/// The key's columns, with their places among those that are read.
fn place(feed: &Feed, columns: &[Described<'_>], key: Index) -> Result<Vec<KeyColumn>, Error> {
    let placed = |(name, order): (String, Order)| {
        let place = columns.iter().position(|column| column.name == name).ok_or_else(|| Error::TableChanged {
            table: feed.name.to_string(),
            reason: format!("its key column {name:?} is no longer there, or not published; name another key for the feed"),
        })?;
        Ok(KeyColumn { name: identifier(&name), place, order })
    };
    key.into_iter().map(placed).collect()
}
