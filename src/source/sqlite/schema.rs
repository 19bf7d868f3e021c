//! Tables as SQLite describes them: columns, keys, and every other set of columns that REPLACE may clash on.

use crate::event::{Column, FeedId, Relation};
use crate::feed::Feed;
use crate::source::sqlite::index::{self, IndexSql};
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::{Error, error};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// The schema of everything that is captured: attached files are other databases, temporary tables are nobody else's.
pub(super) const SCHEMA: &str = "main";

/// What a log row of one version of a table holds, kept beside the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// The table's name at that time.
    pub(super) table: Arc<str>,
    /// Its columns in table order.
    pub(super) columns: Vec<LayoutColumn>,
}

/// One column of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayoutColumn {
    pub(super) name: Arc<str>,
    /// Whether the column's affinity is BLOB: bytes are what a reader expects there.
    pub(super) blob: bool,
    /// Whether it is part of the key.
    pub(super) key: bool,
}

impl Layout {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_ref())
    }

    pub(super) fn key_names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter(|column| column.key).map(|column| column.name.as_ref())
    }

    pub(super) fn key_len(&self) -> usize {
        self.key_names().count()
    }

    pub(super) fn relation(&self, feed: FeedId) -> Relation {
        let columns = self.columns.iter().map(|column| Column { name: column.name.clone(), key: column.key }).collect();
        Relation { feed, schema: SCHEMA.into(), table: self.table.clone(), columns }
    }
}

/// A table as it is now.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) layout: Layout,
    /// Every column, computed ones too: what an index's expression may speak of.
    pub(super) columns: Vec<Named>,
    /// What decides how a stored row of it reads.
    pub(super) definition: Vec<Defined>,
    /// Whether the key is the row's number, which SQLite gives where none is named.
    pub(super) is_numbered: bool,
    /// Whether a row may go because another one does.
    pub(super) cascades: bool,
    /// The key, in the order of its index.
    pub(super) key: Unique,
    /// Every other set of columns in which no two rows agree.
    pub(super) others: Vec<Unique>,
}

impl Shape {
    /// The unique sets, each as a text.
    pub(super) fn unique_sets(&self) -> BTreeSet<String> {
        let term = |term: &Term| match &term.value {
            Value::Column(name) => format!("{} {}", quoted(name), term.collation),
            Value::Expression(sql) => format!("({sql}) {}", term.collation),
        };
        let set = |unique: &Unique| {
            let terms: Vec<_> = unique.terms.iter().map(term).collect();
            format!("{} {}", terms.join(", "), unique.predicate.as_deref().unwrap_or_default())
        };
        std::iter::once(&self.key).chain(&self.others).map(set).collect()
    }
}

/// A column as SQL knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: Arc<str>,
    pub(super) affinity: Affinity,
    /// Computed from the others.
    pub(super) computed: bool,
    /// What `OR REPLACE` puts in the place of NULL, as SQL, and how the column is compared.
    pub(super) instead: Option<(String, String)>,
}

/// What a column makes of the values that are compared with it (`datatype3.html`, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Affinity {
    Blob,
    Text,
    Numeric,
}

/// A set of terms in which no two rows of a table agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unique {
    pub(super) terms: Vec<Term>,
    /// Only rows for which this holds count.
    pub(super) predicate: Option<String>,
}

/// One term of a unique set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) value: Value,
    /// How two values are compared.
    pub(super) collation: String,
    /// Whether that is how the column itself is compared, without a word.
    pub(super) by_default: bool,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Column(Arc<str>),
    /// An expression over the table's columns, as its index writes it.
    Expression(String),
}

impl Unique {
    fn of_columns(names: impl IntoIterator<Item = Arc<str>>) -> Self {
        let terms =
            names.into_iter().map(|name| Term { value: Value::Column(name), collation: "BINARY".into(), by_default: true }).collect();
        Self { terms, predicate: None }
    }

    /// Whether it consists of exactly these columns, in any order, and holds for every row.
    fn is(&self, key: &[Arc<str>]) -> bool {
        self.predicate.is_none()
            && self.terms.len() == key.len()
            && key.iter().all(|name| self.terms.iter().any(|term| matches!(&term.value, Value::Column(column) if column == name)))
    }

    /// Whether expressions over unnamed columns decide, so that any update may clash.
    pub(super) fn is_computed(&self) -> bool {
        self.predicate.is_some() || self.terms.iter().any(|term| matches!(term.value, Value::Expression(_)))
    }
}

struct RawColumn {
    name: Arc<str>,
    declared: String,
    affinity: Affinity,
    default: Option<String>,
    not_null: bool,
    primary: u32,
    hidden: i64,
}

impl RawColumn {
    /// Read by our trigger, a computed column would run the application's expression, which may fail, at each write. Hidden: 1 is
    /// a virtual table's hidden column, 2 a generated column that is computed on reading, 3 one that is stored.
    const fn is_left_out(&self) -> bool {
        matches!(self.hidden, 1 | 2)
    }

    /// Whether bytes are what a reader expects there. In a key each value has a spelling of its own, so there only a column
    /// that is declared for blobs counts, and not one without a type, where text is as likely.
    fn is_for_blobs(&self, is_key: bool) -> bool {
        self.affinity == Affinity::Blob && (!is_key || self.declared.to_ascii_uppercase().contains("BLOB"))
    }
}

/// What decides how a stored row reads, of one column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Defined {
    pub(super) name: Arc<str>,
    pub(super) declared: String,
    pub(super) default: Option<String>,
    pub(super) hidden: i64,
}

/// Names of the ordinary tables of the database, ours left out. One that is not UTF-8 cannot be configured, and is passed over.
pub(super) fn table_names(connection: &Connection) -> rusqlite::Result<Vec<Arc<str>>> {
    let mut statement = connection.prepare(
        r"SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
          AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT LIKE '\_feedline\_%' ESCAPE '\' ORDER BY name",
    )?;
    let names: Vec<Option<Arc<str>>> =
        statement.query_map([], |row| Ok(row.get_ref(0)?.as_str().ok().map(Arc::from)))?.collect::<rusqlite::Result<_>>()?;
    Ok(names.into_iter().flatten().collect())
}

/// A table of the catalogue: its columns and its primary key in table order.
pub(super) fn catalogued(connection: &Connection, name: &Arc<str>) -> rusqlite::Result<crate::feed::Table> {
    let columns = raw_columns(connection, name)?;
    Ok(crate::feed::Table {
        schema: SCHEMA.into(),
        name: name.clone(),
        primary_key: columns.iter().filter(|column| column.primary != 0).map(|column| column.name.clone()).collect(),
        columns: columns.into_iter().filter(|column| !column.is_left_out()).map(|column| column.name).collect(),
        leaves_values_out: false,
    })
}

fn raw_columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<RawColumn>> {
    let strict: bool = connection
        .query_row("SELECT strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1", [table], |row| row.get(0))
        .optional()?
        .unwrap_or(false);
    let mut statement = connection
        .prepare_cached("SELECT name, type, dflt_value, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid")?;
    let rows = statement.query_map([table], |row| {
        let declared = String::from_utf8_lossy(row.get_ref(1)?.as_bytes()?).into_owned();
        let default = row.get_ref(2)?.as_bytes_or_null()?.map(|text| String::from_utf8_lossy(text).into_owned());
        Ok(RawColumn {
            name: row.get::<_, String>(0)?.into(),
            affinity: affinity(&declared, strict),
            declared,
            default,
            not_null: row.get(3)?,
            primary: row.get(4)?,
            hidden: row.get(5)?,
        })
    })?;
    rows.collect()
}

/// The affinity of a column of this declared type (`datatype3.html`, 3.1).
fn affinity(declared: &str, strict: bool) -> Affinity {
    let declared = declared.to_ascii_uppercase();
    let holds = |part: &str| declared.contains(part);
    match () {
        () if strict && declared == "ANY" => Affinity::Blob,
        () if holds("INT") => Affinity::Numeric,
        () if holds("CHAR") || holds("CLOB") || holds("TEXT") => Affinity::Text,
        () if declared.is_empty() || holds("BLOB") => Affinity::Blob,
        () => Affinity::Numeric,
    }
}

/// The feed's table as it is now.
pub(super) fn describe(connection: &Connection, path: &Path, feed: &Feed) -> Result<Shape, Error> {
    let table = &feed.table;
    let failed = |source| error::Error::sqlite("describe a table", path, source);
    let columns = raw_columns(connection, table).map_err(failed)?;
    if columns.is_empty() {
        return Err(Error::TableGone { table: table.clone() });
    }
    let keyless = |what: String| Error::Keyless { table: table.clone(), what };
    if feed.key.is_empty() {
        return Err(keyless("it has no primary key".into()));
    }
    if let Some(missing) = feed.key.iter().find(|name| !columns.iter().any(|column| column.name == **name && !column.is_left_out())) {
        return Err(keyless(format!("column `{missing}` does not exist or is not stored")));
    }
    let uniques = uniques(connection, path, table, &columns)?;
    let Some(place) = uniques.iter().position(|unique| unique.is(&feed.key)) else {
        return Err(keyless(format!("no primary key and no unique index consists of the columns {}", feed.key.join(", "))));
    };
    let in_key = |column: &RawColumn| feed.key.contains(&column.name);
    if let Some(column) = columns.iter().find(|column| in_key(column) && !column.not_null && column.primary == 0) {
        return Err(keyless(format!("column `{}` may be NULL", column.name)));
    }
    let kept = || columns.iter().filter(|column| !column.is_left_out());
    let layout_columns =
        kept().map(|column| LayoutColumn { name: column.name.clone(), blob: column.is_for_blobs(in_key(column)), key: in_key(column) });
    let layout = Layout { table: table.clone(), columns: layout_columns.collect() };
    let mut others = uniques;
    let key = others.remove(place);
    let definition = kept().map(|column| Defined {
        name: column.name.clone(),
        declared: column.declared.clone(),
        default: column.default.clone(),
        hidden: column.hidden,
    });
    let definition = definition.collect();
    let named = columns.iter().map(|column| named(connection, table, column)).collect::<rusqlite::Result<_>>().map_err(failed)?;
    let is_numbered = place == 0 && key.terms.len() == 1 && has_number(connection, table, &columns).map_err(failed)?;
    let cascades = connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM pragma_foreign_key_list(?1, 'main') WHERE on_delete = 'CASCADE')",
            [table.as_ref()],
            |row| row.get(0),
        )
        .map_err(failed)?;
    Ok(Shape { layout, columns: named, definition, is_numbered, cascades, key, others })
}

fn named(connection: &Connection, table: &str, column: &RawColumn) -> rusqlite::Result<Named> {
    let computed = matches!(column.hidden, 2 | 3);
    let default = column.default.as_ref().filter(|_| column.not_null && !computed);
    let instead = match default.and_then(|default| stored_default(connection, &column.declared, default)) {
        Some(sql) => Some((sql, default_collation(connection, table, &column.name)?.unwrap_or_else(|| "BINARY".into()))),
        None => None,
    };
    Ok(Named { name: column.name.clone(), affinity: column.affinity, computed, instead })
}

/// A default as SQL of the value that is stored; an expression stays one. `None` where it cannot be told here, as with a
/// function of the application's own.
fn stored_default(connection: &Connection, declared: &str, default: &str) -> Option<String> {
    let is_literal = !default.contains('(') && !default.to_ascii_uppercase().starts_with("CURRENT_");
    let found = if is_literal {
        let make = format!(
            "CREATE TEMP TABLE _feedline_default(c {declared} DEFAULT {default}); INSERT INTO temp._feedline_default DEFAULT VALUES"
        );
        let value = connection
            .execute_batch(&make)
            .and_then(|()| connection.query_row("SELECT quote(c) FROM temp._feedline_default", [], |row| row.get(0)));
        // It is there only where it could be made.
        let dropped = connection.execute_batch("DROP TABLE IF EXISTS temp._feedline_default");
        dropped.and(value)
    } else {
        connection.prepare(&format!("SELECT ({default})")).map(|_| format!("({default})"))
    };
    found.ok()
}

/// Every unique set of the table: the row number, the primary key, constraints, unique indexes.
fn uniques(connection: &Connection, path: &Path, table: &Arc<str>, columns: &[RawColumn]) -> Result<Vec<Unique>, Error> {
    let failed = |source| error::Error::sqlite("read a table's indexes", path, source);
    let mut found = Vec::new();
    let mut has_primary_index = false;
    let indexes: Vec<(String, String)> = connection
        .prepare_cached("SELECT name, origin FROM pragma_index_list(?1, 'main') WHERE \"unique\" ORDER BY seq")
        .and_then(|mut statement| statement.query_map([table.as_ref()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .map_err(failed)?;
    for (name, origin) in indexes {
        has_primary_index |= origin == "pk";
        found.push(unique(connection, path, table, &name)?);
    }
    let primary: Vec<_> = columns.iter().filter(|column| column.primary != 0).map(|column| column.name.clone()).collect();
    if !primary.is_empty() && !has_primary_index {
        // INTEGER PRIMARY KEY is the row number itself and has no index.
        found.insert(0, Unique::of_columns(primary));
    } else if let Some(rowid) = rowid_name(connection, table, columns).map_err(failed)? {
        found.push(Unique::of_columns([Arc::from(rowid)]));
    }
    Ok(found)
}

/// Whether the primary key is the row's number.
fn has_number(connection: &Connection, table: &str, columns: &[RawColumn]) -> rusqlite::Result<bool> {
    let has_index: bool =
        connection
            .query_row("SELECT EXISTS (SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk')", [table], |row| row.get(0))?;
    Ok(!has_index && columns.iter().any(|column| column.primary != 0))
}

/// The name under which the row number of a table can be reached; none without one.
fn rowid_name(connection: &Connection, table: &str, columns: &[RawColumn]) -> rusqlite::Result<Option<&'static str>> {
    let without: bool =
        connection.query_row("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1", [table], |row| row.get(0))?;
    let free = |name: &&str| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    Ok(if without { None } else { ["rowid", "_rowid_", "oid"].into_iter().find(free) })
}

fn unique(connection: &Connection, path: &Path, table: &Arc<str>, index: &str) -> Result<Unique, Error> {
    let failed = |source| error::Error::sqlite("read an index", path, source);
    let terms: Vec<(Option<String>, String)> = connection
        .prepare_cached("SELECT name, coll FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno")
        .and_then(|mut statement| statement.query_map([index], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .map_err(failed)?;
    let sql: Option<String> = connection
        .query_row("SELECT sql FROM main.sqlite_schema WHERE type = 'index' AND name = ?1", params![index], |row| row.get(0))
        .optional()
        .map_err(failed)?
        .flatten();
    let parsed = match sql {
        Some(sql) => index::parse(&sql).ok_or_else(|| Error::Index { table: table.clone(), index: index.to_owned() })?,
        // Made for a constraint: plain columns.
        None => IndexSql { terms: vec![String::new(); terms.len()], predicate: None },
    };
    if parsed.terms.len() != terms.len() {
        return Err(Error::Index { table: table.clone(), index: index.to_owned() });
    }
    let mut found = Vec::with_capacity(terms.len());
    for ((name, collation), text) in terms.into_iter().zip(parsed.terms) {
        let by_default = match &name {
            Some(name) => default_collation(connection, table, name).map_err(failed)?.is_some_and(|own| own == collation),
            None => false,
        };
        let value = name.map_or(Value::Expression(text), |name| Value::Column(name.into()));
        found.push(Term { value, collation, by_default });
    }
    Ok(Unique { terms: found, predicate: parsed.predicate })
}

/// Whether a collation is one of the application's own.
pub(super) fn is_foreign(collation: &str) -> bool {
    !["BINARY", "NOCASE", "RTRIM"].iter().any(|known| collation.eq_ignore_ascii_case(known))
}

fn default_collation(connection: &Connection, table: &str, column: &str) -> rusqlite::Result<Option<String>> {
    let (_, collation, ..) = connection.column_metadata(Some(SCHEMA), table, column)?;
    Ok(collation.map(|collation| collation.to_string_lossy().into_owned()))
}
