//! What must hold before anything is made in the server: its settings, our privileges, the tables' keys. What does not is
//! collected, so that one look shows it all; an error ends the look itself.

use super::error::Error;
use super::publication;
use super::session::Session;
use super::slot::{self, Slot};
use super::version::Version;
use super::{Options, identifier, literal, table};
use crate::feed::{Feed, Feeds, PrefeedKind};
use std::collections::{BTreeSet, HashMap};

/// The server's settings and the role's attributes. Amazon RDS gives nobody REPLICATION: there a membership stands for it.
pub(super) async fn server(options: &Options, session: &mut Session, found: &mut Vec<Error>) -> Result<(), Error> {
    let row = session
        .query_one(
            "SELECT pg_catalog.current_setting('wal_level'), \
             pg_catalog.pg_is_in_recovery(), r.rolsuper OR r.rolreplication OR EXISTS (\
             SELECT 1 FROM pg_catalog.pg_roles m WHERE m.rolname = 'rds_replication' AND pg_catalog.pg_has_role(m.oid, 'MEMBER')) \
             FROM pg_catalog.pg_roles r WHERE r.rolname = current_user",
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

/// The slot that is there is ours; there is room for it, and for our walsender, unless we have them already, and where rows are to
/// be read for those of a snapshot.
pub(super) async fn slot(options: &Options, feeds: &Feeds, session: &mut Session, found: &mut Vec<Error>) -> Result<(), Error> {
    let slot = Slot::read(&options.slot, session).await?;
    match &slot {
        Some(slot) => found.extend(slot.check_ours(options).err()),
        None if !options.manage => found.push(slot::missing(options)),
        None => {}
    }
    let snapshot = u8::from(feeds.iter().any(|feed| feed.prefeed.is_read()));
    let slots = snapshot + u8::from(slot.is_none());
    let senders = snapshot + u8::from(slot.is_none_or(|slot| slot.active_pid.is_none()));
    let row = session
        .query_one(
            &format!(
                "SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots) + {slots} <= pg_catalog.current_setting('max_replication_slots')::int, \
                 (SELECT count(*) FROM pg_catalog.pg_stat_get_wal_senders() WHERE pid IS NOT NULL) + {senders} \
                 <= pg_catalog.current_setting('max_wal_senders')::int"
            ),
        )
        .await?;
    if !row.is_true(0) {
        found.push(Error::Exhausted { what: "replication slot", setting: "max_replication_slots" });
    }
    if !row.is_true(1) {
        found.push(Error::Exhausted { what: "walsender", setting: "max_wal_senders" });
    }
    Ok(())
}

/// What the catalogue says of a feed's table.
#[expect(clippy::struct_excessive_bools, reason = "answers of the catalogue, each a yes or a no of its own")]
struct Facts {
    identity: String,
    identity_columns: Vec<String>,
    owned: bool,
    /// Whether its schema is open to us.
    usable: bool,
    readable: bool,
    /// Columns that may be null.
    nullable: Vec<String>,
    /// Whether a policy may hide rows from us.
    hidden: bool,
}

/// Every feed's table can be followed by its key, and we may do with it what we must.
pub(super) async fn feeds(options: &Options, feeds: &Feeds, session: &mut Session, found: &mut Vec<Error>) -> Result<(), Error> {
    if feeds.is_empty() {
        return Ok(());
    }
    let change = publication::change(options, feeds, session).await?;
    if let Some(change) = &change {
        found.extend(publication::check_changeable(options, change, session).await?);
    }
    found.extend(publication::omissions(options, feeds, session).await?);
    // Who puts a table into a publication must own it; one that is there already is nobody's to change.
    let ours = change.filter(|change| change.refused(options).is_none());
    let facts = facts(feeds, session).await?;
    let user = identifier(&options.user);
    let mut closed = BTreeSet::new();
    for feed in feeds.iter() {
        let Some(facts) = facts.get(&(feed.schema.to_string(), feed.table.to_string())) else {
            let reason = "it does not exist any more; remove it from the feeds".to_owned();
            found.push(Error::TableChanged { table: feed.name.to_string(), reason });
            continue;
        };
        found.extend(check_key(feed, facts).err());
        let name = table(&feed.schema, &feed.table);
        let is_read = feed.prefeed == PrefeedKind::Snapshot;
        let publishes = ours.as_ref().is_some_and(|change| change.adds(feed));
        if (publishes || is_read) && !facts.usable {
            closed.insert(&feed.schema);
        }
        if publishes && !facts.owned {
            found.push(Error::Privilege {
                what: format!("role {user} does not own table {name} and so cannot publish it"),
                remedy: format!("ALTER TABLE {name} OWNER TO {user}, or make the publication by hand and set source.manage = false"),
            });
        }
        if is_read {
            check_readable(feed, facts, &name, &user, found);
        }
    }
    found.extend(closed.into_iter().map(|schema| Error::Privilege {
        what: format!("role {user} may not use schema {}", identifier(schema)),
        remedy: format!("GRANT USAGE ON SCHEMA {} TO {user}", identifier(schema)),
    }));
    Ok(())
}

/// All rows can be read, in the order of their key.
fn check_readable(feed: &Feed, facts: &Facts, name: &str, user: &str, found: &mut Vec<Error>) {
    if !facts.readable {
        found.push(Error::Privilege {
            what: format!("role {user} may not read table {name}"),
            remedy: format!("GRANT SELECT ON {name} TO {user}"),
        });
    }
    if facts.hidden {
        found.push(Error::Privilege {
            what: format!("row level security of table {name} may hide rows from role {user}"),
            remedy: format!("ALTER ROLE {user} BYPASSRLS"),
        });
    }
    if let Some(key) = feed.key.iter().find(|key| facts.nullable.iter().any(|column| **column == ***key)) {
        found.push(Error::Keyless {
            table: feed.name.to_string(),
            reason: format!("its key column {key:?} may be null: such rows have no place in the order in which rows are read"),
            remedy: format!("ALTER TABLE {name} ALTER COLUMN {} SET NOT NULL, or set prefeed = \"none\"", identifier(key)),
        });
    }
}

async fn facts(feeds: &Feeds, session: &mut Session) -> Result<HashMap<(String, String), Facts>, Error> {
    let names: Vec<_> = feeds.iter().map(|feed| format!("({}, {})", literal(&feed.schema), literal(&feed.table))).collect();
    let rows = session
        .query(&format!(
            "SELECT n.nspname, c.relname, c.relreplident, a.attname, \
             pg_catalog.pg_has_role(c.relowner, 'USAGE'), pg_catalog.has_table_privilege(c.oid, 'SELECT'), \
             (SELECT pg_catalog.array_to_json(pg_catalog.array_agg(o.attname)) FROM pg_catalog.pg_attribute o \
              WHERE o.attrelid = c.oid AND o.attnum > 0 AND NOT o.attisdropped AND NOT o.attnotnull), \
             pg_catalog.row_security_active(c.oid), pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid \
               AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END \
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey) \
             WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN ({})",
            names.join(", ")
        ))
        .await?;
    let mut facts: HashMap<_, Facts> = HashMap::new();
    for row in rows {
        let of_table = facts.entry((row.text(0).to_owned(), row.text(1).to_owned())).or_insert_with(|| Facts {
            identity: row.text(2).to_owned(),
            identity_columns: Vec::new(),
            owned: row.is_true(4),
            readable: row.is_true(5),
            nullable: serde_json::from_str(row.text(6)).unwrap_or_default(),
            hidden: row.is_true(7),
            usable: row.is_true(8),
        });
        of_table.identity_columns.extend(row.get(3).map(str::to_owned));
    }
    Ok(facts)
}

/// Updates and deletes of a published table without a replica identity fail *in the application*, so such a table is refused.
fn check_key(feed: &Feed, facts: &Facts) -> Result<(), Error> {
    let name = table(&feed.schema, &feed.table);
    let refuse = |reason: String| {
        Err(Error::Keyless {
            table: feed.name.to_string(),
            reason,
            remedy: format!(
                "ALTER TABLE {name} REPLICA IDENTITY FULL, or give it a primary key, or name a unique index: ALTER TABLE {name} REPLICA IDENTITY USING INDEX ..."
            ),
        })
    };
    if feed.key.is_empty() {
        return refuse("it has no primary key and the feed names no key".to_owned());
    }
    match facts.identity.as_str() {
        "f" => Ok(()),
        "n" => refuse("its replica identity is NOTHING: the log does not say which row was changed".to_owned()),
        _ if facts.identity_columns.is_empty() => {
            refuse("it has no replica identity: the log would not say which row was changed".to_owned())
        }
        _ => match feed.key.iter().find(|key| !facts.identity_columns.iter().any(|column| **column == ***key)) {
            None => Ok(()),
            Some(outside) => refuse(format!("its key column {outside:?} is not part of its replica identity")),
        },
    }
}
