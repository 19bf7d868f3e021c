//! The publication as the catalogue describes it: settings and member tables.

use super::membership::{Gap, Membership};
use super::names::{Tables, name_of};
use crate::event::Operation;
use crate::feed::Feed;
use crate::source::postgres::error::Error;
use crate::source::postgres::options::Options;
use crate::source::postgres::quote::literal;
use crate::source::postgres::session::{Answer, Session, list};
use crate::source::postgres::version::Version;
use std::collections::BTreeMap;

/// The beginning of the comment that marks a publication created by feedline. The tables that feedline put in follow.
pub(super) const OURS: &str = "made by feedline";

/// The comment of a publication that feedline created for these tables.
pub(super) fn comment(tables: &Tables) -> String {
    format!("{OURS} for {}", serde_json::to_string(tables).expect("a list of names"))
}

/// The publication as it is now.
pub(crate) struct Definition {
    oid: u32,
    /// The transaction that wrote its settings.
    version: u32,
    /// The tables that feedline put in; `None` if feedline did not create it.
    made_for: Option<Tables>,
    /// Operations that it does not publish.
    pub(super) unpublished: Vec<Operation>,
    /// Whether changes of partitions are published under the name of the partitioned table.
    pub(super) via_root: bool,
    pub(super) members: BTreeMap<(String, String), Member>,
    /// Partitioned tables, published directly, by schema or as part of all tables, whose partitions are published under their own names.
    pub(super) split: Tables,
}

/// A table of the publication.
pub(super) struct Member {
    /// Its oid.
    table: u32,
    /// The oids of its own entry and of its schema's entry; 0 if there is none.
    entries: (u32, u32),
    /// The attribute numbers of its column list; `None` without a list.
    list: Option<String>,
    pub(super) filter: Option<String>,
    /// The columns that are published; `None` if the server is too old for column lists.
    pub(super) columns: Option<Vec<String>>,
    /// The columns that are not published.
    pub(super) left_out: Vec<String>,
    /// For a member without an entry of its own: the transaction that moved it into its schema, and the file that holds its rows.
    schema_and_file: (u32, u32),
}

/// In the order of the columns of [`SETTINGS`].
const OPERATIONS: [Operation; 4] = [Operation::Insert, Operation::Update, Operation::Delete, Operation::Truncate];

const SETTINGS: &str = "\
SELECT oid, xmin, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, pg_catalog.obj_description(oid, 'pg_publication') \
FROM pg_catalog.pg_publication WHERE pubname = ";

/// The tables of the publication.
const MEMBERS: &str = "\
SELECT t.schemaname, t.tablename, COALESCE(r.oid, 0), COALESCE({schema_entry}, 0), {list}, {filter}, {columns}, \
CASE WHEN r.oid IS NULL THEN (SELECT d.xmin FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
  AND d.objid = c.oid AND d.objsubid = 0 AND d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass LIMIT 1) END, \
CASE WHEN r.oid IS NULL THEN c.relfilenode END, \
(SELECT pg_catalog.json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 \
  AND NOT a.attisdropped AND a.attgenerated = '' AND NOT {listed}), c.oid \
FROM pg_catalog.pg_publication_tables t JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname \
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename \
LEFT JOIN pg_catalog.pg_publication_rel r ON r.prrelid = c.oid AND r.prpubid = {publication} {schema_join} \
WHERE t.pubname = {name}";

/// Partitioned tables that are not members themselves, although they were added: their partitions are members instead.
const SPLIT: &str = "\
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
JOIN pg_catalog.pg_publication p ON p.oid = {publication} AND NOT p.pubviaroot \
WHERE c.relkind = 'p' AND NOT c.relispartition AND (p.puballtables \
OR EXISTS (SELECT 1 FROM pg_catalog.pg_publication_rel r WHERE r.prrelid = c.oid AND r.prpubid = p.oid) OR {by_schema})";

fn members(version: Version, publication: u32, name: &str) -> String {
    let with_lists = [
        ("{schema_entry}", "s.oid"),
        ("{list}", "r.prattrs::text"),
        ("{filter}", "t.rowfilter"),
        ("{columns}", "pg_catalog.array_to_json(t.attnames)"),
        ("{listed}", "a.attname = ANY (t.attnames)"),
        ("{schema_join}", "LEFT JOIN pg_catalog.pg_publication_namespace s ON s.pnnspid = n.oid AND s.pnpubid = {publication}"),
    ];
    let without = [
        ("{schema_entry}", "NULL::pg_catalog.oid"),
        ("{list}", "NULL"),
        ("{filter}", "NULL"),
        ("{columns}", "NULL"),
        ("{listed}", "true"),
        ("{schema_join}", ""),
    ];
    let parts = if version.has_publication_lists() { with_lists } else { without };
    let sql = parts.into_iter().fold(MEMBERS.to_owned(), |sql, (part, text)| sql.replace(part, text));
    sql.replace("{publication}", &publication.to_string()).replace("{name}", &literal(name))
}

fn split(version: Version, publication: u32) -> String {
    let by_schema = "EXISTS (SELECT 1 FROM pg_catalog.pg_publication_namespace s WHERE s.pnnspid = n.oid AND s.pnpubid = p.oid)";
    let by_schema = if version.has_publication_lists() { by_schema } else { "false" };
    SPLIT.replace("{by_schema}", by_schema).replace("{publication}", &publication.to_string())
}

fn number(row: &Answer, index: usize) -> u32 {
    row.text(index).parse().unwrap_or(0)
}

fn name(row: &Answer) -> (String, String) {
    (row.text(0).to_owned(), row.text(1).to_owned())
}

impl Definition {
    /// Reads the publication; `None` if it does not exist.
    pub(crate) async fn read(options: &Options, session: &mut Session) -> Result<Option<Self>, Error> {
        let settings = session.query(&format!("{SETTINGS}{}", literal(&options.publication))).await?;
        let Some(row) = settings.first() else { return Ok(None) };
        let oid = number(row, 0);
        let members = session.query(&members(session.version(), oid, &options.publication)).await?;
        let split = session.query(&split(session.version(), oid)).await?;
        let made_for = row.get(7).and_then(|comment| comment.strip_prefix(OURS));
        Ok(Some(Self {
            oid,
            version: number(row, 1),
            made_for: made_for
                .map(|tables| tables.strip_prefix(" for ").and_then(|tables| serde_json::from_str(tables).ok()).unwrap_or_default()),
            unpublished: OPERATIONS
                .into_iter()
                .zip(2..)
                .filter(|(_, index)| !row.is_true(*index))
                .map(|(operation, _)| operation)
                .collect(),
            via_root: row.is_true(6),
            members: members.iter().map(|row| Ok((name(row), Member::read(row)?))).collect::<Result<_, Error>>()?,
            split: split.iter().map(name).collect(),
        }))
    }

    /// Whether the publication holds the table, or its partitions in its stead.
    pub(super) fn holds(&self, table: &(String, String)) -> bool {
        self.members.contains_key(table) || self.split.contains(table)
    }

    /// The tables that feedline put in; `None` if feedline did not create the publication.
    pub(super) const fn made_for(&self) -> Option<&Tables> {
        self.made_for.as_ref()
    }

    /// Tables that feedline put in, that nobody has altered since, and that are no longer wanted.
    pub(super) fn unneeded(&self, wanted: &Tables) -> Tables {
        let is_unaltered = |table: &&(String, String)| {
            self.members.get(*table).is_some_and(|member| member.entries.0 != 0 && member.list.is_none() && member.filter.is_none())
        };
        self.made_for.iter().flat_map(|tables| tables.difference(wanted)).filter(is_unaltered).cloned().collect()
    }

    /// The membership of one table.
    fn membership(&self, member: &Member) -> Membership {
        Membership {
            publication: self.oid,
            version: self.version,
            table: member.table,
            entries: member.entries,
            schema_and_file: member.schema_and_file,
            list: member.list.clone(),
            filter: member.filter.clone(),
        }
    }

    /// The membership of the feed's table; `None` if it is not published.
    pub(crate) fn membership_of(&self, feed: &Feed) -> Option<Membership> {
        self.members.get(&name_of(feed)).map(|member| self.membership(member))
    }

    /// Why changes of the table are missing in the log, given its membership when it was last seen; `None` if none are missing.
    pub(super) fn gap(&self, table: &(String, String), known: Option<&Membership>) -> Option<Gap> {
        match self.members.get(table) {
            None => Some(Gap::Left),
            Some(member) => known?.gap(&self.membership(member)),
        }
    }
}

impl Member {
    fn read(row: &Answer) -> Result<Self, Error> {
        const MALFORMED: Error = Error::Protocol { what: "a table's description in the publication" };
        Ok(Self {
            table: number(row, 10),
            entries: (number(row, 2), number(row, 3)),
            list: row.get(4).map(str::to_owned),
            filter: row.get(5).map(str::to_owned),
            columns: row.get(6).map(serde_json::from_str).transpose().map_err(|_| MALFORMED)?,
            schema_and_file: (number(row, 7), number(row, 8)),
            left_out: list(row, 9).ok_or(MALFORMED)?,
        })
    }

    /// Whether it has a column list or a row filter.
    pub(super) const fn is_partial(&self) -> bool {
        self.list.is_some() || self.filter.is_some()
    }
}
