//! What a table is: its columns, its unique indexes, and which columns of an old row the log carries.
//!
//! One question to the catalogue answers it for all who ask. A partitioned table has no rows: what the log carries of an old row
//! is decided by the partition that holds it, and what PostgreSQL asks before it admits an update it asks of that partition too.

use super::error::Error;
use super::quote::{literal, table};
use super::session::{Answer, Session};
use crate::event::FeedId;
use crate::feed::{Feed, Feeds};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) mod check;
mod published;

pub(super) use published::Publication;

/// A table that could be published.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) root: Relation,
    /// Partitions that are partitioned themselves.
    branches: Vec<Relation>,
    /// Partitions that hold rows.
    partitions: Vec<Relation>,
    pub(super) rights: Rights,
}

/// What our role may do with a table.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "answers of the catalogue, each a yes or a no of its own")]
pub(super) struct Rights {
    pub(super) owned: bool,
    /// Whether its schema is open to us.
    pub(super) usable: bool,
    pub(super) readable: bool,
    /// Whether a policy may hide rows from us.
    pub(super) hidden: bool,
}

/// A table, or one partition.
#[derive(Clone, Debug)]
pub(super) struct Relation {
    /// What the server knows it by, whatever its name is.
    number: u32,
    pub(super) schema: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) columns: Vec<Column>,
    identity: Identity,
    indexes: Vec<Index>,
    /// The columns by which it is partitioned; `None` stands for an expression.
    partitioned_by: Vec<Option<Arc<str>>>,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: Arc<str>,
    /// Whether every row has a value in it.
    is_filled: bool,
    generated: Generated,
    /// Whether its values may be stored outside of their row, for which the table has a place where its rows can grow too wide: an update
    /// that does not change them leaves them out.
    may_be_left_out: bool,
    /// Whether our role may read it, be it by a grant of this column alone.
    is_readable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generated {
    No,
    Stored,
    /// Computed when it is read.
    Virtual,
}

/// What was chosen for `REPLICA IDENTITY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    PrimaryKey,
    Nothing,
    Full,
    Index,
}

/// A unique index.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "answers of the catalogue, each a yes or a no of its own")]
pub(super) struct Index {
    /// What the server knows it by.
    pub(super) number: u32,
    name: String,
    /// Its key columns, without those that it includes besides; `None` stands for an expression.
    key: Vec<Option<Arc<str>>>,
    is_primary: bool,
    /// Whether it was chosen as replica identity.
    is_chosen: bool,
    /// Whether it is checked at each row, and not at the end of the transaction.
    is_immediate: bool,
    is_valid: bool,
    /// Whether it holds all rows.
    is_whole: bool,
    /// Whether it keeps apart what its own operators and collations call equal, and not by an exclusion's.
    keeps_equal_apart: bool,
}

/// What keeps the rows of a table apart by a key. Rows are read in its order: by another one, two of them may be equal.
#[derive(Clone, Debug)]
pub(super) enum Apart<'t> {
    /// An index of the whole table, over columns of the key.
    Index(&'t Index),
    /// One in each partition, over columns of the key; and the key says in which partition a row lies.
    Partitions(Vec<&'t Index>),
}

/// Which columns of an old row the log carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held<'t> {
    /// None: PostgreSQL refuses updates and deletes of a published table.
    Nothing,
    Columns(Vec<&'t str>),
    All,
}

impl Held<'_> {
    fn holds(&self, column: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Columns(columns) => columns.contains(&column),
            Self::All => true,
        }
    }
}

impl Index {
    /// What PostgreSQL asks of an index before it takes it for a replica identity (`RelationGetIndexList`).
    const fn identifies(&self) -> bool {
        self.is_immediate && self.is_valid && self.is_whole
    }

    /// What the log carries of old rows where it is the replica identity.
    fn held(&self) -> Held<'_> {
        Held::Columns(self.key.iter().flatten().map(|column| &**column).collect())
    }

    /// Whether two committed rows that are equal in these columns cannot be, not even within a transaction.
    fn keeps_apart(&self, key: &[Arc<str>]) -> bool {
        self.identifies()
            && self.keeps_equal_apart
            && self.key.iter().all(|column| column.as_ref().is_some_and(|column| key.contains(column)))
    }
}

impl Relation {
    pub(super) fn sql_name(&self) -> String {
        table(&self.schema, &self.name)
    }

    fn is_filled(&self, column: &str) -> bool {
        self.columns.iter().any(|known| *known.name == *column && known.is_filled)
    }

    /// The index by which its rows are kept apart in these columns, the primary key before others.
    fn index_apart_by(&self, key: &[Arc<str>]) -> Option<&Index> {
        self.indexes.iter().find(|index| index.keeps_apart(key))
    }

    fn primary_key(&self) -> Option<&Index> {
        self.indexes.iter().find(|index| index.is_primary)
    }

    fn identity_index(&self) -> Option<&Index> {
        let index = match self.identity {
            Identity::PrimaryKey => self.primary_key(),
            Identity::Index => self.indexes.iter().find(|index| index.is_chosen),
            Identity::Nothing | Identity::Full => None,
        };
        index.filter(|index| index.identifies())
    }

    /// Which columns of its old rows the log carries.
    pub(super) fn held(&self) -> Held<'_> {
        match (self.identity, self.identity_index()) {
            (Identity::Full, _) => Held::All,
            (_, Some(index)) => index.held(),
            (_, None) => Held::Nothing,
        }
    }
}

impl Table {
    /// Where its rows lie: its partitions, or itself.
    pub(super) fn leaves(&self) -> &[Relation] {
        if self.is_partitioned() { &self.partitions } else { std::slice::from_ref(&self.root) }
    }

    pub(super) fn is_partitioned(&self) -> bool {
        !self.root.partitioned_by.is_empty()
    }

    /// Itself and all its partitions.
    pub(super) fn relations(&self) -> impl Iterator<Item = &Relation> {
        std::iter::once(&self.root).chain(&self.branches).chain(&self.partitions)
    }

    /// Whether PostgreSQL refuses updates and deletes of some of its rows where they are published.
    pub(super) fn lacks_identity(&self) -> bool {
        self.leaves().iter().any(|leaf| leaf.held() == Held::Nothing)
    }

    /// The primary key's columns in table order.
    pub(super) fn primary_key(&self) -> Vec<Arc<str>> {
        let Some(index) = self.root.primary_key() else { return Vec::new() };
        let is_key = |column: &&Column| index.key.iter().flatten().any(|key| *key == column.name);
        self.root.columns.iter().filter(is_key).map(|column| Arc::clone(&column.name)).collect()
    }

    /// Whether an update may leave out values beside the key that it did not change.
    pub(super) fn leaves_values_out(&self) -> bool {
        let key = self.primary_key();
        let leaves_out = |column: &Column| column.may_be_left_out && !key.contains(&column.name);
        self.leaves().iter().any(|leaf| leaf.held() != Held::All && leaf.columns.iter().any(leaves_out))
    }

    /// Columns that our role must read to send the rows that the publication shows, and may not.
    pub(super) fn unreadable(&self, feed: &Feed, publication: &Publication) -> Vec<&Arc<str>> {
        if self.rights.readable {
            return Vec::new();
        }
        let is_shown = |column: &Column| publication.shows(feed, &column.name, column.generated == Generated::No);
        self.root.columns.iter().filter(|column| is_shown(column) && !column.is_readable).map(|column| &column.name).collect()
    }

    /// The columns that decide in which partition a row lies; `None` stands for an expression.
    fn spread_by(&self) -> impl Iterator<Item = &Option<Arc<str>>> {
        self.relations().flat_map(|relation| &relation.partitioned_by)
    }

    /// What keeps rows of different keys apart, if anything does.
    pub(super) fn apart_by(&self, key: &[Arc<str>]) -> Option<Apart<'_>> {
        let index = |relation| Relation::index_apart_by(relation, key);
        if let Some(index) = index(&self.root) {
            return Some(Apart::Index(index));
        }
        let spread_by_key = self.spread_by().all(|column| column.as_ref().is_some_and(|column| key.contains(column)));
        let indexes = (self.is_partitioned() && spread_by_key).then(|| self.partitions.iter().map(index).collect());
        indexes.flatten().map(Apart::Partitions)
    }

    /// The numbers of the relations that spread its rows.
    pub(super) fn spreading(&self) -> impl Iterator<Item = u32> {
        self.relations().filter(|relation| !relation.partitioned_by.is_empty()).map(|relation| relation.number)
    }
}

/// Ordinary and partitioned tables of all schemas but the system's, `root`, each with itself and its partitions, `relation`. They are found without a lock,
/// which `pg_partition_tree` would take.
const TREE: &str = "\
WITH RECURSIVE tree AS (\
 SELECT c.oid AS root, c.oid AS relation FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' \
 AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast'){filter} \
 UNION ALL \
 SELECT tree.root, h.inhrelid FROM tree JOIN pg_catalog.pg_inherits h ON h.inhparent = tree.relation \
 JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid AND c.relispartition) ";

/// Each of them, followed by its partitions that the log shows.
const TABLES: &str = "\
SELECT tree.root = tree.relation, n.nspname, c.relname, c.relkind, c.relreplident, \
(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.attnum, a.attname, a.attnotnull AND NOT EXISTS (\
   SELECT FROM pg_catalog.pg_constraint k \
   WHERE k.conrelid = c.oid AND k.contype = 'n' AND NOT k.convalidated AND k.conkey = ARRAY[a.attnum]), \
   a.attgenerated, a.attstorage <> 'p' AND c.reltoastrelid <> 0, \
   pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')) ORDER BY a.attnum) \
 FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), \
(SELECT pg_catalog.json_agg(pg_catalog.json_build_array(x.oid::bigint, x.relname, i.indkey::text, i.indnkeyatts, i.indisprimary, i.indisreplident, \
   i.indimmediate, i.indisvalid, i.indpred IS NULL, NOT i.indisexclusion) \
  ORDER BY i.indisprimary DESC, x.relname) \
 FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND i.indisunique AND i.indislive), \
(SELECT p.partattrs::text FROM pg_catalog.pg_partitioned_table p WHERE p.partrelid = c.oid), \
pg_catalog.pg_has_role(c.relowner, 'USAGE'), pg_catalog.has_schema_privilege(n.oid, 'USAGE'), \
pg_catalog.has_table_privilege(c.oid, 'SELECT'), pg_catalog.row_security_active(c.oid), c.oid \
FROM tree JOIN pg_catalog.pg_class r ON r.oid = tree.root JOIN pg_catalog.pg_namespace s ON s.oid = r.relnamespace \
JOIN pg_catalog.pg_class c ON c.oid = tree.relation AND (c.relkind = 'p' OR c.relkind = 'r' AND c.relpersistence = 'p') \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
ORDER BY s.nspname, r.relname, tree.root <> tree.relation, n.nspname, c.relname";

/// All tables that could be published, in the order of their names.
pub(super) async fn all(session: &mut Session) -> Result<Vec<Table>, Error> {
    read("", session).await
}

/// The tables of the feeds that are there.
pub(super) async fn of(feeds: &Feeds, session: &mut Session) -> Result<Vec<Table>, Error> {
    if feeds.is_empty() {
        return Ok(Vec::new());
    }
    read(&filter(feeds), session).await
}

fn filter(feeds: &Feeds) -> String {
    let names: Vec<_> = feeds.iter().map(|feed| format!("({}, {})", literal(&feed.schema), literal(&feed.table))).collect();
    format!(" AND (n.nspname, c.relname) IN ({})", names.join(", "))
}

/// What a question begins with that is about the tables of the feeds, of which there is one, and their partitions: `tree`, with columns `root` and `relation`.
pub(super) fn tree(feeds: &Feeds) -> String {
    TREE.replace("{filter}", &filter(feeds))
}

/// The feeds by the numbers of their tables, which outlive their names.
pub(super) async fn numbers(feeds: &Feeds, session: &mut Session) -> Result<HashMap<u32, FeedId>, Error> {
    let number = |table: &Table| Some((table.root.number, feeds.of_table(&table.root.schema, &table.root.name)?.id));
    Ok(of(feeds, session).await?.iter().filter_map(number).collect())
}

/// The name of the table with this number now.
pub(super) async fn name_of(number: u32, session: &mut Session) -> Result<Option<(String, String)>, Error> {
    let sql = format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {number}"
    );
    Ok(session.query(&sql).await?.first().map(|row| (row.text(0).to_owned(), row.text(1).to_owned())))
}

async fn read(filter: &str, session: &mut Session) -> Result<Vec<Table>, Error> {
    let mut tables: Vec<Table> = Vec::new();
    for row in session.query(&format!("{}{TABLES}", TREE.replace("{filter}", filter))).await? {
        let relation = Relation::read(&row)?;
        if row.is_true(0) {
            let rights = Rights { owned: row.is_true(8), usable: row.is_true(9), readable: row.is_true(10), hidden: row.is_true(11) };
            tables.push(Table { root: relation, branches: Vec::new(), partitions: Vec::new(), rights });
        } else if let Some(table) = tables.last_mut() {
            if relation.partitioned_by.is_empty() { &mut table.partitions } else { &mut table.branches }.push(relation);
        }
    }
    Ok(tables)
}

/// Number, name, whether it is filled, how it is generated, whether it may be left out, whether it may be read.
type ColumnFacts = (i16, Arc<str>, bool, String, bool, bool);
/// Number, name, columns, how many of them are its key, then as the fields of [`Index`].
type IndexFacts = (u32, String, String, usize, bool, bool, bool, bool, bool, bool);

impl Relation {
    fn read(row: &Answer) -> Result<Self, Error> {
        const MALFORMED: Error = Error::Protocol { what: "a table's description by the catalogue" };
        let columns: Vec<ColumnFacts> = row.get(5).map_or(Ok(Vec::new()), serde_json::from_str).map_err(|_| MALFORMED)?;
        let indexes: Vec<IndexFacts> = row.get(6).map_or(Ok(Vec::new()), serde_json::from_str).map_err(|_| MALFORMED)?;
        // A number of 0 stands for an expression, and one below for a column of the system's.
        let named = |numbers: &str| -> Vec<Option<Arc<str>>> {
            let of_number = |number: &str| columns.iter().find(|column| number.parse() == Ok(column.0)).map(|column| Arc::clone(&column.1));
            numbers.split_ascii_whitespace().map(of_number).collect()
        };
        let index =
            |(number, name, numbers, count, is_primary, is_chosen, is_immediate, is_valid, is_whole, keeps_equal_apart): IndexFacts| {
                let mut key = named(&numbers);
                key.truncate(count);
                Index { number, name, key, is_primary, is_chosen, is_immediate, is_valid, is_whole, keeps_equal_apart }
            };
        Ok(Self {
            number: row.text(12).parse().map_err(|_| MALFORMED)?,
            schema: row.text(1).into(),
            name: row.text(2).into(),
            identity: match row.text(4) {
                "d" => Identity::PrimaryKey,
                "f" => Identity::Full,
                "i" => Identity::Index,
                _ => Identity::Nothing,
            },
            indexes: indexes.into_iter().map(index).collect(),
            partitioned_by: if row.text(3) == "p" { named(row.text(7)) } else { Vec::new() },
            columns: columns
                .iter()
                .map(|(_, name, is_filled, generated, may_be_left_out, is_readable)| Column {
                    name: Arc::clone(name),
                    is_filled: *is_filled,
                    generated: match generated.as_str() {
                        "" => Generated::No,
                        "v" => Generated::Virtual,
                        _ => Generated::Stored,
                    },
                    may_be_left_out: *may_be_left_out,
                    is_readable: *is_readable,
                })
                .collect(),
        })
    }
}
