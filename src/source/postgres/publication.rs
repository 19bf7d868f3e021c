//! The publication: creates it, changes it and checks it. It holds exactly the feeds' tables, never all tables.
//! A publication that feedline did not create is never changed.

use super::error::Error;
use super::options::Options;
use super::quote::{identifier, literal, table};
use super::session::Session;
use crate::feed::{Feed, Feeds};

mod alteration;
mod definition;
mod membership;
mod names;
mod omissions;

pub(super) use definition::Definition;
use definition::OURS;
pub(super) use membership::{Gap, Membership};
use names::{Tables, list, name_of};
pub(super) use omissions::selections;

/// The settings of a publication that we create. Changes of partitions are published under the name of the partitioned table.
const SETTINGS: &str = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";

fn wanted(feeds: &Feeds) -> Tables {
    feeds.iter().map(name_of).collect()
}

/// A change that the publication needs: tables to add, tables of ours to remove, or its creation.
pub(super) struct Change {
    /// Why it is needed.
    reason: String,
    /// The statements, which change nothing else of the publication.
    pub(super) sql: String,
    /// Whether the publication does not exist yet.
    creates: bool,
    /// Whether somebody else created the publication.
    foreign: bool,
    /// Tables to add.
    added: Tables,
}

impl Change {
    /// Whether it adds the feed's table. Only the table's owner may do that.
    pub(super) fn adds(&self, feed: &Feed) -> bool {
        self.added.contains(&name_of(feed))
    }

    /// The error when feedline must not make this change; `None` when it may.
    pub(super) fn refused(&self, options: &Options) -> Option<Error> {
        let why = match (options.manage, self.foreign) {
            (true, false) => return None,
            (true, true) => "feedline did not create it",
            (false, _) => "source.manage is false",
        };
        Some(Error::Publication { what: format!("{}, and {why}", self.reason), remedy: self.sql.clone() })
    }
}

/// The change that the publication needs for these feeds; `None` if it needs none.
///
/// Tables are added and dropped one by one: `SET TABLE` would lose the column lists and row filters of the tables that stay.
pub(super) fn change(options: &Options, feeds: &Feeds, definition: Option<&Definition>) -> Option<Change> {
    let (wanted, name) = (wanted(feeds), identifier(&options.publication));
    let Some(definition) = definition else {
        let reason = format!("publication {:?} does not exist", options.publication);
        let sql = format!("CREATE PUBLICATION {name} FOR TABLE {} WITH ({SETTINGS})", list(&wanted));
        return Some(Change { reason, sql, creates: true, foreign: false, added: wanted });
    };
    let added: Tables = wanted.iter().filter(|table| !definition.holds(table)).cloned().collect();
    let is_ours = definition.made_for().is_some() && options.manage;
    let dropped: Tables = if is_ours { definition.unneeded(&wanted) } else { Tables::new() };
    let add = (!added.is_empty()).then(|| format!("ALTER PUBLICATION {name} ADD TABLE {}", list(&added)));
    let drop = (!dropped.is_empty()).then(|| format!("ALTER PUBLICATION {name} DROP TABLE {}", list(&dropped)));
    let reason = match &add {
        Some(_) => format!("publication {:?} does not hold {}", options.publication, list(&added)),
        None => format!("publication {:?} holds tables that no feed names", options.publication),
    };
    let statements: Vec<_> = add.into_iter().chain(drop).collect();
    (!statements.is_empty()).then(|| Change { reason, sql: statements.join("; "), creates: false, foreign: !is_ours, added })
}

/// The error when feedline, or its role, may not make the change; `None` when they may.
pub(super) async fn check_changeable(options: &Options, change: &Change, session: &mut Session) -> Result<Option<Error>, Error> {
    if let Some(refused) = change.refused(options) {
        return Ok(Some(refused));
    }
    let (name, user) = (identifier(&options.publication), identifier(&options.user));
    let (allowed, what, remedy) = if change.creates {
        let database = identifier(&options.database);
        (
            "pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')".to_owned(),
            format!("role {user} may not create a publication in database {database}"),
            format!("GRANT CREATE ON DATABASE {database} TO {user}, or create it by hand with source.manage = false"),
        )
    } else {
        (
            format!(
                "EXISTS (SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = {} AND pg_catalog.pg_has_role(pubowner, 'USAGE'))",
                literal(&options.publication)
            ),
            format!("role {user} does not own publication {name} and so cannot change it"),
            format!("ALTER PUBLICATION {name} OWNER TO {user}, or change it by hand with source.manage = false"),
        )
    };
    let is_allowed = session.query_one(&format!("SELECT {allowed}")).await?.is_true(0);
    Ok((!is_allowed).then_some(Error::Privilege { what, remedy }))
}

/// What the feeds need and the publication does not publish, each with a remedy.
pub(super) async fn omissions(
    options: &Options,
    feeds: &Feeds,
    definition: Option<&Definition>,
    session: &mut Session,
) -> Result<Vec<Error>, Error> {
    match definition {
        Some(definition) => omissions::find(options, feeds, definition, session).await,
        None => omissions::unlogged(feeds, session).await,
    }
}

/// Refuses a publication that does not publish all that the feeds need.
pub(super) async fn check_whole(
    options: &Options,
    feeds: &Feeds,
    definition: Option<&Definition>,
    session: &mut Session,
) -> Result<(), Error> {
    omissions(options, feeds, definition, session).await?.into_iter().next().map_or(Ok(()), Err)
}

/// Creates or changes the publication so that it holds the feeds' tables, and returns it as it is then. One that feedline may not change is
/// only checked.
///
/// This must be done before the slot is created: the server uses the publication as it was at each log position.
pub(super) async fn ensure(
    options: &Options,
    feeds: &Feeds,
    definition: Option<Definition>,
    session: &mut Session,
) -> Result<Option<Definition>, Error> {
    let Some(change) = change(options, feeds, definition.as_ref()) else { return Ok(definition) };
    if let Some(refused) = change.refused(options) {
        return Err(refused);
    }
    let name = identifier(&options.publication);
    let comment = literal(&definition::comment(&wanted(feeds)));
    let sql = format!("{}; COMMENT ON PUBLICATION {name} IS {comment}", change.sql);
    alteration::run(options, &sql, session).await.map_err(|error| match error {
        Error::Privilege { what, .. } => {
            Error::Privilege { what, remedy: format!("{} -- as the tables' owner, then set source.manage = false", change.sql) }
        }
        other => other,
    })?;
    let what = if change.creates { "the publication is created" } else { "the publication is changed" };
    tracing::info!(publication = %options.publication, reason = change.reason, "{what}");
    Definition::read(options, session).await
}

/// Feeds whose tables are not published any more, or were not for some time, with the reason. A table that is dropped leaves its
/// publication, and a new table of the same name does not become a member. Neither is in the log, and changes of the new table
/// are not in the log either.
pub(super) fn left<'f>(
    definition: Option<&Definition>,
    feeds: impl Iterator<Item = (&'f Feed, Option<Membership>)>,
) -> Vec<(&'f Feed, Gap)> {
    // Without the publication, the server ends the log with an error at the next change.
    let Some(definition) = definition else { return Vec::new() };
    feeds.filter_map(|(feed, known)| Some((feed, definition.gap(&name_of(feed), known.as_ref())?))).collect()
}

/// Checks that these feeds' tables are published, and have been since they were last seen.
pub(super) fn check_kept<'f>(
    options: &Options,
    definition: Option<&Definition>,
    feeds: impl Iterator<Item = (&'f Feed, Option<Membership>)>,
) -> Result<(), Error> {
    let left = left(definition, feeds);
    let Some((_, gap)) = left.first() else { return Ok(()) };
    let tables = left.iter().map(|(feed, _)| table(&feed.schema, &feed.table)).collect::<Vec<_>>().join(", ");
    Err(Error::LogLost { what: format!("{tables} left publication {:?}: {gap}; later changes are not in the log", options.publication) })
}

/// Whether the publication exists and feedline created it. Only such a one shows that the pipeline has run before.
pub(super) async fn is_ours(options: &Options, session: &mut Session) -> Result<bool, Error> {
    let found = session
        .query(&format!(
            "SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = {} AND pg_catalog.starts_with(pg_catalog.obj_description(oid, 'pg_publication'), {})",
            literal(&options.publication),
            literal(OURS)
        ))
        .await?;
    Ok(!found.is_empty())
}

/// Drops the publication if feedline created it. Returns whether it was dropped.
pub(super) async fn remove(options: &Options, session: &mut Session) -> Result<bool, Error> {
    if !is_ours(options, session).await? {
        return Ok(false);
    }
    session.query(&format!("DROP PUBLICATION {}", identifier(&options.publication))).await?;
    Ok(true)
}
