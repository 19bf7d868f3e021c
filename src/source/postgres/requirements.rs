//! Verifies what must hold before a start changes anything: the server's settings, the role's privileges, the tables' keys. All problems are
//! collected, so that one run shows them all; an error ends the verification itself.

use super::error::Error;
use super::facts::Facts;
use super::options::Options;
use super::publication;
use super::quote::identifier;
use super::session::Session;
use super::slot;
use super::tables::{self, Rights};
use super::version::Version;
use crate::feed::{Feeds, PrefeedKind};
use std::collections::{BTreeSet, HashMap};

/// Verifies the server's settings, and that the login role (not a role that its settings change to) may replicate. Amazon RDS grants nobody
/// REPLICATION; there, membership in the role `rds_replication` counts instead.
pub(super) async fn server(options: &Options, session: &mut Session, found: &mut Vec<Error>) -> Result<(), Error> {
    let row = session
        .query_one(
            "SELECT pg_catalog.current_setting('wal_level'), \
             pg_catalog.pg_is_in_recovery(), r.rolsuper OR r.rolreplication OR EXISTS (\
             SELECT 1 FROM pg_catalog.pg_roles m WHERE m.rolname = 'rds_replication' AND pg_catalog.pg_has_role(session_user, m.oid, 'MEMBER')) \
             FROM pg_catalog.pg_roles r WHERE r.rolname = session_user",
        )
        .await?;
    let mut unsuitable = |reason: String| found.push(Error::Unsuitable { address: options.address(), reason });
    if session.version() < Version::OLDEST {
        unsuitable("it is older than version 14; upgrade it".to_owned());
    }
    if row.is_true(1) {
        unsuitable("it is a standby; set source.host to the primary".to_owned());
    }
    if row.text(0) != "logical" {
        unsuitable(format!("wal_level is {:?}; run: ALTER SYSTEM SET wal_level = 'logical' and restart the server", row.text(0)));
    }
    if !row.is_true(2) {
        found.push(Error::Privilege {
            what: format!("role {:?} may not replicate", options.user),
            remedy: format!("ALTER ROLE {} REPLICATION", identifier(&options.user)),
        });
    }
    Ok(())
}

/// Verifies that an existing slot fits, and that enough slots and walsenders are free: for the pipeline's own unless it has them already, and
/// for a snapshot's if rows must be read. `walsender` is the process of a walsender that the connector keeps for its own.
pub(super) async fn slot(
    options: &Options,
    feeds: &Feeds,
    facts: &Facts,
    walsender: Option<u32>,
    session: &mut Session,
    found: &mut Vec<Error>,
) -> Result<(), Error> {
    let slot = facts.slot.as_ref();
    match slot {
        Some(slot) => found.extend(slot.check_ours(options).err()),
        None if !options.manage => found.push(slot::missing(options)),
        None => {}
    }
    let snapshot = u32::from(feeds.iter().any(|feed| feed.prefeed.is_read()));
    let slots = snapshot + u32::from(slot.is_none());
    let senders = snapshot + u32::from(slot.is_none_or(|slot| slot.active_pid.is_none()));
    let row = session
        .query_one(&format!(
            "SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots), pg_catalog.current_setting('max_replication_slots'), \
             (SELECT count(*) FROM pg_catalog.pg_stat_get_wal_senders() WHERE pid <> {}), pg_catalog.current_setting('max_wal_senders')",
            walsender.unwrap_or_default()
        ))
        .await?;
    let number = |index: usize| row.text(index).parse::<u32>().map_err(|_| Error::Protocol { what: "the numbers of slots and walsenders" });
    let needed = [
        ("replication slot", "max_replication_slots", number(0)? + slots, number(1)?),
        ("walsender", "max_wal_senders", number(2)? + senders, number(3)?),
    ];
    found.extend(needed.into_iter().filter(|(.., needed, limit)| limit < needed).map(|(what, setting, needed, _)| Error::Exhausted {
        what,
        setting,
        wanted: Some(needed),
    }));
    Ok(())
}

/// Verifies that every feed's table can be followed by its key, and that the role has the privileges that it needs.
pub(super) async fn feeds(
    options: &Options,
    feeds: &Feeds,
    facts: &Facts,
    session: &mut Session,
    found: &mut Vec<Error>,
) -> Result<(), Error> {
    if feeds.is_empty() {
        return Ok(());
    }
    let change = publication::change(options, feeds, facts.publication.as_ref());
    if let Some(change) = &change {
        found.extend(publication::check_changeable(options, change, session).await?);
    }
    found.extend(publication::omissions(options, feeds, facts.publication.as_ref(), session).await?);
    // Only the owner of a table can add it to a publication. A publication that is complete is not changed.
    let our_change = change.filter(|change| change.refused(options).is_none());
    let tables: HashMap<_, _> = facts.tables.iter().map(|table| ((&table.root.schema, &table.root.name), table)).collect();
    let user = identifier(session.role());
    let mut unusable_schemas = BTreeSet::new();
    for feed in feeds.iter() {
        let Some(table) = tables.get(&(&feed.schema, &feed.table)) else {
            let reason = "it no longer exists; remove it from the feeds".to_owned();
            found.push(Error::TableChanged { table: feed.name.to_string(), reason });
            continue;
        };
        found.extend(tables::check::check(feed, table, &facts.published).into_iter().map(|problem| problem.error(feed)));
        let name = table.root.sql_name();
        let is_read = feed.prefeed == PrefeedKind::Snapshot;
        let publishes = our_change.as_ref().is_some_and(|change| change.adds(feed));
        if (publishes || is_read) && !table.rights.usable {
            unusable_schemas.insert(&feed.schema);
        }
        if publishes && !table.rights.owned {
            found.push(Error::Privilege {
                what: format!("role {user} does not own table {name} and so cannot publish it"),
                remedy: format!("ALTER TABLE {name} OWNER TO {user}, or create the publication by hand and set source.manage = false"),
            });
        }
        if is_read {
            let unreadable: Vec<_> = table.unreadable(feed, &facts.published).into_iter().map(|column| identifier(column)).collect();
            let columns = if facts.published.lists_columns(feed) { format!(" ({})", unreadable.join(", ")) } else { String::new() };
            check_readable(!unreadable.is_empty(), &columns, table.rights, &name, &user, found);
        }
    }
    found.extend(unusable_schemas.into_iter().map(|schema| Error::Privilege {
        what: format!("role {user} may not use schema {}", identifier(schema)),
        remedy: format!("GRANT USAGE ON SCHEMA {} TO {user}", identifier(schema)),
    }));
    Ok(())
}

/// Verifies that all rows can be read.
fn check_readable(is_unreadable: bool, columns: &str, rights: Rights, name: &str, user: &str, found: &mut Vec<Error>) {
    if is_unreadable {
        let of = if columns.is_empty() { "table".to_owned() } else { format!("columns{columns} of table") };
        found.push(Error::Privilege {
            what: format!("role {user} may not read {of} {name}"),
            remedy: format!("GRANT SELECT{columns} ON {name} TO {user}"),
        });
    }
    if rights.hidden {
        found.push(Error::Privilege {
            what: format!("row level security of table {name} may hide rows from role {user}"),
            remedy: format!("ALTER ROLE {user} BYPASSRLS"),
        });
    }
}
