//! Finds what the feeds need and the publication does not publish. Each is an error whose remedy does not break applications.

use super::definition::{Definition, Member};
use super::names::{list, name_of};
use crate::event::Operation;
use crate::feed::{Feed, Feeds};
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::quote::{identifier, table};
use crate::source::postgres::session::Session;
use crate::source::postgres::tables;

/// Finds everything that the publication leaves out.
pub(super) async fn find(options: &Options, feeds: &Feeds, definition: &Definition, session: &mut Session) -> Result<Vec<Error>, Error> {
    let mut found = Vec::new();
    found.extend(operations(options, feeds, definition, session).await?);
    found.extend(names(options, feeds, definition));
    found.extend(feeds.iter().filter_map(|feed| key(options, feed, definition.members.get(&name_of(feed))?)));
    found.extend(unlogged(feeds, session).await?);
    Ok(found)
}

/// Operations that a feed needs and that are not published. Readers would keep outdated rows.
async fn operations(options: &Options, feeds: &Feeds, definition: &Definition, session: &mut Session) -> Result<Option<Error>, Error> {
    let lacks = |operation: &&Operation| feeds.iter().any(|feed| feed.operations.admits(**operation));
    let missing: Vec<_> = definition.unpublished.iter().filter(lacks).map(|operation| operation.name()).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let what = format!("publication {:?} leaves out {}, which feeds.operations asks for", options.publication, missing.join(", "));
    // Once updates are published, an application's updates fail for every table of the publication (also those of others) that has no replica
    // identity, or whose column list or filter does not fit it.
    let is_member =
        |relation: &tables::Relation| definition.members.contains_key(&(relation.schema.to_string(), relation.name.to_string()));
    let is_harmed = |table: &tables::Table| table.lacks_identity() && table.relations().any(is_member);
    let is_harmless = !definition.members.values().any(Member::is_partial) && !tables::all(session).await?.iter().any(is_harmed);
    Ok(Some(if is_harmless {
        let name = identifier(&options.publication);
        Error::Publication { what, remedy: format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')") }
    } else {
        let remedy = "leave them out of feeds.operations, or set source.publication to a new name".to_owned();
        Error::PublicationUnfit { what, remedy }
    }))
}

/// Partitioned tables whose changes are published under the names of their partitions.
fn names(options: &Options, feeds: &Feeds, definition: &Definition) -> Option<Error> {
    let split: Vec<_> = feeds.iter().map(name_of).filter(|table| definition.split.contains(table)).collect();
    (!definition.via_root && !split.is_empty()).then(|| Error::Publication {
        what: format!("publication {:?} publishes the partitions of {} under their own names", options.publication, list(&split)),
        remedy: format!("ALTER PUBLICATION {} SET (publish_via_partition_root = true)", identifier(&options.publication)),
    })
}

/// A column list without a column of the feed's key.
fn key(options: &Options, feed: &Feed, member: &Member) -> Option<Error> {
    let columns = member.columns.as_ref()?;
    let missing: Vec<_> = feed.key.iter().filter(|key| !columns.iter().any(|column| **column == ***key)).collect();
    if missing.is_empty() {
        return None;
    }
    let (name, only_table) = (identifier(&options.publication), format!("ONLY {}", table(&feed.schema, &feed.table)));
    let listed = columns.iter().map(|column| identifier(column)).chain(missing.iter().map(|key| identifier(key)));
    let listed = listed.collect::<Vec<_>>().join(", ");
    let filter = member.filter.as_ref().map(|filter| format!(" WHERE ({filter})")).unwrap_or_default();
    Some(Error::Publication {
        what: format!("publication {:?} leaves out key column {:?} of table {}", options.publication, missing[0], feed.name),
        remedy: format!(
            "ALTER PUBLICATION {name} DROP TABLE {only_table}; ALTER PUBLICATION {name} ADD TABLE {only_table} ({listed}){filter}"
        ),
    })
}

/// Partitions whose changes are never in the log: foreign tables and unlogged tables.
pub(super) async fn unlogged(feeds: &Feeds, session: &mut Session) -> Result<Vec<Error>, Error> {
    if feeds.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session
        .query(&format!(
            "{}SELECT n.nspname, c.relname, l.relkind, pg_catalog.format('%I.%I', ln.nspname, l.relname), pg_catalog.format('%I.%I', un.nspname, u.relname) \
             FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.root JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_class l ON l.oid = tree.relation JOIN pg_catalog.pg_namespace ln ON ln.oid = l.relnamespace \
             JOIN pg_catalog.pg_inherits h ON h.inhrelid = l.oid \
             JOIN pg_catalog.pg_class u ON u.oid = h.inhparent JOIN pg_catalog.pg_namespace un ON un.oid = u.relnamespace \
             WHERE l.relispartition AND (l.relkind = 'f' OR l.relkind = 'r' AND l.relpersistence <> 'p') ORDER BY 1, 2, 4",
            tables::tree(feeds)
        ))
        .await?;
    let refused = rows.iter().map(|row| {
        let (kind, remedy) = match row.text(2) {
            "f" => ("a foreign table", format!("ALTER TABLE {} DETACH PARTITION {}", row.text(4), row.text(3))),
            _ => ("unlogged", format!("ALTER TABLE {} SET LOGGED", row.text(3))),
        };
        let what = format!("partition {} of table {}.{} is {kind}: its changes are not in the log", row.text(3), row.text(0), row.text(1));
        Error::Publication { what, remedy }
    });
    Ok(refused.collect())
}

/// What the publication leaves out by its column lists and row filters, one line per table.
pub(crate) fn selections(feeds: &Feeds, definition: &Definition) -> Vec<String> {
    let selection = |feed: &Feed| {
        let member = definition.members.get(&name_of(feed))?;
        let rows = member.filter.as_ref().map(|filter| format!("rows that do not match {filter}"));
        let columns = (!member.left_out.is_empty()).then(|| format!("columns {}", member.left_out.join(", ")));
        let parts: Vec<_> = rows.into_iter().chain(columns).collect();
        (!parts.is_empty()).then(|| format!("leave out of table {}, as the publication says: {}", feed.name, parts.join("; ")))
    };
    feeds.iter().filter_map(selection).collect()
}
