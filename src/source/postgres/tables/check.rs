//! Whether a table can be followed by the key of its feed, and whether the application's updates succeed once it is published.

use super::published::Publication;
use super::{Column, Generated, Held, Identity, Index, Relation, Table};
use crate::event::FeedId;
use crate::feed::{Feed, Feeds};
use crate::preflight::named;
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::quote::identifier;
use crate::source::postgres::session::Session;
use crate::source::postgres::tables;
use std::sync::Arc;

/// What follows from a problem while we run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Two rows may have one key, or a row none.
    Key,
    /// Updates and deletes of the application fail.
    Writes,
    /// The log does not say which rows are changed.
    Identity,
}

/// Something that stands against following a table.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) fault: Fault,
    reason: String,
    remedy: String,
}

impl Problem {
    pub(crate) fn error(self, feed: &Feed) -> Error {
        Error::Keyless { table: feed.name.to_string(), reason: self.reason, remedy: self.remedy }
    }
}

/// All that stands against following the table by the feed's key.
pub(crate) fn check(feed: &Feed, table: &Table, publication: &Publication) -> Vec<Problem> {
    let mut problems = key(feed, table, publication);
    // Without a key it is not known yet which columns an identity must hold, and what is done about the one changes the other.
    if !feed.key.is_empty() {
        problems.extend(identity(feed, table, publication));
    }
    problems
}

/// What is to be said of the tables while they are followed. A key that no longer tells rows apart ends it; what stands against the
/// application's updates or its later partitions is for a person.
pub(crate) async fn look(options: &Options, feeds: &Feeds, session: &mut Session) -> Result<Vec<String>, Error> {
    let (tables, publication) = (tables::of(feeds, session).await?, Publication::read(options, session).await?);
    let mut said = Vec::new();
    for table in &tables {
        let Some(feed) = feeds.of_table(&table.root.schema, &table.root.name) else { continue };
        for problem in check(feed, table, &publication) {
            let ends = problem.fault == Fault::Key;
            let error = problem.error(feed);
            if ends {
                return Err(error);
            }
            said.push(error.to_string());
        }
    }
    Ok(said)
}

/// What stands against following these feeds' tables from now on.
pub(crate) async fn verify(options: &Options, feeds: &Feeds, concerned: &[FeedId], session: &mut Session) -> Result<(), Error> {
    let (tables, publication) = (tables::of(feeds, session).await?, Publication::read(options, session).await?);
    for table in &tables {
        let feed = feeds.of_table(&table.root.schema, &table.root.name).filter(|feed| concerned.contains(&feed.id));
        if let Some(feed) = feed
            && let Some(problem) = check(feed, table, &publication).into_iter().next()
        {
            return Err(problem.error(feed));
        }
    }
    Ok(())
}

/// Whether partitions that are made later come with an identity that does not hold the feed's key: of their root's they inherit the
/// primary key alone.
pub(crate) fn made_later(feed: &Feed, table: &Table) -> bool {
    let primary_key = table.root.primary_key().filter(|index| index.is_immediate);
    let holds = |column: &Arc<str>| primary_key.is_some_and(|index| index.key.iter().flatten().any(|key| key == column));
    table.is_partitioned() && !(primary_key.is_some() && feed.key.iter().all(holds))
}

/// The key says of each row which one it is.
fn key(feed: &Feed, table: &Table, publication: &Publication) -> Vec<Problem> {
    let problem = |reason, remedy| Problem { fault: Fault::Key, reason, remedy };
    if feed.key.is_empty() {
        return vec![problem("it has no primary key and the feed names no key".to_owned(), primary_key_wanted(feed, table, publication))];
    }
    let name = table.root.sql_name();
    let mut problems = Vec::new();
    let mut unfilled = Vec::new();
    for key in &feed.key {
        match table.root.columns.iter().find(|column| column.name == *key) {
            None => {
                problems.push(problem(format!("its key column {key:?} is no longer there"), "name another key for the feed".to_owned()));
            }
            Some(column) if is_left_out(column, feed, publication) => problems.push(problem(
                format!("its key column {key:?} is generated: the log does not carry it"),
                "name other columns that are unique as the feed's key".to_owned(),
            )),
            Some(column) if !column.is_filled => unfilled.push(identifier(key)),
            Some(_) => {}
        }
    }
    if let Some(first) = unfilled.first() {
        let set: Vec<_> = unfilled.iter().map(|column| format!("ALTER COLUMN {column} SET NOT NULL")).collect();
        problems.push(problem(
            format!("its key column {first} may be null: such rows cannot be told apart"),
            format!("run: ALTER TABLE {name} {}", set.join(", ")),
        ));
    }
    if table.apart_by(&feed.key).is_none() {
        let (reason, remedy) = not_unique(feed, table);
        problems.push(problem(reason, remedy));
    }
    problems
}

fn is_left_out(column: &Column, feed: &Feed, publication: &Publication) -> bool {
    match column.generated {
        Generated::No => false,
        Generated::Stored => !publication.holds_generated(feed, &column.name),
        Generated::Virtual => true,
    }
}

fn list<'c>(columns: impl IntoIterator<Item = &'c Arc<str>>) -> String {
    columns.into_iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ")
}

/// What to do about a table of which nothing says how its rows are told apart: to name a key for it, where one is unique and the log
/// tells it.
fn primary_key_wanted(feed: &Feed, table: &Table, publication: &Publication) -> String {
    let name = table.root.sql_name();
    let is_filled = |key: &Arc<str>| table.root.is_filled(key);
    let is_fit = |index: &&Index| {
        index.identifies() && index.keeps_equal_apart && index.key.iter().all(|column| column.as_ref().is_some_and(is_filled))
    };
    let fit = || table.root.indexes.iter().filter(is_fit);
    let keyed = |index: &Index| Feed { key: index.key.iter().flatten().cloned().collect(), ..feed.clone() };
    if let Some(feed) = fit().map(keyed).find(|feed| check(feed, table, publication).is_empty()) {
        let columns: Vec<_> = feed.key.iter().map(|column| format!("{column:?}")).collect();
        return format!(
            "set key = [{}] in its [[feeds]], or run: ALTER TABLE {name} ADD PRIMARY KEY ({})",
            columns.join(", "),
            list(&feed.key)
        );
    }
    match fit().next() {
        Some(index) => format!("run: ALTER TABLE {name} ADD PRIMARY KEY ({})", list(index.key.iter().flatten())),
        None => format!("run: ALTER TABLE {name} ADD PRIMARY KEY (...) with the columns that are unique"),
    }
}

/// Why nothing keeps rows of the same key apart, and what would.
fn not_unique(feed: &Feed, table: &Table) -> (String, String) {
    let (name, key) = (table.root.sql_name(), list(&feed.key));
    if let Some(index) = table.root.primary_key() {
        let columns = list(index.key.iter().flatten());
        let remade = format!("run: ALTER TABLE {name} DROP CONSTRAINT {}, ADD PRIMARY KEY ({columns})", identifier(&index.name));
        if !index.is_immediate {
            return ("its primary key is DEFERRABLE: two rows may have the same key within a transaction".to_owned(), remade);
        }
        if !index.is_valid {
            return ("its primary key is not valid: not every partition has it".to_owned(), remade);
        }
        if !index.keeps_equal_apart {
            return (
                format!("its primary key ({columns}) does not keep equal values apart"),
                format!("run: CREATE UNIQUE INDEX ON {name} ({key})"),
            );
        }
        return (
            format!("its key ({key}) is not known to be unique: its primary key is ({columns})"),
            format!("leave `key` out of the feed, or run: CREATE UNIQUE INDEX ON {name} ({key})"),
        );
    }
    let reason =
        format!("no unique index keeps its key ({key}) apart: one that is valid, not deferrable, not partial, of these columns alone");
    let mut spread = Vec::new();
    for column in table.spread_by() {
        match column {
            Some(column) if feed.key.contains(column) || spread.contains(&column) => {}
            Some(column) => spread.push(column),
            None => return (reason, "its partition key is an expression, so that no index can: leave it out of the feeds".to_owned()),
        }
    }
    let wider = list(feed.key.iter().chain(spread.iter().copied()));
    let run = format!("run: ALTER TABLE {name} ADD PRIMARY KEY ({wider})");
    (reason, if spread.is_empty() { run } else { format!("leave `key` out of the feed, and {run}") })
}

/// Why an identity does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Objection {
    Missing,
    Nothing,
    Generated(Arc<str>),
    /// A column of the identity that the publication's list does not name.
    Unlisted(Arc<str>),
    /// A column of the publication's filter that the identity does not hold.
    Filtered(Arc<str>),
    /// A key column that the identity does not hold.
    KeyOutside(Arc<str>),
}

/// The log tells of each changed row by its key, and PostgreSQL admits the change.
fn identity(feed: &Feed, table: &Table, publication: &Publication) -> Vec<Problem> {
    let mut found: Vec<(Objection, Vec<&Relation>)> = Vec::new();
    for leaf in table.leaves() {
        let Some(objection) = objection(leaf, &leaf.held(), feed, publication) else { continue };
        match found.iter_mut().find(|(known, _)| *known == objection) {
            Some((_, leaves)) => leaves.push(leaf),
            None => found.push((objection, vec![leaf])),
        }
    }
    found
        .into_iter()
        .map(|(objection, leaves)| {
            let (who, has) = match leaves.as_slice() {
                [_] if !table.is_partitioned() => ("it".to_owned(), "has"),
                [leaf] => (format!("partition {}", leaf.sql_name()), "has"),
                leaves => (format!("partitions {}", named(leaves.iter().map(|leaf| leaf.sql_name()))), "have"),
            };
            let remedies: Vec<_> = leaves.iter().map(|leaf| remedy(leaf, feed, publication)).collect();
            Problem { fault: objection.fault(), reason: objection.reason(&who, has), remedy: format!("run: {}", remedies.join("; ")) }
        })
        .collect()
}

impl Objection {
    const fn fault(&self) -> Fault {
        match self {
            Self::KeyOutside(_) => Fault::Identity,
            _ => Fault::Writes,
        }
    }

    fn reason(&self, who: &str, has: &str) -> String {
        const FAILS: &str = "so that the application's updates and deletes fail once it is published";
        match self {
            Self::Missing => format!("{who} {has} no replica identity, {FAILS}"),
            Self::Nothing => format!("{who} {has} REPLICA IDENTITY NOTHING, {FAILS}"),
            Self::Generated(column) => {
                format!("{who} {has} the generated column {column:?} in the replica identity but not in the publication, {FAILS}")
            }
            Self::Unlisted(column) => {
                format!("{who} {has} column {column:?} in the replica identity beside the publication's column list, {FAILS}")
            }
            Self::Filtered(column) => {
                format!("{who} {has} column {column:?} in the publication's filter but not in the replica identity, {FAILS}")
            }
            Self::KeyOutside(column) => format!("the key column {column:?} is not part of the replica identity that {who} {has}"),
        }
    }
}

/// What PostgreSQL has against an identity (`CheckCmdReplicaIdentity`), and then we.
fn objection(leaf: &Relation, held: &Held<'_>, feed: &Feed, publication: &Publication) -> Option<Objection> {
    if *held == Held::Nothing {
        return Some(if leaf.identity == Identity::Nothing { Objection::Nothing } else { Objection::Missing });
    }
    let is_unpublished = |column: &&Column| match column.generated {
        Generated::No => false,
        Generated::Stored if *held == Held::All => !publication.holds_all_generated(),
        Generated::Stored => !publication.holds_generated(feed, &column.name),
        Generated::Virtual => true,
    };
    let of_identity = leaf.columns.iter().filter(|column| held.holds(&column.name));
    if publication.asks_for_generated
        && let Some(column) = of_identity.clone().find(is_unpublished)
    {
        return Some(Objection::Generated(Arc::clone(&column.name)));
    }
    if let Some(listed) = publication.listed(feed) {
        if let Some(columns) = &listed.columns {
            // Under FULL any list is refused, were it one of all columns.
            let unlisted = of_identity.clone().find(|column| !columns.contains(&column.name));
            if let Some(column) = unlisted.or_else(|| leaf.columns.first().filter(|_| *held == Held::All)) {
                return Some(Objection::Unlisted(Arc::clone(&column.name)));
            }
        }
        if let Some(column) = listed.filter.iter().find(|column| !held.holds(column)) {
            return Some(Objection::Filtered(Arc::clone(column)));
        }
    }
    feed.key.iter().find(|key| !held.holds(key)).map(|key| Objection::KeyOutside(Arc::clone(key)))
}

/// The statement after which nothing is to be said against the partition's identity.
fn remedy(leaf: &Relation, feed: &Feed, publication: &Publication) -> String {
    let name = leaf.sql_name();
    let fits = |held: &Held<'_>| objection(leaf, held, feed, publication).is_none();
    let of_index = |index: &&Index| {
        index.identifies()
            && index.key.iter().all(|column| column.as_ref().is_some_and(|column| leaf.is_filled(column)))
            && fits(&index.held())
    };
    if leaf.primary_key().is_some_and(|index| of_index(&index)) {
        return format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT");
    }
    if fits(&Held::All) {
        return format!("ALTER TABLE {name} REPLICA IDENTITY FULL");
    }
    if let Some(index) = leaf.indexes.iter().find(of_index) {
        return format!("ALTER TABLE {name} REPLICA IDENTITY USING INDEX {}", identifier(&index.name));
    }
    if leaf.primary_key().is_none() && !feed.key.is_empty() {
        return format!("ALTER TABLE {name} ADD PRIMARY KEY ({}), REPLICA IDENTITY DEFAULT", list(&feed.key));
    }
    format!("ALTER PUBLICATION ... so that it holds all columns of {name} and every row")
}
