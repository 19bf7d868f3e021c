//! Describes a table as the snapshot shows it: its published columns and the order of its rows.

use super::order::{self, KeyOrder, Order};
use crate::event::{FeedId, Relation};
use crate::feed::{Feed, Feeds};
use crate::source::postgres::error::Error;
use crate::source::postgres::kind::Kind;
use crate::source::postgres::options::Options;
use crate::source::postgres::quote::{identifier, literal, table};
use crate::source::postgres::session::{Answer, Session};
use crate::source::postgres::types::Types;
use crate::source::postgres::version::Version;
use std::collections::HashMap;

/// The columns that the publication publishes of these tables.
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

/// A column by which rows are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyColumn {
    pub(super) name: String,
    /// Its index among the columns that are read.
    pub(super) index: usize,
    pub(super) order: Order,
}

pub(super) struct Table {
    /// The item of the `FROM` clause.
    pub(super) from: String,
    /// The publication's row filter; `None`: all rows are published.
    pub(super) filter: Option<String>,
    /// All columns that are read, in table order.
    pub(super) columns: Vec<String>,
    pub(super) kinds: Vec<Kind>,
    /// In the order of the unique index, if there is one.
    pub(super) key: Vec<KeyColumn>,
    /// Changes when stored keys can no longer be compared with the table's keys.
    pub(super) fingerprint: String,
    pub(super) relation: Relation,
    /// Whether it is a query. Its keys may not be unique.
    pub(super) is_query: bool,
}

/// A published column.
struct PublishedColumn<'a> {
    name: &'a str,
    type_oid: u32,
    modifier: i32,
    /// Attribute number, type, modifier and collation.
    identity: String,
}

/// The query for columns, for a server of this version.
fn columns_sql(version: Version) -> String {
    let (filter, listed) = if version.has_publication_lists() { ("p.rowfilter", "a.attname = ANY (p.attnames)") } else { ("NULL", "true") };
    let written = if version.publishes_generated_columns() { "true" } else { "a.attgenerated = ''" };
    COLUMNS.replace("{filter}", filter).replace("{listed}", listed).replace("{written}", written)
}

/// Describes these tables as the session's snapshot shows them. A table that is not published is left out.
pub(super) async fn describe(
    options: &Options,
    feeds: &Feeds,
    listed: &[&Feed],
    types: &mut Types,
    session: &mut Session,
) -> Result<HashMap<FeedId, Table>, Error> {
    let mut tables = HashMap::new();
    let mut keys = order::keys(feeds, listed, session).await?;
    let names = listed.iter().map(|feed| format!("({}, {})", literal(&feed.schema), literal(&feed.table)));
    let names = names.collect::<Vec<_>>().join(", ");
    let sql = columns_sql(session.version()).replace("{publication}", &literal(&options.publication)).replace("{tables}", &names);
    let rows = session.query(&sql).await?;
    let oids: Vec<u32> = rows.iter().filter_map(|row| row.text(5).parse().ok()).collect();
    let unknown = types.unknown(oids);
    types.learn(&unknown, session).await?;
    for columns in rows.chunk_by(|a, b| (a.text(0), a.text(1)) == (b.text(0), b.text(1))) {
        let feed = columns.first().and_then(|row| feeds.of_table(row.text(0), row.text(1)));
        let Some(feed) = feed.filter(|feed| listed.iter().any(|other| other.id == feed.id)) else { continue };
        let Some(key) = keys.remove(&feed.id) else { continue };
        tables.insert(feed.id, Table::new(feed, columns, key?, types)?);
    }
    Ok(tables)
}

impl Table {
    fn new(feed: &Feed, rows: &[Answer], key: KeyOrder, types: &Types) -> Result<Self, Error> {
        let published: Vec<PublishedColumn<'_>> = rows
            .iter()
            .map(|row| PublishedColumn {
                name: row.text(3),
                type_oid: row.text(5).parse().unwrap_or(0),
                modifier: row.text(7).parse().unwrap_or(-1),
                identity: [4, 5, 7, 6].map(|part| row.text(part)).join(":"),
            })
            .collect();
        let head = &rows[0];
        // A partitioned table is read with its partitions; an ordinary table without the tables that inherit from it.
        let only = if head.text(2) == "p" { "" } else { "ONLY " };
        let key = key_columns(feed, &published, key)?;
        let relation = types.relation(feed, published.iter().map(|column| (column.name, column.type_oid, column.modifier)));
        let identities: Vec<_> =
            key.iter().map(|column| format!("{}:{}", published[column.index].identity, column.order.fingerprint())).collect();
        Ok(Self {
            from: format!("{only}{}", table(&feed.schema, &feed.table)),
            filter: head.get(8).map(str::to_owned),
            columns: published.iter().map(|column| identifier(column.name)).collect(),
            kinds: published.iter().map(|column| types.kind(column.type_oid)).collect(),
            key,
            fingerprint: format!("{};{}", head.text(9), identities.join(";")),
            relation,
            is_query: false,
        })
    }
}

/// The key's columns, with their indexes among the columns that are read.
fn key_columns(feed: &Feed, columns: &[PublishedColumn<'_>], key: KeyOrder) -> Result<Vec<KeyColumn>, Error> {
    let key_column = |(name, order): (String, Order)| {
        let index = columns.iter().position(|column| column.name == name).ok_or_else(|| Error::TableChanged {
            table: feed.name.to_string(),
            reason: format!("its key column {name:?} is no longer there, or not published; name another key for the feed"),
        })?;
        Ok(KeyColumn { name: identifier(&name), index, order })
    };
    key.into_iter().map(key_column).collect()
}
