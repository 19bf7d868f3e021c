//! Describes tables from the catalogue: columns, unique indexes, partitions, privileges, and which columns of an old row the log contains.
//!
//! One query reads all of it. A partitioned table has no rows of its own. The partition that holds a row decides which columns of
//! the old row are in the log, and PostgreSQL checks that partition's replica identity before it allows an update.

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
    /// Partitions that are partitioned tables themselves.
    branches: Vec<Relation>,
    /// Partitions that hold rows.
    partitions: Vec<Relation>,
    pub(super) rights: Rights,
}

/// What our role may do with a table.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of the catalogue")]
pub(super) struct Rights {
    pub(super) owned: bool,
    /// Whether the role has `USAGE` on the table's schema.
    pub(super) usable: bool,
    pub(super) readable: bool,
    /// Whether a row security policy may hide rows from the role.
    pub(super) hidden: bool,
}

/// A table, or one partition.
#[derive(Clone, Debug)]
pub(super) struct Relation {
    oid: u32,
    pub(super) schema: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) columns: Vec<Column>,
    identity: Identity,
    indexes: Vec<Index>,
    /// The columns of its partition key; `None` stands for an expression.
    partitioned_by: Vec<Option<Arc<str>>>,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: Arc<str>,
    /// Whether it is `NOT NULL`, by a valid constraint.
    is_not_null: bool,
    generated: Generated,
    /// Whether its values may be stored out of line (TOAST). The log leaves such values out of updates that do not change them.
    may_be_toasted: bool,
    /// Whether our role may read it, by a grant on the table or on this column.
    is_readable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generated {
    No,
    Stored,
    /// Computed when a row is read.
    Virtual,
}

/// The `REPLICA IDENTITY` setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    PrimaryKey,
    Nothing,
    Full,
    Index,
}

/// A unique index.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of the catalogue")]
pub(super) struct Index {
    pub(super) oid: u32,
    name: String,
    /// Its key columns, without `INCLUDE` columns; `None` stands for an expression.
    key: Vec<Option<Arc<str>>>,
    is_primary: bool,
    /// Whether the table's `REPLICA IDENTITY USING INDEX` names it.
    is_replica_identity: bool,
    /// Whether it is checked row by row, not at the end of the transaction (`DEFERRABLE`).
    is_immediate: bool,
    is_valid: bool,
    /// Whether it contains all rows (it is not partial).
    is_total: bool,
    /// Whether it allows no two rows that are equal. False for the index of an exclusion constraint, which uses other operators.
    forbids_equal: bool,
}

/// What makes the rows of a table unique by a key. Rows must be read in the order of these indexes: under another order, two different
/// rows may compare as equal.
#[derive(Clone, Debug)]
pub(super) enum Uniqueness<'t> {
    /// An index of the whole table, over columns of the key.
    Index(&'t Index),
    /// An index in each partition, over columns of the key. The key also decides to which partition a row belongs.
    Partitions(Vec<&'t Index>),
}

/// Which columns of an old row the log contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OldRowColumns<'t> {
    /// None. PostgreSQL refuses updates and deletes of a published table then.
    Nothing,
    Columns(Vec<&'t str>),
    All,
}

impl OldRowColumns<'_> {
    fn contain(&self, column: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Columns(columns) => columns.contains(&column),
            Self::All => true,
        }
    }
}

impl Index {
    /// Whether PostgreSQL accepts it as a replica identity (`RelationGetIndexList`).
    const fn can_be_identity(&self) -> bool {
        self.is_immediate && self.is_valid && self.is_total
    }

    /// The columns of old rows in the log if this index is the replica identity.
    fn old_row_columns(&self) -> OldRowColumns<'_> {
        OldRowColumns::Columns(self.key.iter().flatten().map(|column| &**column).collect())
    }

    /// Whether it guarantees that two rows are never equal in these columns, not even within a transaction.
    fn makes_unique(&self, key: &[Arc<str>]) -> bool {
        self.can_be_identity()
            && self.forbids_equal
            && self.key.iter().all(|column| column.as_ref().is_some_and(|column| key.contains(column)))
    }
}

impl Relation {
    pub(super) fn sql_name(&self) -> String {
        table(&self.schema, &self.name)
    }

    fn is_not_null(&self, column: &str) -> bool {
        self.columns.iter().any(|known| *known.name == *column && known.is_not_null)
    }

    /// The index that makes its rows unique by these columns: the primary key if possible.
    fn unique_index(&self, key: &[Arc<str>]) -> Option<&Index> {
        self.indexes.iter().find(|index| index.makes_unique(key))
    }

    fn primary_key(&self) -> Option<&Index> {
        self.indexes.iter().find(|index| index.is_primary)
    }

    fn identity_index(&self) -> Option<&Index> {
        let index = match self.identity {
            Identity::PrimaryKey => self.primary_key(),
            Identity::Index => self.indexes.iter().find(|index| index.is_replica_identity),
            Identity::Nothing | Identity::Full => None,
        };
        index.filter(|index| index.can_be_identity())
    }

    /// Which columns of its old rows the log contains.
    pub(super) fn old_row_columns(&self) -> OldRowColumns<'_> {
        match (self.identity, self.identity_index()) {
            (Identity::Full, _) => OldRowColumns::All,
            (_, Some(index)) => index.old_row_columns(),
            (_, None) => OldRowColumns::Nothing,
        }
    }
}

impl Table {
    /// The relations that hold its rows: its partitions, or itself.
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

    /// Whether PostgreSQL would refuse updates and deletes of some of its rows, if they are published.
    pub(super) fn lacks_identity(&self) -> bool {
        self.leaves().iter().any(|leaf| leaf.old_row_columns() == OldRowColumns::Nothing)
    }

    /// The primary key's columns in table order.
    pub(super) fn primary_key(&self) -> Vec<Arc<str>> {
        let Some(index) = self.root.primary_key() else { return Vec::new() };
        let is_key = |column: &&Column| index.key.iter().flatten().any(|key| *key == column.name);
        self.root.columns.iter().filter(is_key).map(|column| Arc::clone(&column.name)).collect()
    }

    /// Whether updates in the log may lack values of columns outside the key that they did not change.
    pub(super) fn leaves_values_out(&self) -> bool {
        let key = self.primary_key();
        let leaves_out = |column: &Column| column.may_be_toasted && !key.contains(&column.name);
        self.leaves().iter().any(|leaf| leaf.old_row_columns() != OldRowColumns::All && leaf.columns.iter().any(leaves_out))
    }

    /// Columns that our role needs to read for the prefeed, and may not read.
    pub(super) fn unreadable(&self, feed: &Feed, publication: &Publication) -> Vec<&Arc<str>> {
        if self.rights.readable {
            return Vec::new();
        }
        let is_used = |column: &Column| publication.uses(feed, &column.name, column.generated == Generated::No);
        self.root.columns.iter().filter(|column| is_used(column) && !column.is_readable).map(|column| &column.name).collect()
    }

    /// The columns of all its partition keys, which decide to which partition a row belongs; `None` stands for an expression.
    fn partition_columns(&self) -> impl Iterator<Item = &Option<Arc<str>>> {
        self.relations().flat_map(|relation| &relation.partitioned_by)
    }

    /// What makes its rows unique by this key, if anything does.
    pub(super) fn uniqueness(&self, key: &[Arc<str>]) -> Option<Uniqueness<'_>> {
        let index = |relation| Relation::unique_index(relation, key);
        if let Some(index) = index(&self.root) {
            return Some(Uniqueness::Index(index));
        }
        let key_decides = self.partition_columns().all(|column| column.as_ref().is_some_and(|column| key.contains(column)));
        let indexes = (self.is_partitioned() && key_decides).then(|| self.partitions.iter().map(index).collect());
        indexes.flatten().map(Uniqueness::Partitions)
    }

    /// The oids of the partitioned tables among its relations.
    pub(super) fn partitioned_oids(&self) -> impl Iterator<Item = u32> {
        self.relations().filter(|relation| !relation.partitioned_by.is_empty()).map(|relation| relation.oid)
    }
}

/// Ordinary and partitioned tables of all schemas except the system's (`root`), each with itself and all its partitions (`relation`).
/// Partitions are found without locks; `pg_partition_tree` would take them.
const TREE: &str = "\
WITH RECURSIVE tree AS (\
 SELECT c.oid AS root, c.oid AS relation FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' \
 AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast'){filter} \
 UNION ALL \
 SELECT tree.root, h.inhrelid FROM tree JOIN pg_catalog.pg_inherits h ON h.inhparent = tree.relation \
 JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid AND c.relispartition) ";

/// Each table of [`TREE`], followed by its partitions except foreign and unlogged ones.
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

/// All tables that could be published, ordered by name.
pub(super) async fn all(session: &mut Session) -> Result<Vec<Table>, Error> {
    read("", session).await
}

/// The feeds' tables that exist.
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

/// The beginning of a query about the feeds' tables and their partitions: a CTE `tree` with columns `root` and `relation`. There must be a feed.
pub(super) fn tree(feeds: &Feeds) -> String {
    TREE.replace("{filter}", &filter(feeds))
}

/// The feeds by the oids of their tables. Unlike its name, the oid of a table does not change.
pub(super) async fn numbers(feeds: &Feeds, session: &mut Session) -> Result<HashMap<u32, FeedId>, Error> {
    let by_oid = |table: &Table| Some((table.root.oid, feeds.of_table(&table.root.schema, &table.root.name)?.id));
    Ok(of(feeds, session).await?.iter().filter_map(by_oid).collect())
}

/// The current schema and name of the table with this oid.
pub(super) async fn name_of(oid: u32, session: &mut Session) -> Result<Option<(String, String)>, Error> {
    let sql = format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {oid}"
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

/// Attribute number, name, whether it is not null, how it is generated, whether it may be toasted, whether it is readable.
type ColumnFacts = (i16, Arc<str>, bool, String, bool, bool);
/// Oid, name, attribute numbers, how many of them are key columns, then the flags in the order of [`Index`].
type IndexFacts = (u32, String, String, usize, bool, bool, bool, bool, bool, bool);

impl Relation {
    fn read(row: &Answer) -> Result<Self, Error> {
        const MALFORMED: Error = Error::Protocol { what: "a table's description in the catalogue" };
        let columns: Vec<ColumnFacts> = row.get(5).map_or(Ok(Vec::new()), serde_json::from_str).map_err(|_| MALFORMED)?;
        let indexes: Vec<IndexFacts> = row.get(6).map_or(Ok(Vec::new()), serde_json::from_str).map_err(|_| MALFORMED)?;
        // Number 0 stands for an expression; a negative number is a system column.
        let named = |numbers: &str| -> Vec<Option<Arc<str>>> {
            let of_number = |number: &str| columns.iter().find(|column| number.parse() == Ok(column.0)).map(|column| Arc::clone(&column.1));
            numbers.split_ascii_whitespace().map(of_number).collect()
        };
        let index =
            |(oid, name, numbers, count, is_primary, is_replica_identity, is_immediate, is_valid, is_total, forbids_equal): IndexFacts| {
                let mut key = named(&numbers);
                key.truncate(count);
                Index { oid, name, key, is_primary, is_replica_identity, is_immediate, is_valid, is_total, forbids_equal }
            };
        Ok(Self {
            oid: row.text(12).parse().map_err(|_| MALFORMED)?,
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
                .map(|(_, name, is_not_null, generated, may_be_toasted, is_readable)| Column {
                    name: Arc::clone(name),
                    is_not_null: *is_not_null,
                    generated: match generated.as_str() {
                        "" => Generated::No,
                        "v" => Generated::Virtual,
                        _ => Generated::Stored,
                    },
                    may_be_toasted: *may_be_toasted,
                    is_readable: *is_readable,
                })
                .collect(),
        })
    }
}
