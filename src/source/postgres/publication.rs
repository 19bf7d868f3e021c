//! The publication: exactly the tables of the feeds, never all tables.

use super::error::Error;
use super::session::Session;
use super::{Options, identifier, literal, table};
use crate::feed::{Feed, Feeds};
use std::collections::BTreeSet;

/// The settings of a publication that we make. A partitioned table speaks under its own name, not its partitions'.
const SETTINGS: &str = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";

/// The comment by which a publication that we made is known.
const OURS: &str = "made by feedline";

type Tables = BTreeSet<(String, String)>;

/// What the publication holds; `None` where it does not exist.
async fn read(options: &Options, session: &mut Session) -> Result<Option<Tables>, Error> {
    let name = literal(&options.publication);
    let exists = session.query(&format!("SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = {name}")).await?;
    if exists.is_empty() {
        return Ok(None);
    }
    let rows = session.query(&format!("SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname = {name}")).await?;
    Ok(Some(rows.iter().map(|row| (row.text(0).to_owned(), row.text(1).to_owned())).collect()))
}

fn wanted(feeds: &Feeds) -> Tables {
    feeds.iter().map(|feed| (feed.schema.to_string(), feed.table.to_string())).collect()
}

/// Each table alone: without the word those that inherit from it would come along, under their own names.
fn list<'t>(tables: impl IntoIterator<Item = &'t (String, String)>) -> String {
    tables.into_iter().map(|(schema, name)| format!("ONLY {}", table(schema, name))).collect::<Vec<_>>().join(", ")
}

/// The statement that makes it.
fn creation(options: &Options, tables: &Tables) -> String {
    format!("CREATE PUBLICATION {} FOR TABLE {} WITH ({SETTINGS})", identifier(&options.publication), list(tables))
}

/// What the publication lacks.
pub(super) struct Change {
    what: String,
    /// The statement that mends it.
    pub(super) sql: String,
    /// Whether it is missing as a whole.
    pub(super) makes: bool,
}

impl Change {
    /// What it means where the publication is not ours to change.
    pub(super) fn refused(self) -> Error {
        Error::Publication { what: format!("{} and source.manage is false", self.what), remedy: self.sql }
    }
}

/// What the publication lacks for the feeds; `None` where it is as they need it.
pub(super) async fn change(options: &Options, feeds: &Feeds, session: &mut Session) -> Result<Option<Change>, Error> {
    let wanted = wanted(feeds);
    let name = identifier(&options.publication);
    let held = read(options, session).await?;
    let makes = held.is_none();
    let (what, sql) = match held {
        None => (format!("publication {:?} does not exist", options.publication), creation(options, &wanted)),
        Some(held) if options.manage && held != wanted => {
            ("publication holds other tables".to_owned(), format!("ALTER PUBLICATION {name} SET TABLE {}", list(&wanted)))
        }
        Some(held) => {
            let missing: Tables = wanted.difference(&held).cloned().collect();
            if missing.is_empty() {
                return Ok(None);
            }
            let tables = list(&missing);
            (
                format!("publication {:?} does not hold {tables}", options.publication),
                format!("ALTER PUBLICATION {name} ADD TABLE {tables}"),
            )
        }
    };
    Ok(Some(Change { what, sql, makes }))
}

/// Whether we may change it so: make one in the database, or change one that is ours.
pub(super) async fn check_changeable(options: &Options, change: &Change, session: &mut Session) -> Result<Option<Error>, Error> {
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

/// Makes the publication hold the feeds' tables, or where it is not ours verifies that it does.
///
/// It comes before the slot: the server looks it up as it was at each place of the log.
pub(super) async fn ensure(options: &Options, feeds: &Feeds, session: &mut Session) -> Result<(), Error> {
    let Some(change) = change(options, feeds, session).await? else { return Ok(()) };
    if !options.manage {
        return Err(change.refused());
    }
    let Change { sql, makes, .. } = change;
    tracing::info!(publication = %options.publication, "{sql}");
    let changed = session.query(&sql).await.map(drop).map_err(|error| match error {
        Error::Privilege { what, .. } => Error::Privilege {
            what,
            remedy: format!(
                "{sql} -- as the owner of the tables, then set source.manage = false; or make {:?} their owner and GRANT CREATE ON DATABASE {} TO {}",
                options.user,
                identifier(&options.database),
                identifier(&options.user)
            ),
        },
        other => other,
    });
    changed?;
    if makes {
        session.query(&format!("COMMENT ON PUBLICATION {} IS {}", identifier(&options.publication), literal(OURS))).await?;
    }
    Ok(())
}

/// Feeds whose tables are no longer published. A table that is dropped leaves its publication without a word in the log, and one
/// that is made anew under its name does not come back: what is written to it meanwhile is nowhere.
pub(super) async fn left<'f>(
    options: &Options,
    feeds: impl Iterator<Item = &'f Feed>,
    session: &mut Session,
) -> Result<Vec<&'f Feed>, Error> {
    // Without the publication the log itself ends with an error at the next change.
    let Some(held) = read(options, session).await? else { return Ok(Vec::new()) };
    Ok(feeds.filter(|feed| !held.contains(&(feed.schema.to_string(), feed.table.to_string()))).collect())
}

/// Checks that tables which were published before still are.
pub(super) async fn check_kept<'f>(options: &Options, feeds: impl Iterator<Item = &'f Feed>, session: &mut Session) -> Result<(), Error> {
    let left = left(options, feeds, session).await?;
    if left.is_empty() {
        return Ok(());
    }
    let tables = left.iter().map(|feed| table(&feed.schema, &feed.table)).collect::<Vec<_>>().join(", ");
    Err(Error::LogLost {
        what: format!(
            "{tables} left publication {:?}: dropped and perhaps made anew, or taken out; what was written to it since is not in the log; \
             to go on without that, start once without the table in the feeds, then with it again",
            options.publication
        ),
    })
}

/// Whether it exists, whoever made it.
pub(super) async fn exists(options: &Options, session: &mut Session) -> Result<bool, Error> {
    Ok(read(options, session).await?.is_some())
}

/// Whether it exists, and was made by us: one that somebody else made says nothing of an earlier run.
pub(super) async fn is_ours(options: &Options, session: &mut Session) -> Result<bool, Error> {
    let found = session
        .query(&format!(
            "SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = {} AND pg_catalog.obj_description(oid, 'pg_publication') = {}",
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
