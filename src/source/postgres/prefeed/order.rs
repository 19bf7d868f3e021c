//! In which order rows are read: by one comparison, in `ORDER BY` and in what a scan goes on behind, named so that nothing is looked for.
//!
//! A key is unique by the comparison of the index that keeps its rows apart (`tables::Apart`): that of the index's operator classes and collations. What SQL means by `>` may be another
//! one: it is looked for by name, with the operators of an extension out of sight, and found for a type that this one can be taken for
//! (`citext` would be compared as `text`, in an order that is not its index's). So each operator is named with its schema, and both of its sides have
//! the type that it was made for.

use crate::event::FeedId;
use crate::fault::{Classify as _, Fault};
use crate::feed::{Feed, Feeds, PrefeedKind};
use crate::source::postgres::error::Error;
use crate::source::postgres::quote::{identifier, literal, table};
use crate::source::postgres::session::{Answer, Session};
use crate::source::postgres::tables::{self, Apart};
use std::collections::HashMap;
use std::sync::Arc;

/// How the values of one key column are compared, and which of them come first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The type that its operators were made for, as SQL names it; for those that serve many types, the column's.
    /// `None`: values are compared as they are printed.
    type_name: Option<String>,
    /// By which text is compared, as SQL names it.
    collation: Option<String>,
    /// Before, not behind, not before, behind.
    operators: [String; 4],
    nulls_first: bool,
}

/// Columns with their order, as an index has them.
pub(super) type Index = Vec<(String, Order)>;

/// The operators of an operator class `oc`, in the order of btree's strategies: less, less or equal, greater or equal, greater.
const OPERATORS: &str = "\
(SELECT pg_catalog.string_agg(pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname), pg_catalog.chr(1) ORDER BY m.amopstrategy) \
 FROM pg_catalog.pg_amop m JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace \
 WHERE m.amopfamily = oc.opcfamily AND m.amoplefttype = oc.opcintype AND m.amoprighttype = oc.opcintype AND m.amoppurpose = 's' \
 AND m.amopstrategy IN (1, 2, 4, 5))";

/// By what an operator class `oc` calls two values equal.
const EQUALITY: &str = "\
(SELECT m.amopopr::text FROM pg_catalog.pg_amop m WHERE m.amopfamily = oc.opcfamily AND m.amoplefttype = oc.opcintype \
 AND m.amoprighttype = oc.opcintype AND m.amoppurpose = 's' AND m.amopstrategy = CASE oc.opcmethod WHEN 405 THEN 1 ELSE 3 END)";

/// Which columns these indexes have, and in which order.
const INDEXES: &str = "\
SELECT i.indexrelid, a.attname, \
CASE it.typtype WHEN 'p' THEN (WITH RECURSIVE d (oid) AS (SELECT a.atttypid UNION ALL \
  SELECT t.typbasetype FROM d JOIN pg_catalog.pg_type t ON t.oid = d.oid WHERE t.typtype = 'd') \
  SELECT pg_catalog.format_type(d.oid, -1) FROM d JOIN pg_catalog.pg_type t ON t.oid = d.oid WHERE t.typtype <> 'd') \
ELSE pg_catalog.format_type(it.oid, -1) END, \
pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname), {operators}, k.options & 1 = 1, k.options & 2 = 2, co.oid IS NULL \
FROM pg_catalog.pg_index i \
CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::int2[]), pg_catalog.unnest(i.indclass::oid[]), \
  pg_catalog.unnest(i.indcollation::oid[]), pg_catalog.unnest(i.indoption::int2[])) WITH ORDINALITY k (number, class, collated, options, place) \
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number \
JOIN pg_catalog.pg_opclass oc ON oc.oid = k.class AND oc.opcmethod = 403 JOIN pg_catalog.pg_type it ON it.oid = oc.opcintype \
LEFT JOIN pg_catalog.pg_collation co ON co.oid = k.collated LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace \
WHERE i.indexrelid IN ({indexes}) AND k.place <= i.indnkeyatts ORDER BY i.indexrelid, k.place";

/// By what these indexes, and the partitioning of these tables, call values of their columns equal.
const EQUALITIES: &str = "\
SELECT a.attname, {equality} || CASE WHEN co.collisdeterministic THEN '' ELSE COALESCE(' ' || co.oid, '') END \
FROM (SELECT i.indrelid, k.* FROM pg_catalog.pg_index i CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::int2[]), \
   pg_catalog.unnest(i.indclass::oid[]), pg_catalog.unnest(i.indcollation::oid[])) k (number, class, collated) WHERE i.indexrelid IN ({indexes}) \
  UNION ALL SELECT p.partrelid, k.* FROM pg_catalog.pg_partitioned_table p CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(p.partattrs::int2[]), \
   pg_catalog.unnest(p.partclass::oid[]), pg_catalog.unnest(p.partcollation::oid[])) k (number, class, collated) WHERE p.partrelid IN ({tables}) \
 ) k (relation, number, class, collated) \
JOIN pg_catalog.pg_attribute a ON a.attrelid = k.relation AND a.attnum = k.number \
JOIN pg_catalog.pg_opclass oc ON oc.oid = k.class LEFT JOIN pg_catalog.pg_collation co ON co.oid = k.collated";

/// How values of these types are compared where no index says it, by the operator class that is meant where none is named; by what they are
/// equal then; and whether such values look the same (its fourth support function says it).
const DEFAULTS: &str = "\
WITH RECURSIVE d (type, oid) AS (SELECT t, t FROM pg_catalog.unnest('{{types}}'::oid[]) t UNION ALL \
  SELECT d.type, t.typbasetype FROM d JOIN pg_catalog.pg_type t ON t.oid = d.oid WHERE t.typtype = 'd') \
SELECT DISTINCT ON (d.type) d.type, pg_catalog.format_type(CASE it.typtype WHEN 'p' THEN t.oid ELSE it.oid END, -1), \
CASE WHEN it.typcollation <> 0 THEN 'pg_catalog.\"default\"' END, {operators}, false, false, it.typcollation = 0, {equality}, \
EXISTS (SELECT FROM pg_catalog.pg_amproc f WHERE f.amprocfamily = oc.opcfamily AND f.amproclefttype = oc.opcintype AND f.amprocnum = 4) \
FROM d JOIN pg_catalog.pg_type t ON t.oid = d.oid AND t.typtype <> 'd' \
JOIN pg_catalog.pg_opclass oc ON oc.opcmethod = 403 AND oc.opcdefault JOIN pg_catalog.pg_type it ON it.oid = oc.opcintype \
WHERE it.oid = t.oid \
OR it.oid = CASE t.typtype WHEN 'e' THEN 'anyenum'::regtype WHEN 'r' THEN 'anyrange'::regtype WHEN 'm' THEN 'anymultirange'::regtype \
  WHEN 'c' THEN 'record'::regtype END \
OR it.oid = 'anyarray'::regtype AND t.typcategory = 'A' AND t.typlen = -1 AND t.typelem <> 0 \
OR EXISTS (SELECT FROM pg_catalog.pg_cast x WHERE x.castsource = t.oid AND x.casttarget = it.oid AND x.castmethod = 'b' AND x.castcontext = 'i') \
ORDER BY d.type, it.oid = t.oid DESC, it.typispreferred DESC, it.oid";

impl Order {
    /// Reads type, collation, operators, whether it descends, whether nulls come first, whether it has no collation, from this place of an answer on.
    fn read(row: &Answer, place: usize) -> Option<Self> {
        let operators: Vec<_> = row.text(place + 2).split('\u{1}').map(str::to_owned).collect();
        let mut operators: [String; 4] = operators.try_into().ok()?;
        if row.is_true(place + 3) {
            operators.reverse();
        }
        let collation = if row.is_true(place + 5) { None } else { row.get(place + 1).map(str::to_owned) };
        Some(Self { type_name: Some(row.text(place).to_owned()), collation, operators, nulls_first: row.is_true(place + 4) })
    }

    /// By what is printed: apart are all values whose events look different.
    pub(super) fn of_output() -> Self {
        let operators = ["<", "<=", ">=", ">"].map(|operator| format!("OPERATOR(pg_catalog.{operator})"));
        Self { type_name: None, collation: Some("pg_catalog.\"C\"".to_owned()), operators, nulls_first: false }
    }

    pub(super) const fn is_of_output(&self) -> bool {
        self.type_name.is_none()
    }

    /// What must not change while a table is read.
    pub(super) fn fingerprint(&self) -> String {
        format!("{} {:?} {}", self.type_name.as_deref().unwrap_or_default(), self.collation, self.operators[0])
    }

    fn value(&self, column: &str) -> String {
        let collate = self.collation.as_ref().map(|collation| format!(" COLLATE {collation}")).unwrap_or_default();
        match &self.type_name {
            Some(type_name) => format!("{column}::{type_name}{collate}"),
            None => format!("pg_catalog.concat({column}){collate}"),
        }
    }

    /// A value of a key, which is what was printed, to compare with.
    fn constant(&self, value: &str) -> String {
        format!("{value}::{}", self.type_name.as_deref().unwrap_or("text"))
    }

    fn item(&self, column: &str) -> String {
        format!("{} USING {} NULLS {}", self.value(column), self.operators[0], if self.nulls_first { "FIRST" } else { "LAST" })
    }
}

/// The `ORDER BY` list of these columns, as SQL names them.
pub(super) fn by<'o>(key: impl Iterator<Item = (&'o str, &'o Order)>) -> String {
    key.map(|(column, order)| order.item(column)).collect::<Vec<_>>().join(", ")
}

/// On which side of a key rows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Behind it.
    After,
    /// Before it, or it.
    Until,
}

/// The condition for rows on this side of a key, whose values are given as SQL writes them.
pub(super) fn beside<'o>(key: impl Iterator<Item = (&'o str, &'o Order, String)>, side: Side) -> String {
    let terms: Vec<_> = key.map(|(column, order, value)| (order.value(column), order.constant(&value), order)).collect();
    // Strictly beside, and beside or the same.
    let [strict, loose] = match side {
        Side::After => [3, 2],
        Side::Until => [0, 1],
    };
    let last = if side == Side::After { strict } else { loose };
    let is_alike = terms.windows(2).all(|pair| pair[0].2.operators == pair[1].2.operators);
    if is_alike && 1 < terms.len() {
        // An index serves it whole. The operator, and with it the order, is that of every column.
        let (columns, values): (Vec<_>, Vec<_>) = terms.iter().map(|(column, value, _)| (column.as_str(), value.as_str())).unzip();
        return format!("ROW({}) {} ROW({})", columns.join(", "), terms[0].2.operators[last], values.join(", "));
    }
    let compare = |at: usize, operator: usize| format!("{} {} {}", terms[at].0, terms[at].2.operators[operator], terms[at].1);
    let Some(end) = terms.len().checked_sub(1) else { return "true".to_owned() };
    // Not on the other side, and beside already or decided by the rest.
    (0..end).rev().fold(compare(end, last), |rest, at| format!("{} AND ({} OR {rest})", compare(at, loose), compare(at, strict)))
}

/// The columns of these indexes, each with its order.
async fn indexes(numbers: &[u32], session: &mut Session) -> Result<HashMap<u32, Index>, Error> {
    if numbers.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = session.query(&INDEXES.replace("{operators}", OPERATORS).replace("{indexes}", &list(numbers))).await?;
    let of_index = |rows: &[Answer]| {
        let columns = rows.iter().map(|row| Some((row.text(1).to_owned(), Order::read(row, 2)?))).collect::<Option<Index>>()?;
        Some((rows[0].text(0).parse().ok()?, columns))
    };
    Ok(rows.chunk_by(|a, b| a.text(0) == b.text(0)).filter_map(of_index).collect())
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// How values of a type are compared by default.
#[derive(Clone, Debug)]
pub(super) struct Default {
    pub(super) order: Order,
    /// By what two of them are equal.
    equality: String,
    /// Whether equal ones are the same, as they are printed.
    pub(super) is_exact: bool,
}

/// How values of these types are compared where no index says it; a type that has no order is not there.
pub(super) async fn defaults(types: &[u32], session: &mut Session) -> Result<HashMap<u32, Default>, Error> {
    let sql = DEFAULTS.replace("{operators}", OPERATORS).replace("{equality}", EQUALITY).replace("{types}", &list(types));
    let default = |row: &Answer| {
        let (equality, is_exact) = (row.text(7).to_owned(), row.is_true(8));
        Some((row.text(0).parse().ok()?, Default { order: Order::read(row, 1)?, equality, is_exact }))
    };
    Ok(session.query(&sql).await?.iter().filter_map(default).collect())
}

/// The types of columns, and their collations where they have one.
const COLUMNS: &str = "\
SELECT n.nspname, c.relname, a.attname, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod), \
pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname), COALESCE(co.collisdeterministic, true) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace \
WHERE (n.nspname, c.relname) IN ({tables})";

/// The keys of these feeds' tables in the order of what keeps their rows apart: of an index where it has them all; else of their types.
pub(super) async fn keys(feeds: &Feeds, wanted: &[&Feed], session: &mut Session) -> Result<HashMap<FeedId, Result<Index, Error>>, Error> {
    let tables = tables::of(feeds, session).await?;
    let table_of = |feed: &Feed| tables.iter().find(|table| (&*table.root.schema, &*table.root.name) == (&*feed.schema, &*feed.table));
    let apart: Vec<_> = wanted.iter().map(|feed| Some((table_of(feed)?, table_of(feed)?.apart_by(&feed.key)?))).collect();
    let whole = |apart: &Option<(&tables::Table, Apart<'_>)>| match apart {
        Some((_, Apart::Index(index))) => Some(index.number),
        _ => None,
    };
    let indexes = indexes(&apart.iter().filter_map(whole).collect::<Vec<_>>(), session).await?;
    let mut keys = HashMap::new();
    let mut rest = Vec::new();
    for (feed, apart) in wanted.iter().zip(apart) {
        match whole(&apart).and_then(|number| indexes.get(&number)) {
            Some(index) => drop(keys.insert(feed.id, Ok(index.clone()))),
            None => rest.push((*feed, apart)),
        }
    }
    if rest.is_empty() {
        return Ok(keys);
    }
    let names: Vec<_> = rest.iter().map(|(feed, _)| format!("({}, {})", literal(&feed.schema), literal(&feed.table))).collect();
    let columns = session.query(&COLUMNS.replace("{tables}", &names.join(", "))).await?;
    let types: Vec<u32> = columns.iter().filter_map(|column| column.text(3).parse().ok()).collect();
    let defaults = defaults(&types, session).await?;
    for (feed, apart) in rest {
        let of_key = |key: &str| columns.iter().find(|row| (row.text(0), row.text(1), row.text(2)) == (&*feed.schema, &*feed.table, key));
        let found: Result<Vec<_>, _> = feed.key.iter().map(|key| Ok((key, unindexed(feed, key, of_key(key), &defaults)?))).collect();
        let key = match (found, &apart) {
            (Ok(found), Some((table, Apart::Partitions(indexes)))) => of_partitions(feed, found, table, indexes, session).await?,
            (found, _) => found,
        };
        keys.insert(feed.id, key.map(|key| key.into_iter().map(|(name, found)| (name.to_string(), found.order)).collect()));
    }
    Ok(keys)
}

/// Takes the order of the columns' types where neither a partition's index nor the partitioning tells values apart that are equal by it.
async fn of_partitions<'k>(
    feed: &Feed,
    key: Vec<(&'k Arc<str>, Default)>,
    table: &tables::Table,
    indexes: &[&tables::Index],
    session: &mut Session,
) -> Result<Result<Vec<(&'k Arc<str>, Default)>, Error>, Error> {
    let numbers: Vec<_> = indexes.iter().map(|index| index.number).collect();
    let sql = EQUALITIES
        .replace("{equality}", EQUALITY)
        .replace("{indexes}", &if numbers.is_empty() { "0".to_owned() } else { list(&numbers) })
        .replace("{tables}", &list(&table.spreading().collect::<Vec<_>>()));
    let finer = |row: &Answer| key.iter().any(|(name, found)| ***name == *row.text(0) && found.equality != row.text(1));
    let rows = session.query(&sql).await?;
    Ok(match rows.iter().find(|row| finer(row)) {
        None => Ok(key),
        Some(row) => Err(unordered(feed, format!("its partitions do not compare key column {:?} as its type does", row.text(0)))),
    })
}

fn unordered(feed: &Feed, reason: String) -> Error {
    let remedy =
        format!("CREATE UNIQUE INDEX ON {} over the key, or set another key or prefeed = \"none\"", table(&feed.schema, &feed.table));
    Error::Keyless { table: feed.name.to_string(), reason, remedy }
}

/// How a key column is compared of which no index of the whole table says it.
fn unindexed(feed: &Feed, key: &str, column: Option<&Answer>, defaults: &HashMap<u32, Default>) -> Result<Default, Error> {
    let column = column.ok_or_else(|| Error::TableChanged {
        table: feed.name.to_string(),
        reason: format!("its key column {key:?} is no longer there; name another key for the feed"),
    })?;
    let found = column.text(3).parse().ok().and_then(|oid: u32| defaults.get(&oid)).cloned();
    let Some(mut found) = found else {
        return Err(unordered(feed, format!("its key column {key:?} is of type {}, which has no order", column.text(4))));
    };
    if !column.is_true(6) {
        let reason =
            format!("its key column {key:?} has the collation {}, under which texts are equal that are not the same", column.text(5));
        return Err(unordered(feed, reason));
    }
    found.order.collation = found.order.collation.and(column.get(5)).map(str::to_owned);
    Ok(found)
}

/// Tries for each feed whose table is read the statement that will read it, without reading a row; what the server says against it is found.
pub(crate) async fn verify(feeds: &Feeds, session: &mut Session, found: &mut Vec<Error>) -> Result<(), Error> {
    let read: Vec<_> = feeds.iter().filter(|feed| feed.prefeed == PrefeedKind::Snapshot && !feed.key.is_empty()).collect();
    let mut keys = keys(feeds, &read, session).await?;
    // A table that somebody has locked is no reason to wait.
    session.query("SET lock_timeout = '1s'").await?;
    for feed in read {
        let Some(key) = keys.remove(&feed.id) else { continue };
        let tried = match key {
            Ok(key) => session.query(&trial(feed, &key)).await.map(drop),
            refused => refused.map(drop),
        };
        match tried {
            Ok(()) | Err(Error::TableChanged { .. }) => {}
            // The rest of the look has said it of the table; an operator's schema may be closed too.
            Err(Error::Privilege { .. }) if found.iter().any(|error| matches!(error, Error::Privilege { .. })) => {}
            Err(Error::Refused(said)) if ["42P01", "55P03"].contains(&said.sqlstate.as_str()) => {}
            Err(Error::Refused(said)) => found.push(Error::Keyless {
                table: feed.name.to_string(),
                reason: format!("its rows cannot be read in the order of its key: {said}"),
                remedy: "set another key, or prefeed = \"none\"".to_owned(),
            }),
            Err(error) if error.fault() == Fault::Transient => return Err(error),
            Err(error) => found.push(error),
        }
    }
    session.query("SET lock_timeout = 0").await.map(drop)
}

fn trial(feed: &Feed, key: &Index) -> String {
    let columns: Vec<_> = key.iter().map(|(column, _)| identifier(column)).collect();
    let named = || columns.iter().map(String::as_str).zip(key.iter().map(|(_, order)| order));
    let beside = |side| beside(named().map(|(name, order)| (name, order, "NULL".to_owned())), side);
    let from = table(&feed.schema, &feed.table);
    format!(
        "EXPLAIN SELECT {} FROM {from} WHERE {} AND {} ORDER BY {}",
        columns.join(", "),
        beside(Side::After),
        beside(Side::Until),
        by(named())
    )
}

#[cfg(test)]
mod tests {
    use super::{Order, Side, beside, by};

    fn order(schema: &str, type_name: &str, descends: bool) -> Order {
        let mut operators = ["<", "<=", ">=", ">"].map(|operator| format!("OPERATOR({schema}.{operator})"));
        if descends {
            operators.reverse();
        }
        let collation = (type_name == "text").then(|| "pg_catalog.\"C\"".to_owned());
        Order { type_name: Some(type_name.to_owned()), collation, operators, nulls_first: descends }
    }

    #[test]
    fn a_key_is_compared_by_named_operators_on_named_types() {
        let (number, text) = (order("pg_catalog", "integer", false), order("pg_catalog", "text", false));
        let key = || [("\"a\"", &number, "'1'".to_owned()), ("\"b\"", &text, "'x'".to_owned())].into_iter();
        let whole = "ROW(\"a\"::integer, \"b\"::text COLLATE pg_catalog.\"C\") OPERATOR(pg_catalog.>) ROW('1'::integer, 'x'::text)";
        assert_eq!(beside(key(), Side::After), whole);
        assert_eq!(beside(key().take(1), Side::Until), "\"a\"::integer OPERATOR(pg_catalog.<=) '1'::integer");
        let ordered = by([("\"a\"", &number)].into_iter());
        assert_eq!(ordered, "\"a\"::integer USING OPERATOR(pg_catalog.<) NULLS LAST");
    }

    #[test]
    fn columns_of_different_operators_are_compared_one_by_one() {
        let (up, down) = (order("o", "t", false), order("o", "t", true));
        let key = || [("a", &up, "1".to_owned()), ("b", &down, "2".to_owned()), ("c", &up, "3".to_owned())].into_iter();
        let after = "a::t OPERATOR(o.>=) 1::t AND (a::t OPERATOR(o.>) 1::t OR \
                     b::t OPERATOR(o.<=) 2::t AND (b::t OPERATOR(o.<) 2::t OR c::t OPERATOR(o.>) 3::t))";
        assert_eq!(beside(key(), Side::After), after);
        let until = "a::t OPERATOR(o.<=) 1::t AND (a::t OPERATOR(o.<) 1::t OR \
                     b::t OPERATOR(o.>=) 2::t AND (b::t OPERATOR(o.>) 2::t OR c::t OPERATOR(o.<=) 3::t))";
        assert_eq!(beside(key(), Side::Until), until);
        assert_eq!(by([("b", &down)].into_iter()), "b::t USING OPERATOR(o.>) NULLS FIRST");
    }
}
