//! What the log does not say: rows that change, come or go by a table's definition alone.
//!
//! A column that is added with a default shows in old rows from then on; a column whose type changes shows other values; a
//! partition that is attached, detached or truncated brings rows or takes them away. None of it is in the log. So each table's
//! layout is remembered in the checkpoint and compared with what the catalogue says now.

use super::error::Error;
use super::publication::{self, Membership};
use super::session::{Answer, Session};
use super::{OnAddedDefault, Options, catalogue, literal, table};
use crate::change::FeedId;
use crate::checkpoint::Layout;
use crate::feed::{Feed, Feeds};
use crate::source::{Reread, Sighting};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A table's layout, by numbers that the server never uses twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    /// The table's number; 0 where it was not remembered.
    #[serde(default)]
    table: u32,
    /// The file that holds the rows: another one after they were all written anew.
    file: u32,
    /// Type and modifier of each column, by its number.
    columns: BTreeMap<u16, (u32, i32)>,
    /// The file of each partition, by its number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    leaves: BTreeMap<u32, u32>,
    /// How it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    publication: Option<Membership>,
}

/// How the table was published when it was seen so.
pub(super) fn membership(layout: &Layout) -> Option<Membership> {
    serde_json::from_str::<Seen>(&layout.0).ok()?.publication
}

/// A table as the catalogue describes it now.
struct Now {
    seen: Seen,
    column_names: BTreeMap<u16, String>,
    /// Columns whose value in rows that were there before is kept in the catalogue.
    with_stored_default: Vec<u16>,
    with_default: Vec<u16>,
    leaf_names: BTreeMap<u32, String>,
}

/// One column: number, type, modifier, name, whether it has a stored default, whether it has any.
type ColumnFacts = (u16, u32, i32, String, bool, bool);

const TABLES: &str = "\
SELECT n.nspname, c.relname, c.relfilenode, c.oid, \
(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.attnum, a.atttypid::bigint, a.atttypmod, a.attname, \
   a.atthasmissing OR EXISTS (SELECT 1 FROM pg_catalog.pg_partition_tree(c.oid) t JOIN pg_catalog.pg_attribute l ON l.attrelid = t.relid \
     WHERE c.relkind = 'p' AND l.attname = a.attname AND l.atthasmissing), a.atthasdef)) \
 FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''), \
(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(l.oid::bigint, l.relfilenode::bigint, l.relname)) \
 FROM pg_catalog.pg_partition_tree(c.oid) t JOIN pg_catalog.pg_class l ON l.oid = t.relid WHERE c.relkind = 'p' AND t.isleaf) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN ";

/// Tables that the feeds mean by their names and that were made since the start, as SQL names them.
pub(super) async fn newcomers(feeds: &Feeds, session: &mut Session) -> Result<Vec<String>, Error> {
    let rows = session.query(catalogue::NAMES).await?;
    Ok(rows.iter().filter(|row| feeds.is_missing(row.text(0), row.text(1))).map(|row| table(row.text(0), row.text(1))).collect())
}

/// Compares all feeds' tables with how they were seen last.
pub(super) async fn survey(
    options: &Options,
    feeds: &Feeds,
    known: &[Option<Layout>],
    session: &mut Session,
) -> Result<Vec<Sighting>, Error> {
    if feeds.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = feeds.iter().map(|feed| format!("({}, {})", literal(&feed.schema), literal(&feed.table))).collect();
    let rows = session.query(&format!("{TABLES}({})", names.join(", "))).await?;
    let memberships = publication::memberships(options, session).await?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            let feed = feeds.of_table(row.text(0), row.text(1))?;
            let known = known.get(feed.id.index()).and_then(Option::as_ref);
            let mut now = Now::read(row);
            now.seen.publication = memberships.of(feed).cloned();
            sighting(feed, known, &now, options.on_added_default)
        })
        .collect())
}

/// What is new about the table; `None` where nothing is.
fn sighting(feed: &Feed, known: Option<&Layout>, now: &Now, on_added_default: OnAddedDefault) -> Option<Sighting> {
    let layout = Layout(serde_json::to_string(&now.seen).expect("numbers").into());
    if known == Some(&layout) {
        return None;
    }
    let before: Option<Seen> = known.and_then(|known| serde_json::from_str(&known.0).ok());
    let reread = before.and_then(|before| now.reread(&before, feed, on_added_default));
    Some(Sighting { feed: FeedId(feed.id.0), layout, reread })
}

impl Now {
    fn read(row: &Answer) -> Self {
        let columns: Vec<ColumnFacts> = serde_json::from_str(row.text(4)).unwrap_or_default();
        let leaves: Vec<(u32, u32, String)> = serde_json::from_str(row.text(5)).unwrap_or_default();
        Self {
            seen: Seen {
                table: row.text(3).parse().unwrap_or(0),
                file: row.text(2).parse().unwrap_or(0),
                columns: columns.iter().map(|column| (column.0, (column.1, column.2))).collect(),
                leaves: leaves.iter().map(|leaf| (leaf.0, leaf.1)).collect(),
                publication: None,
            },
            with_stored_default: columns.iter().filter(|column| column.4).map(|column| column.0).collect(),
            with_default: columns.iter().filter(|column| column.5).map(|column| column.0).collect(),
            column_names: columns.into_iter().map(|column| (column.0, column.3)).collect(),
            leaf_names: leaves.into_iter().map(|leaf| (leaf.0, leaf.2)).collect(),
        }
    }

    /// Whether rows changed since, of which the log says nothing.
    fn reread(&self, before: &Seen, feed: &Feed, on_added_default: OnAddedDefault) -> Option<Reread> {
        if before.table != 0 && before.table != self.seen.table {
            return Some(Reread { reset: true, reason: "it was dropped and made anew".to_owned() });
        }
        let mut reasons = Vec::new();
        let mut reset = false;
        for (leaf, what) in self.changed_leaves(before) {
            let name = self.leaf_names.get(&leaf).map_or_else(|| leaf.to_string(), |name| format!("{name:?}"));
            reasons.push(format!("partition {name} was {what}"));
            reset = true;
        }
        let rewritten = before.file != self.seen.file;
        for (number, now) in &self.seen.columns {
            let name = &self.column_names[number];
            match before.columns.get(number) {
                Some(before) if before.0 != now.0 || (before.1 != now.1 && rewritten) => {
                    reasons.push(format!("the type of column {name:?} changed"));
                    reset |= feed.key.iter().any(|key| **key == **name);
                }
                None if on_added_default == OnAddedDefault::Prefeed && self.has_filled_in(*number, rewritten) => {
                    reasons.push(format!("column {name:?} was added with a default"));
                }
                _ => {}
            }
        }
        if let (Some(before), Some(now)) = (&before.publication, &self.seen.publication)
            && let Some(reread) = before.reread(now)
        {
            reasons.push(reread.reason);
            reset |= reread.reset;
        }
        (!reasons.is_empty()).then(|| Reread { reset, reason: reasons.join(", ") })
    }

    /// Whether old rows show a value in this new column: one for all is kept in the catalogue, one that differs from row to
    /// row was written into each of them.
    fn has_filled_in(&self, column: u16, rewritten: bool) -> bool {
        self.with_stored_default.contains(&column) || (rewritten && self.with_default.contains(&column))
    }

    fn changed_leaves<'b>(&'b self, before: &'b Seen) -> impl Iterator<Item = (u32, &'static str)> + 'b {
        let now = &self.seen.leaves;
        let came = now.iter().filter_map(|(leaf, file)| match before.leaves.get(leaf) {
            None => Some((*leaf, "attached")),
            Some(earlier) => (earlier != file).then_some((*leaf, "truncated, or written anew")),
        });
        let left = before.leaves.keys().filter(|leaf| !now.contains_key(leaf)).map(|leaf| (*leaf, "detached or dropped"));
        came.chain(left)
    }
}
