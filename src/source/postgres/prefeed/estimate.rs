//! Estimated sizes of tables, from the server's statistics.

use crate::event::FeedId;
use crate::feed::Feeds;
use crate::source::postgres::error::Error;
use crate::source::postgres::session::Session;
use crate::source::postgres::tables;
use std::collections::HashMap;

/// A table's size. That of a partitioned table is the sum of its partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Estimate {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// Estimates all feeds' tables with one query. Rows of a table that was never analyzed count as 100 bytes each.
pub(super) async fn all(feeds: &Feeds, session: &mut Session) -> Result<HashMap<FeedId, Estimate>, Error> {
    if feeds.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = session
        .query(&format!(
            "{}SELECT n.nspname, c.relname, \
             sum(CASE WHEN 0 < l.relpages AND 0 <= l.reltuples THEN l.reltuples / l.relpages * s.bytes / s.page ELSE s.bytes / 100 END)::bigint, \
             sum(s.bytes)::bigint \
             FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.root JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_class l ON l.oid = tree.relation AND l.relkind <> 'p' \
             CROSS JOIN LATERAL (SELECT COALESCE(pg_catalog.pg_relation_size(l.oid), 0) AS bytes, \
               pg_catalog.current_setting('block_size')::bigint AS page) s \
             GROUP BY n.nspname, c.relname",
            tables::tree(feeds)
        ))
        .await?;
    let number = |text: &str| text.parse().unwrap_or(0);
    Ok(rows
        .iter()
        .filter_map(|row| {
            let feed = feeds.of_table(row.text(0), row.text(1))?;
            Some((feed.id, Estimate { rows: number(row.text(2)), bytes: number(row.text(3)) }))
        })
        .collect())
}
