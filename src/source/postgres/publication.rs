//! The publication: exactly the tables of the feeds, never all tables. What others made is never changed.

use super::error::Error;
use super::options::Options;
use super::quote::{identifier, literal, table};
use super::session::Session;
use crate::feed::{Feed, Feeds};

mod definition;
mod membership;
mod names;
mod omissions;

pub(super) use definition::Definition;
use definition::OURS;
pub(super) use membership::{Gap, Membership, Memberships};
use names::{Tables, list, name_of};
pub(super) use omissions::selections;

/// The settings of a publication that we make. A partitioned table speaks under its own name, not its partitions'.
const SETTINGS: &str = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";

fn wanted(feeds: &Feeds) -> Tables {
    feeds.iter().map(name_of).collect()
}

/// What the publication lacks, or holds of ours without need.
pub(super) struct Change {
    what: String,
    /// The statements that change it, and nothing else of it.
    pub(super) sql: String,
    /// Whether it is missing as a whole.
    makes: bool,
    /// Whether it is there by somebody else's hand.
    foreign: bool,
    /// Tables that are put in.
    added: Tables,
}

impl Change {
    /// Whether it puts the feed's table in, for which one must own it.
    pub(super) fn adds(&self, feed: &Feed) -> bool {
        self.added.contains(&name_of(feed))
    }

    /// What it means where the publication is not ours to change; `None` where it is.
    pub(super) fn refused(&self, options: &Options) -> Option<Error> {
        let why = match (options.manage, self.foreign) {
            (true, false) => return None,
            (true, true) => "others made it",
            (false, _) => "source.manage is false",
        };
        Some(Error::Publication { what: format!("{} and {why}", self.what), remedy: self.sql.clone() })
    }
}

/// What the publication lacks for the feeds; `None` where it is as they need it.
pub(super) async fn change(options: &Options, feeds: &Feeds, session: &mut Session) -> Result<Option<Change>, Error> {
    let definition = Definition::read(options, session).await?;
    Ok(change_of(options, feeds, definition.as_ref()))
}

/// Only what is to change is touched: a list that is set as a whole would lose the columns and the filters of those that stay.
fn change_of(options: &Options, feeds: &Feeds, definition: Option<&Definition>) -> Option<Change> {
    let (wanted, name) = (wanted(feeds), identifier(&options.publication));
    let Some(definition) = definition else {
        let what = format!("publication {:?} does not exist", options.publication);
        let sql = format!("CREATE PUBLICATION {name} FOR TABLE {} WITH ({SETTINGS})", list(&wanted));
        return Some(Change { what, sql, makes: true, foreign: false, added: wanted });
    };
    let added: Tables = wanted.iter().filter(|table| !definition.holds(table)).cloned().collect();
    let is_ours = definition.made_for().is_some() && options.manage;
    let dropped: Tables = if is_ours { definition.surplus(&wanted) } else { Tables::new() };
    let add = (!added.is_empty()).then(|| format!("ALTER PUBLICATION {name} ADD TABLE {}", list(&added)));
    let drop = (!dropped.is_empty()).then(|| format!("ALTER PUBLICATION {name} DROP TABLE {}", list(&dropped)));
    let what = match &add {
        Some(_) => format!("publication {:?} does not hold {}", options.publication, list(&added)),
        None => format!("publication {:?} holds tables that no feed names", options.publication),
    };
    let statements: Vec<_> = add.into_iter().chain(drop).collect();
    (!statements.is_empty()).then(|| Change { what, sql: statements.join("; "), makes: false, foreign: !is_ours, added })
}

/// Whether we may change it so: make one in the database, or change one that is ours.
pub(super) async fn check_changeable(options: &Options, change: &Change, session: &mut Session) -> Result<Option<Error>, Error> {
    if let Some(refused) = change.refused(options) {
        return Ok(Some(refused));
    }
    let (name, user) = (identifier(&options.publication), identifier(&options.user));
    let (allowed, what, remedy) = if change.makes {
        let database = identifier(&options.database);
        (
            "pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')".to_owned(),
            format!("role {user} may not make a publication in database {database}"),
            format!("GRANT CREATE ON DATABASE {database} TO {user}, or make it by hand and set source.manage = false: {}", change.sql),
        )
    } else {
        (
            format!(
                "EXISTS (SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = {} AND pg_catalog.pg_has_role(pubowner, 'USAGE'))",
                literal(&options.publication)
            ),
            format!("role {user} does not own publication {name} and so cannot change it"),
            format!("ALTER PUBLICATION {name} OWNER TO {user}, or change it by hand and set source.manage = false: {}", change.sql),
        )
    };
    let is_allowed = session.query_one(&format!("SELECT {allowed}")).await?.is_true(0);
    Ok((!is_allowed).then_some(Error::Privilege { what, remedy }))
}

/// What the publication leaves out of what the feeds are to show, each with its remedy.
pub(super) async fn omissions(options: &Options, feeds: &Feeds, session: &mut Session) -> Result<Vec<Error>, Error> {
    match Definition::read(options, session).await? {
        Some(definition) => omissions::find(options, feeds, &definition, session).await,
        None => omissions::unlogged(feeds, session).await,
    }
}

/// Refuses a publication that leaves out what the feeds are to show.
pub(super) async fn check_whole(options: &Options, feeds: &Feeds, session: &mut Session) -> Result<(), Error> {
    omissions(options, feeds, session).await?.into_iter().next().map_or(Ok(()), Err)
}

/// Makes the publication hold the feeds' tables, or where it is not ours verifies that it does.
///
/// It comes before the slot: the server looks it up as it was at each place of the log.
pub(super) async fn ensure(options: &Options, feeds: &Feeds, session: &mut Session) -> Result<(), Error> {
    let Some(change) = change(options, feeds, session).await? else { return Ok(()) };
    if let Some(refused) = change.refused(options) {
        return Err(refused);
    }
    tracing::info!(publication = %options.publication, "{}", change.sql);
    let name = identifier(&options.publication);
    let comment = literal(&definition::comment(&wanted(feeds)));
    // In one transaction, as the server runs what is sent to it at once.
    let sql = format!("{}; COMMENT ON PUBLICATION {name} IS {comment}", change.sql);
    session.query(&sql).await.map(drop).map_err(|error| match error {
        Error::Privilege { what, .. } => Error::Privilege {
            what,
            remedy: format!(
                "{} -- as the owner of the tables, then set source.manage = false; or make {:?} their owner and GRANT CREATE ON DATABASE {} TO {}",
                change.sql,
                options.user,
                identifier(&options.database),
                identifier(&options.user)
            ),
        },
        other => other,
    })
}

/// Feeds of which the log holds nothing more, or held nothing for a while, with the reason. A table that is dropped leaves its
/// publication without a word in the log, and one that is made anew under its name does not come back: what is written to it
/// meanwhile is nowhere.
pub(super) async fn left<'f>(
    options: &Options,
    feeds: impl Iterator<Item = (&'f Feed, Option<Membership>)>,
    session: &mut Session,
) -> Result<Vec<(&'f Feed, Gap)>, Error> {
    // Without the publication the log itself ends with an error at the next change.
    let Some(definition) = Definition::read(options, session).await? else { return Ok(Vec::new()) };
    Ok(feeds.filter_map(|(feed, known)| Some((feed, definition.has_left(&name_of(feed), known.as_ref())?))).collect())
}

/// Checks that tables which were published before still are, and were all the time.
pub(super) async fn check_kept<'f>(
    options: &Options,
    feeds: impl Iterator<Item = (&'f Feed, Option<Membership>)>,
    session: &mut Session,
) -> Result<(), Error> {
    let left = left(options, feeds, session).await?;
    let Some((_, why)) = left.first() else { return Ok(()) };
    let tables = left.iter().map(|(feed, _)| table(&feed.schema, &feed.table)).collect::<Vec<_>>().join(", ");
    Err(Error::LogLost {
        what: format!("{tables} left publication {:?}: {why}; what was written since is not in the log", options.publication),
    })
}

/// How the publication holds the feeds' tables.
pub(super) async fn memberships(options: &Options, session: &mut Session) -> Result<Memberships, Error> {
    Ok(Definition::read(options, session).await?.map(Definition::into_memberships).unwrap_or_default())
}

/// Whether it exists, whoever made it.
pub(super) async fn exists(options: &Options, session: &mut Session) -> Result<bool, Error> {
    Ok(Definition::read(options, session).await?.is_some())
}

/// Whether it exists, and was made by us: one that somebody else made says nothing of an earlier run.
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

/// Drops it if it is ours; returns whether it was.
pub(super) async fn remove(options: &Options, session: &mut Session) -> Result<bool, Error> {
    if !is_ours(options, session).await? {
        return Ok(false);
    }
    session.query(&format!("DROP PUBLICATION {}", identifier(&options.publication))).await?;
    Ok(true)
}
