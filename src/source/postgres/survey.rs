//! Detects changes of rows that are not in the log, by comparing table definitions.
//!
//! Examples: old rows show the default of a column that is added; the values of a column change with its type; a label of an enum is
//! renamed; a partition that is attached, detached or truncated adds or removes rows. None of it is in the log. So the checkpoint stores
//! every part of a table's definition that decides how its rows are shown, and a survey compares it with the catalogue.
//!
//! A stored definition is never newer than the rows that were read: the survey comes before the snapshot, and the next survey finds a change
//! between the two. A survey takes no locks, except to read the size of a partition that was attached.

use super::error::Error;
use super::options::Options;
use super::publication::{Definition, Membership};
use super::quote::literal;
use super::session::{Answer, Session, list};
use super::token::Lsn;
use super::types::Types;
use crate::checkpoint::Layout;
use crate::event::FeedId;
use crate::feed::Feeds;
use crate::source::{Reread, TableChange};
use contents::UserTypes;
use layout::{Column, Comparison, CurrentTable, Partition, PartitionFacts, TableLayout};
use std::collections::{BTreeMap, BTreeSet, HashSet};

pub(super) mod contents;
mod layout;

/// One column: attribute number, type, modifier, name, writer, default, whether it has a missing value, whether it is generated.
type ColumnRow = (u16, u32, i32, String, u32, u32, bool, bool);
/// One partition: oid, file, the transaction that attached it, name, parent, whether it was created as a partition, whether it has partitions.
type PartitionRow = (u32, u32, u32, String, u32, bool, bool);

/// The feeds' tables with columns and partitions.
///
/// How a partition came into being shows in command numbers: `CREATE TABLE ... PARTITION OF` writes the inherited columns before the
/// link to the parent, `ATTACH PARTITION` writes both in one command.
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

/// The result of a survey.
pub(super) struct Survey {
    /// Tables whose layout differs from the one that was seen last.
    pub(super) table_changes: Vec<TableChange>,
    /// The end of the log before the survey. A snapshot that is opened after the survey is never before this position.
    pub(super) head: Lsn,
}

/// Compares all feeds' tables, and how the publication holds them, with the layouts that were seen last.
pub(super) async fn survey(
    options: &Options,
    feeds: &Feeds,
    known: &[Option<Layout>],
    publication: Option<&Definition>,
    session: &mut Session,
) -> Result<Survey, Error> {
    let head = session.query_one("SELECT pg_catalog.pg_current_wal_insert_lsn()").await?;
    let head = head.text(0).parse().map_err(|()| Error::Protocol { what: "the head of the log" })?;
    if feeds.is_empty() {
        return Ok(Survey { table_changes: Vec::new(), head });
    }
    let names: Vec<_> = feeds.iter().map(|feed| format!("({}, {})", literal(&feed.schema), literal(&feed.table))).collect();
    let rows = session.query(&TABLES.replace("{names}", &names.join(", "))).await?;
    let mut tables = Vec::new();
    for row in &rows {
        if let Some(feed) = feeds.of_table(row.text(0), row.text(1)) {
            tables.push((feed, CurrentTable::read(row)?));
        }
    }
    let types: BTreeSet<u32> = tables.iter().flat_map(|(_, now)| now.layout.columns.values().map(|column| column.type_oid)).collect();
    let user_types = UserTypes::read(types, session).await?;
    let before: Vec<_> = tables.iter().map(|(feed, _)| parse(known.get(feed.id.index()).and_then(Option::as_ref))).collect();
    let attached = tables.iter().zip(&before).filter_map(|((_, now), before)| Some(now.attached(before.as_ref()?))).flatten().collect();
    let empty = empty(attached, session).await?;
    let publishes_generated = session.version().publishes_generated_columns();
    let mut table_changes = Vec::new();
    for ((feed, now), before) in tables.iter_mut().zip(&before) {
        let types: BTreeSet<u32> = now.layout.columns.values().flat_map(|column| user_types.under(column.type_oid)).collect();
        now.layout.publication = publication.and_then(|publication| publication.membership_of(feed));
        now.layout.types = user_types.to_store(&types, before.as_ref().map(|before| &before.types));
        let reread = before.as_ref().and_then(|before| {
            let reread = now.reread(
                before,
                Comparison {
                    key: &feed.key,
                    on_added_default: options.on_added_default,
                    publishes_generated,
                    user_types: &user_types,
                    empty: &empty,
                },
            );
            if before.table == now.layout.table {
                now.layout.keep_dropped(before);
            }
            reread
        });
        if before.as_ref() != Some(&now.layout) {
            let layout = Layout(serde_json::to_string(&now.layout).expect("numbers and names").into());
            table_changes.push(TableChange { feed: FeedId(feed.id.0), layout, reread });
        }
    }
    Ok(Survey { table_changes, head })
}

fn parse(layout: Option<&Layout>) -> Option<TableLayout> {
    TableLayout::parse(&layout?.0)
}

/// How the table was published, according to this layout.
pub(super) fn membership(layout: &Layout) -> Option<Membership> {
    parse(Some(layout))?.publication
}

/// Adds the types that the layouts contain to `types`. The log may still use types that the catalogue no longer has.
pub(super) fn teach<'l>(layouts: impl IntoIterator<Item = &'l Layout>, types: &mut Types) {
    for layout in layouts.into_iter().filter_map(|layout| parse(Some(layout))) {
        for (oid, content) in &layout.types {
            types.remember(*oid, content);
        }
    }
}

/// Whether the table ever had columns with these names in this order, according to this layout. The log may show other names, if a
/// column was renamed and renamed back between two surveys.
pub(super) fn has_had(layout: &Layout, names: &[String]) -> bool {
    parse(Some(layout)).is_none_or(|layout| layout.has_had(names))
}

/// The reason to read the table again if it never had these columns.
pub(super) fn renamed_for_a_while(names: &[String]) -> Reread {
    Reread { reset: false, reason: format!("its columns had other names for some time: {}", names.join(", ")) }
}

/// Which of these partitions have no page, and so no row. A partition that is locked is not reported as empty.
async fn empty(partitions: BTreeSet<u32>, session: &mut Session) -> Result<HashSet<u32>, Error> {
    let mut empty = HashSet::new();
    if partitions.is_empty() {
        return Ok(empty);
    }
    for partition in partitions {
        // The server runs statements that are sent together in one transaction, so the setting ends with them.
        let size = format!("SET LOCAL lock_timeout = '500ms'; SELECT 1 WHERE pg_catalog.pg_relation_size({partition}) = 0");
        match session.query(&size).await {
            Ok(rows) if rows.is_empty() => {}
            Ok(_) => drop(empty.insert(partition)),
            Err(error) => {
                tracing::debug!(%error, partition, "the size of a partition could not be read");
                break;
            }
        }
    }
    Ok(empty)
}

impl CurrentTable {
    fn read(row: &Answer) -> Result<Self, Error> {
        const MALFORMED: Error = Error::Protocol { what: "a table's columns and partitions in the catalogue" };
        let columns: Vec<ColumnRow> = list(row, 4).ok_or(MALFORMED)?;
        let partitions: Vec<PartitionRow> = list(row, 5).ok_or(MALFORMED)?;
        let column = |(number, type_oid, modifier, name, writer, default, has_missing_value, is_generated): ColumnRow| {
            (number, Column { name, type_oid, modifier, writer, default, has_missing_value, is_generated, is_dropped: false })
        };
        Ok(Self {
            layout: TableLayout {
                table: row.text(2).parse().map_err(|_| MALFORMED)?,
                file: row.text(3).parse().map_err(|_| MALFORMED)?,
                columns: columns.into_iter().map(column).collect(),
                partitions: partitions.iter().map(|row| (row.0, Partition { file: row.1, attached_by: row.2 })).collect(),
                types: BTreeMap::new(),
                publication: None,
            },
            facts: partitions
                .into_iter()
                .map(|row| (row.0, PartitionFacts { name: row.3, parent: row.4, was_created_as_partition: row.5, is_partitioned: row.6 }))
                .collect(),
        })
    }
}
