//! What the log does not say: rows that change, come or go by a table's definition alone.
//!
//! A column that is added with a default shows in old rows from then on; a column whose type changes shows other values; a label of
//! an enum is renamed; a partition that is attached, detached or truncated brings rows or takes them away. None of it is in the log.
//! So all that decides how a table's stored rows read is remembered in the checkpoint and compared with what the catalogue says now.
//!
//! What is remembered is never later than the rows that were read: a look comes before a snapshot, so that a change between the
//! two is noticed by the next look. No look takes a lock, but for the size of a partition that was attached.

use super::catalogue;
use super::error::Error;
use super::options::Options;
use super::publication::{self, Membership};
use super::quote::{literal, table};
use super::session::{Answer, Session};
use super::token::Lsn;
use super::types::Types;
use crate::checkpoint::Layout;
use crate::event::FeedId;
use crate::feed::Feeds;
use crate::source::{Reread, TableChange};
use contents::Contents;
use seen::{Column, Grounds, Now, Part, PartFact, Seen};
use std::collections::{BTreeMap, BTreeSet, HashSet};

pub(super) mod contents;
mod seen;

/// One column: number, type, modifier, name, writer, default, whether it is filled in, whether it is generated.
type ColumnFacts = (u16, u32, i32, String, u32, u32, bool, bool);
/// One partition: number, file, who attached it, name, its parent, whether it was made as a partition, whether it has partitions.
type PartFacts = (u32, u32, u32, String, u32, bool, bool);

/// A partition that is made as such has columns that were inherited before it was linked to its parent; where a table is attached,
/// both are written by one command.
const TABLES: &str = "\
WITH RECURSIVE tables AS (\
 SELECT n.nspname, c.relname, c.oid, c.relkind, c.relfilenode FROM pg_catalog.pg_class c \
 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN ({names})\
), parts(root, parent, oid, link, command) AS (\
 SELECT t.oid, t.oid, i.inhrelid, i.xmin, i.cmin FROM tables t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid \
 WHERE t.relkind = 'p' AND NOT i.inhdetachpending \
 UNION ALL \
 SELECT p.root, p.oid, i.inhrelid, i.xmin, i.cmin FROM parts p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid WHERE NOT i.inhdetachpending\
), filled(root, attname) AS (\
 SELECT DISTINCT p.root, a.attname FROM parts p JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid WHERE a.atthasmissing\
) \
SELECT t.nspname, t.relname, t.oid, t.relfilenode, \
(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.attnum, a.atttypid::bigint, a.atttypmod, a.attname, a.xmin::text::bigint, \
   COALESCE(d.oid, 0)::bigint, a.atthasmissing OR (t.oid, a.attname) IN (SELECT f.root, f.attname FROM filled f), a.attgenerated <> '')) \
 FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
 WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped), \
(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(c.oid::bigint, c.relfilenode::bigint, p.link::text::bigint, c.relname, p.parent::bigint, EXISTS (\
   SELECT 1 FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attinhcount = 1 AND a.xmin = p.link \
   AND a.cmin::text::bigint < p.command::text::bigint), c.relkind = 'p')) \
 FROM parts p JOIN pg_catalog.pg_class c ON c.oid = p.oid WHERE p.root = t.oid) \
FROM tables t";

/// Tables that the feeds mean by their names and that were made since the start, as SQL names them.
pub(super) async fn newcomers(feeds: &Feeds, session: &mut Session) -> Result<Vec<String>, Error> {
    let rows = session.query(catalogue::NAMES).await?;
    Ok(rows.iter().filter(|row| feeds.is_missing(row.text(0), row.text(1))).map(|row| table(row.text(0), row.text(1))).collect())
}

/// What a look showed.
pub(super) struct Survey {
    /// Tables that do not look as they were seen last.
    pub(super) table_changes: Vec<TableChange>,
    /// A place in the log that no snapshot opened after the look is before.
    pub(super) head: Lsn,
}

/// Compares all feeds' tables with how they were seen last.
pub(super) async fn survey(options: &Options, feeds: &Feeds, known: &[Option<Layout>], session: &mut Session) -> Result<Survey, Error> {
    let head = session.query_one("SELECT pg_catalog.pg_current_wal_insert_lsn()").await?.text(0).parse().unwrap_or_default();
    if feeds.is_empty() {
        return Ok(Survey { table_changes: Vec::new(), head });
    }
    let names: Vec<_> = feeds.iter().map(|feed| format!("({}, {})", literal(&feed.schema), literal(&feed.table))).collect();
    let rows = session.query(&TABLES.replace("{names}", &names.join(", "))).await?;
    let memberships = publication::memberships(options, session).await?;
    let mut tables: Vec<_> = rows.iter().filter_map(|row| Some((feeds.of_table(row.text(0), row.text(1))?, Now::read(row)))).collect();
    let types: BTreeSet<u32> = tables.iter().flat_map(|(_, now)| now.seen.columns.values().map(|column| column.type_oid)).collect();
    let contents = Contents::look(types, session).await?;
    let before: Vec<_> = tables.iter().map(|(feed, _)| parse(known.get(feed.id.index()).and_then(Option::as_ref))).collect();
    let attached = tables.iter().zip(&before).filter_map(|((_, now), before)| Some(now.attached(before.as_ref()?))).flatten().collect();
    let empty = empty(attached, session).await?;
    let publishes_generated = session.version().publishes_generated_columns();
    let mut table_changes = Vec::new();
    for ((feed, now), before) in tables.iter_mut().zip(&before) {
        let types: BTreeSet<u32> = now.seen.columns.values().flat_map(|column| contents.under(column.type_oid)).collect();
        now.seen.publication = memberships.of(feed).cloned();
        now.seen.types = contents.remembered(&types, before.as_ref().map(|before| &before.types));
        let reread = before.as_ref().and_then(|before| {
            let reread = now.reread(
                before,
                Grounds {
                    key: &feed.key,
                    on_added_default: options.on_added_default,
                    publishes_generated,
                    contents: &contents,
                    empty: &empty,
                },
            );
            if before.table == now.seen.table {
                now.seen.keep_gone(before);
            }
            reread
        });
        if before.as_ref() != Some(&now.seen) {
            let layout = Layout(serde_json::to_string(&now.seen).expect("numbers and names").into());
            table_changes.push(TableChange { feed: FeedId(feed.id.0), layout, reread });
        }
    }
    Ok(Survey { table_changes, head })
}

fn parse(layout: Option<&Layout>) -> Option<Seen> {
    Seen::parse(&layout?.0)
}

/// How the table was published when it was seen so.
pub(super) fn membership(layout: &Layout) -> Option<Membership> {
    parse(Some(layout))?.publication
}

/// Teaches what the layouts remember of types: those that are gone by now may still be in the log.
pub(super) fn teach<'l>(layouts: impl IntoIterator<Item = &'l Layout>, types: &mut Types) {
    for seen in layouts.into_iter().filter_map(|layout| parse(Some(layout))) {
        for (oid, content) in &seen.types {
            types.remember(*oid, content);
        }
    }
}

/// Whether the table ever had columns of these names, in this order, as far as this layout remembers. The log may show others: a
/// column that was renamed and named back between two looks.
pub(super) fn has_had(layout: &Layout, names: &[String]) -> bool {
    parse(Some(layout)).is_none_or(|seen| seen.has_had(names))
}

/// What it means where it had not.
pub(super) fn renamed_for_a_while(names: &[String]) -> Reread {
    Reread { reset: false, reason: format!("its columns were named otherwise for a while: {}", names.join(", ")) }
}

/// Which of these partitions have no page, and so no row. Of one that somebody has locked nothing is known.
async fn empty(parts: BTreeSet<u32>, session: &mut Session) -> Result<HashSet<u32>, Error> {
    let mut empty = HashSet::new();
    if parts.is_empty() {
        return Ok(empty);
    }
    session.query("SELECT pg_catalog.set_config('lock_timeout', '500ms', false)").await?;
    for part in parts {
        match session.query(&format!("SELECT 1 WHERE pg_catalog.pg_relation_size({part}) = 0")).await {
            Ok(rows) if rows.is_empty() => {}
            Ok(_) => drop(empty.insert(part)),
            Err(error) => {
                tracing::debug!(%error, part, "the size of a partition could not be looked at");
                break;
            }
        }
    }
    session.query("SELECT pg_catalog.set_config('lock_timeout', '0', false)").await?;
    Ok(empty)
}

impl Now {
    fn read(row: &Answer) -> Self {
        let columns: Vec<ColumnFacts> = serde_json::from_str(row.text(4)).unwrap_or_default();
        let parts: Vec<PartFacts> = serde_json::from_str(row.text(5)).unwrap_or_default();
        let column = |(number, type_oid, modifier, name, writer, default, is_filled_in, is_generated): ColumnFacts| {
            (number, Column { name, type_oid, modifier, writer, default, is_filled_in, is_generated, is_gone: false })
        };
        Self {
            seen: Seen {
                table: row.text(2).parse().unwrap_or(0),
                file: row.text(3).parse().unwrap_or(0),
                columns: columns.into_iter().map(column).collect(),
                parts: parts.iter().map(|part| (part.0, Part { file: part.1, link: part.2 })).collect(),
                types: BTreeMap::new(),
                publication: None,
            },
            part_facts: parts
                .into_iter()
                .map(|part| (part.0, PartFact { name: part.3, parent: part.4, is_born: part.5, is_branch: part.6 }))
                .collect(),
        }
    }
}
