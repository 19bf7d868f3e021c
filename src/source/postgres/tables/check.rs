//! Checks whether a table can be followed by its feed's key, and whether the application's updates still succeed once it is published.

use super::published::Publication;
use super::{Column, Generated, Identity, Index, OldRowColumns, Relation, Table};
use crate::event::FeedId;
use crate::feed::{Feed, Feeds};
use crate::preflight::named;
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::quote::identifier;
use crate::source::postgres::session::Session;
use crate::source::postgres::tables;
use std::sync::Arc;

/// What a problem affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    /// Two rows may have the same key, or a row may have none.
    Key,
    /// Updates and deletes of the application fail.
    Writes,
    /// The log does not identify the rows that were changed.
    Identity,
}

/// A reason why a table cannot be followed.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) kind: ProblemKind,
    reason: String,
    remedy: String,
}

impl Problem {
    pub(crate) fn error(self, feed: &Feed) -> Error {
        Error::Keyless { table: feed.name.to_string(), reason: self.reason, remedy: self.remedy }
    }
}

/// Finds all reasons why the table cannot be followed by the feed's key.
pub(crate) fn check(feed: &Feed, table: &Table, publication: &Publication) -> Vec<Problem> {
    let mut problems = key(feed, table, publication);
    // Without a key it is not known which columns the replica identity must contain, and the remedy for the key may change the identity.
    if !feed.key.is_empty() {
        problems.extend(identity(feed, table, publication));
    }
    problems
}

/// Checks the feeds' tables while the log is read. A key that is no longer unique and not null is an error. Other problems, such as
/// updates of the application that fail, are returned as warnings.
pub(crate) async fn look(options: &Options, feeds: &Feeds, session: &mut Session) -> Result<Vec<String>, Error> {
    let (tables, publication) = (tables::of(feeds, session).await?, Publication::read(options, session).await?);
    let mut warnings = Vec::new();
    for table in &tables {
        let Some(feed) = feeds.of_table(&table.root.schema, &table.root.name) else { continue };
        for problem in check(feed, table, &publication) {
            let is_fatal = problem.kind == ProblemKind::Key;
            let error = problem.error(feed);
            if is_fatal {
                return Err(error);
            }
            warnings.push(error.to_string());
        }
    }
    Ok(warnings)
}

/// Checks that the tables of the feeds in `concerned` can be followed; returns the first problem as an error.
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

/// Whether partitions that are created later will have a replica identity without the feed's key. A new partition inherits only the
/// primary key of its root.
pub(crate) fn made_later(feed: &Feed, table: &Table) -> bool {
    let primary_key = table.root.primary_key().filter(|index| index.is_immediate);
    let contains = |column: &Arc<str>| primary_key.is_some_and(|index| index.key.iter().flatten().any(|key| key == column));
    table.is_partitioned() && !(primary_key.is_some() && feed.key.iter().all(contains))
}

/// Problems of the key: its columns must exist, be in the log, be not null, and be unique.
fn key(feed: &Feed, table: &Table, publication: &Publication) -> Vec<Problem> {
    let problem = |reason, remedy| Problem { kind: ProblemKind::Key, reason, remedy };
    if feed.key.is_empty() {
        return vec![problem("it has no primary key and the feed names no key".to_owned(), primary_key_wanted(feed, table, publication))];
    }
    let name = table.root.sql_name();
    let mut problems = Vec::new();
    let mut nullable = Vec::new();
    for key in &feed.key {
        match table.root.columns.iter().find(|column| column.name == *key) {
            None => {
                problems.push(problem(format!("its key column {key:?} is no longer there"), "name another key for the feed".to_owned()));
            }
            Some(column) if is_left_out(column, feed, publication) => problems.push(problem(
                format!("its key column {key:?} is generated: the log does not contain it"),
                "name other columns that are unique as the feed's key".to_owned(),
            )),
            Some(column) if !column.is_not_null => nullable.push(identifier(key)),
            Some(_) => {}
        }
    }
    if let Some(first) = nullable.first() {
        let set: Vec<_> = nullable.iter().map(|column| format!("ALTER COLUMN {column} SET NOT NULL")).collect();
        problems.push(problem(
            format!("its key column {first} may be null: rows with null have no key"),
            format!("run: ALTER TABLE {name} {}", set.join(", ")),
        ));
    }
    if table.uniqueness(&feed.key).is_none() {
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

/// The remedy for a table without a primary key and a feed without a key: a key to set in the feed if a unique index and the log
/// allow it, else a primary key.
fn primary_key_wanted(feed: &Feed, table: &Table, publication: &Publication) -> String {
    let name = table.root.sql_name();
    let is_not_null = |key: &Arc<str>| table.root.is_not_null(key);
    let is_suitable = |index: &&Index| {
        index.can_be_identity() && index.forbids_equal && index.key.iter().all(|column| column.as_ref().is_some_and(is_not_null))
    };
    let suitable = || table.root.indexes.iter().filter(is_suitable);
    let with_key = |index: &Index| Feed { key: index.key.iter().flatten().cloned().collect(), ..feed.clone() };
    if let Some(feed) = suitable().map(with_key).find(|feed| check(feed, table, publication).is_empty()) {
        let columns: Vec<_> = feed.key.iter().map(|column| format!("{column:?}")).collect();
        return format!(
            "set key = [{}] in its [[feeds]], or run: ALTER TABLE {name} ADD PRIMARY KEY ({})",
            columns.join(", "),
            list(&feed.key)
        );
    }
    match suitable().next() {
        Some(index) => format!("run: ALTER TABLE {name} ADD PRIMARY KEY ({})", list(index.key.iter().flatten())),
        None => format!("run: ALTER TABLE {name} ADD PRIMARY KEY (...) with the columns that are unique"),
    }
}

/// Why the key is not unique, and the remedy.
fn not_unique(feed: &Feed, table: &Table) -> (String, String) {
    let (name, key) = (table.root.sql_name(), list(&feed.key));
    if let Some(index) = table.root.primary_key() {
        let columns = list(index.key.iter().flatten());
        let recreate = format!("run: ALTER TABLE {name} DROP CONSTRAINT {}, ADD PRIMARY KEY ({columns})", identifier(&index.name));
        if !index.is_immediate {
            return ("its primary key is DEFERRABLE: two rows may have the same key within a transaction".to_owned(), recreate);
        }
        if !index.is_valid {
            return ("its primary key is not valid: not every partition has it".to_owned(), recreate);
        }
        if !index.forbids_equal {
            return (format!("its primary key ({columns}) allows equal values"), format!("run: CREATE UNIQUE INDEX ON {name} ({key})"));
        }
        return (
            format!("its key ({key}) is not known to be unique: its primary key is ({columns})"),
            format!("leave `key` out of the feed, or run: CREATE UNIQUE INDEX ON {name} ({key})"),
        );
    }
    let reason = format!("its key ({key}) has no unique index over these columns alone (valid, not deferrable, not partial)");
    let mut missing = Vec::new();
    for column in table.partition_columns() {
        match column {
            Some(column) if feed.key.contains(column) || missing.contains(&column) => {}
            Some(column) => missing.push(column),
            None => return (reason, "its partition key is an expression, which no index allows: leave it out of the feeds".to_owned()),
        }
    }
    let wider = list(feed.key.iter().chain(missing.iter().copied()));
    let run = format!("run: ALTER TABLE {name} ADD PRIMARY KEY ({wider})");
    (reason, if missing.is_empty() { run } else { format!("leave `key` out of the feed, and {run}") })
}

/// Why a replica identity is not sufficient.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Objection {
    Missing,
    Nothing,
    /// A generated column of the identity that is not published.
    Generated(Arc<str>),
    /// A column of the identity that is not in the publication's column list.
    Unlisted(Arc<str>),
    /// A column of the publication's row filter that is not in the identity.
    Filtered(Arc<str>),
    /// A key column that is not in the identity.
    KeyOutside(Arc<str>),
}

/// Problems of the replica identity: PostgreSQL must accept updates and deletes, and the log must contain the key of each changed row.
fn identity(feed: &Feed, table: &Table, publication: &Publication) -> Vec<Problem> {
    let mut found: Vec<(Objection, Vec<&Relation>)> = Vec::new();
    for leaf in table.leaves() {
        let Some(objection) = objection(leaf, &leaf.old_row_columns(), feed, publication) else { continue };
        match found.iter_mut().find(|(known, _)| *known == objection) {
            Some((_, leaves)) => leaves.push(leaf),
            None => found.push((objection, vec![leaf])),
        }
    }
    found
        .into_iter()
        .map(|(objection, leaves)| {
            let (subject, has) = match leaves.as_slice() {
                [_] if !table.is_partitioned() => ("it".to_owned(), "has"),
                [leaf] => (format!("partition {}", leaf.sql_name()), "has"),
                leaves => (format!("partitions {}", named(leaves.iter().map(|leaf| leaf.sql_name()))), "have"),
            };
            let remedies: Vec<_> = leaves.iter().map(|leaf| remedy(leaf, feed, publication)).collect();
            Problem { kind: objection.kind(), reason: objection.reason(&subject, has), remedy: format!("run: {}", remedies.join("; ")) }
        })
        .collect()
}

impl Objection {
    const fn kind(&self) -> ProblemKind {
        match self {
            Self::KeyOutside(_) => ProblemKind::Identity,
            _ => ProblemKind::Writes,
        }
    }

    fn reason(&self, subject: &str, has: &str) -> String {
        const FAILS: &str = "so updates and deletes would fail";
        match self {
            Self::Missing => format!("{subject} {has} no replica identity, {FAILS}"),
            Self::Nothing => format!("{subject} {has} REPLICA IDENTITY NOTHING, {FAILS}"),
            Self::Generated(column) => {
                format!("{subject} {has} the generated column {column:?} in the replica identity but not in the publication, {FAILS}")
            }
            Self::Unlisted(column) => {
                format!("{subject} {has} column {column:?} in the replica identity but not in the publication's column list, {FAILS}")
            }
            Self::Filtered(column) => {
                format!("{subject} {has} column {column:?} in the publication's filter but not in the replica identity, {FAILS}")
            }
            Self::KeyOutside(column) => format!("the key column {column:?} is not part of the replica identity that {subject} {has}"),
        }
    }
}

/// Why a replica identity with these columns is not sufficient: for PostgreSQL (`CheckCmdReplicaIdentity`), or else for feedline.
fn objection(leaf: &Relation, old: &OldRowColumns<'_>, feed: &Feed, publication: &Publication) -> Option<Objection> {
    if *old == OldRowColumns::Nothing {
        return Some(if leaf.identity == Identity::Nothing { Objection::Nothing } else { Objection::Missing });
    }
    let is_unpublished = |column: &&Column| match column.generated {
        Generated::No => false,
        Generated::Stored if *old == OldRowColumns::All => !publication.holds_all_generated(),
        Generated::Stored => !publication.holds_generated(feed, &column.name),
        Generated::Virtual => true,
    };
    let of_identity = leaf.columns.iter().filter(|column| old.contain(&column.name));
    if publication.server_checks_generated
        && let Some(column) = of_identity.clone().find(is_unpublished)
    {
        return Some(Objection::Generated(Arc::clone(&column.name)));
    }
    if let Some(entry) = publication.checked_entry(feed) {
        if let Some(columns) = &entry.columns {
            // With REPLICA IDENTITY FULL PostgreSQL refuses every column list, even one of all columns.
            let unlisted = of_identity.clone().find(|column| !columns.contains(&column.name));
            if let Some(column) = unlisted.or_else(|| leaf.columns.first().filter(|_| *old == OldRowColumns::All)) {
                return Some(Objection::Unlisted(Arc::clone(&column.name)));
            }
        }
        if let Some(column) = entry.filter.iter().find(|column| !old.contain(column)) {
            return Some(Objection::Filtered(Arc::clone(column)));
        }
    }
    feed.key.iter().find(|key| !old.contain(key)).map(|key| Objection::KeyOutside(Arc::clone(key)))
}

/// The statement that makes the replica identity of this table or partition sufficient.
fn remedy(leaf: &Relation, feed: &Feed, publication: &Publication) -> String {
    let name = leaf.sql_name();
    let suffices = |old: &OldRowColumns<'_>| objection(leaf, old, feed, publication).is_none();
    let index_suffices = |index: &&Index| {
        index.can_be_identity()
            && index.key.iter().all(|column| column.as_ref().is_some_and(|column| leaf.is_not_null(column)))
            && suffices(&index.old_row_columns())
    };
    if leaf.primary_key().is_some_and(|index| index_suffices(&index)) {
        return format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT");
    }
    if suffices(&OldRowColumns::All) {
        return format!("ALTER TABLE {name} REPLICA IDENTITY FULL");
    }
    if let Some(index) = leaf.indexes.iter().find(index_suffices) {
        return format!("ALTER TABLE {name} REPLICA IDENTITY USING INDEX {}", identifier(&index.name));
    }
    if leaf.primary_key().is_none() && !feed.key.is_empty() {
        return format!("ALTER TABLE {name} ADD PRIMARY KEY ({}), REPLICA IDENTITY DEFAULT", list(&feed.key));
    }
    format!("ALTER PUBLICATION ... so that it holds all columns and all rows of {name}")
}
