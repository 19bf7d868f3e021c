//! The order in which rows are read. `ORDER BY` and the condition that continues a scan use the same operators, each named with its schema.
//!
//! A key is unique under one comparison: that of the operator classes and collations of its unique index (`tables::Uniqueness`). A plain `>` in SQL
//! may be another comparison. The server resolves it by name, does not see the operators of extensions outside the search path, and may choose the
//! operator of a type that the column can be converted to: `citext` would be compared as `text`, in another order than its index. So each operator
//! is named with its schema, and both operands are cast to the type that it was made for.

use crate::event::FeedId;
use crate::fault::{Classify as _, Fault};
use crate::feed::{Feed, Feeds, PrefeedKind};
use crate::source::postgres::error::Error;
use crate::source::postgres::quote::{identifier, literal, table};
use crate::source::postgres::session::{Answer, Session};
use crate::source::postgres::tables::{self, Uniqueness};
use std::collections::HashMap;
use std::sync::Arc;

/// How the values of one key column are compared and sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The input type of the operators, as a quoted SQL name; the column's type if that input type is polymorphic.
    /// `None`: values are compared as they are printed.
    type_name: Option<String>,
    /// The collation for text, as a quoted SQL name.
    collation: Option<String>,
    /// In sort order: before, before or equal, after or equal, after.
    operators: [String; 4],
    nulls_first: bool,
}

/// The columns of a key in the order in which rows are sorted by them, each with its comparison.
pub(super) type KeyOrder = Vec<(String, Order)>;

/// The operators of an operator class `oc`, in the order of btree's strategies: less, less or equal, greater or equal, greater.
const OPERATORS: &str = "\
(SELECT pg_catalog.string_agg(pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname), pg_catalog.chr(1) ORDER BY m.amopstrategy) \
 FROM pg_catalog.pg_amop m JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace \
 WHERE m.amopfamily = oc.opcfamily AND m.amoplefttype = oc.opcintype AND m.amoprighttype = oc.opcintype AND m.amoppurpose = 's' \
 AND m.amopstrategy IN (1, 2, 4, 5))";

/// The equality operator of an operator class `oc`.
const EQUALITY: &str = "\
(SELECT m.amopopr::text FROM pg_catalog.pg_amop m WHERE m.amopfamily = oc.opcfamily AND m.amoplefttype = oc.opcintype \
 AND m.amoprighttype = oc.opcintype AND m.amoppurpose = 's' AND m.amopstrategy = CASE oc.opcmethod WHEN 405 THEN 1 ELSE 3 END)";

/// The key columns of these indexes, in index order.
const INDEXES: &str = "\
SELECT i.indexrelid, a.attname, \
CASE it.typtype WHEN 'p' THEN (WITH RECURSIVE d (oid) AS (SELECT a.atttypid UNION ALL \
  SELECT t.typbasetype FROM d JOIN pg_catalog.pg_type t ON t.oid = d.oid WHERE t.typtype = 'd') \
  SELECT pg_catalog.format_type(d.oid, -1) FROM d JOIN pg_catalog.pg_type t ON t.oid = d.oid WHERE t.typtype <> 'd') \
ELSE pg_catalog.format_type(it.oid, -1) END, \
pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname), {operators}, k.options & 1 = 1, k.options & 2 = 2, co.oid IS NULL \
FROM pg_catalog.pg_index i \
CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::int2[]), pg_catalog.unnest(i.indclass::oid[]), \
  pg_catalog.unnest(i.indcollation::oid[]), pg_catalog.unnest(i.indoption::int2[])) WITH ORDINALITY k (number, class, collated, options, ordinal) \
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number \
JOIN pg_catalog.pg_opclass oc ON oc.oid = k.class AND oc.opcmethod = 403 JOIN pg_catalog.pg_type it ON it.oid = oc.opcintype \
LEFT JOIN pg_catalog.pg_collation co ON co.oid = k.collated LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace \
WHERE i.indexrelid IN ({indexes}) AND k.ordinal <= i.indnkeyatts ORDER BY i.indexrelid, k.ordinal";

/// The equality operators (with collation) by which these indexes, and the partitioning of these tables, compare their columns.
const EQUALITIES: &str = "\
SELECT a.attname, {equality} || CASE WHEN co.collisdeterministic THEN '' ELSE COALESCE(' ' || co.oid, '') END \
FROM (SELECT i.indrelid, k.* FROM pg_catalog.pg_index i CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::int2[]), \
   pg_catalog.unnest(i.indclass::oid[]), pg_catalog.unnest(i.indcollation::oid[])) k (number, class, collated) WHERE i.indexrelid IN ({indexes}) \
  UNION ALL SELECT p.partrelid, k.* FROM pg_catalog.pg_partitioned_table p CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(p.partattrs::int2[]), \
   pg_catalog.unnest(p.partclass::oid[]), pg_catalog.unnest(p.partcollation::oid[])) k (number, class, collated) WHERE p.partrelid IN ({tables}) \
 ) k (relation, number, class, collated) \
JOIN pg_catalog.pg_attribute a ON a.attrelid = k.relation AND a.attnum = k.number \
JOIN pg_catalog.pg_opclass oc ON oc.oid = k.class LEFT JOIN pg_catalog.pg_collation co ON co.oid = k.collated";

/// How values of these types are compared by their default btree operator class, its equality operator, and whether equal values
/// are also printed the same (the class has the fourth support function, `equalimage`).
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
    /// Reads six columns of an answer, starting at `first`: type, collation, operators, whether the order is descending,
    /// whether nulls come first, whether there is no collation.
    fn read(row: &Answer, first: usize) -> Option<Self> {
        let operators: Vec<_> = row.text(first + 2).split('\u{1}').map(str::to_owned).collect();
        let mut operators: [String; 4] = operators.try_into().ok()?;
        if row.is_true(first + 3) {
            operators.reverse();
        }
        let collation = if row.is_true(first + 5) { None } else { row.get(first + 1).map(str::to_owned) };
        Some(Self { type_name: Some(row.text(first).to_owned()), collation, operators, nulls_first: row.is_true(first + 4) })
    }

    /// Compares values as they are printed. Values are different if their events are different.
    pub(super) fn of_output() -> Self {
        let operators = ["<", "<=", ">=", ">"].map(|operator| format!("OPERATOR(pg_catalog.{operator})"));
        Self { type_name: None, collation: Some("pg_catalog.\"C\"".to_owned()), operators, nulls_first: false }
    }

    pub(super) const fn is_of_output(&self) -> bool {
        self.type_name.is_none()
    }

    /// The part of the comparison that must not change while a table is read.
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

    /// A key value, as it was printed, cast for the comparison.
    fn constant(&self, value: &str) -> String {
        format!("{value}::{}", self.type_name.as_deref().unwrap_or("text"))
    }

    fn item(&self, column: &str) -> String {
        format!("{} USING {} NULLS {}", self.value(column), self.operators[0], if self.nulls_first { "FIRST" } else { "LAST" })
    }
}

/// The `ORDER BY` list for these columns, given as quoted SQL names.
pub(super) fn order_by<'o>(key: impl Iterator<Item = (&'o str, &'o Order)>) -> String {
    key.map(|(column, order)| order.item(column)).collect::<Vec<_>>().join(", ")
}

/// Which rows a condition selects, relative to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Rows after the key.
    After,
    /// Rows before the key, and the row with the key itself.
    Until,
}

/// The SQL condition for rows on this side of a key, whose values are given as SQL literals.
pub(super) fn condition<'o>(key: impl Iterator<Item = (&'o str, &'o Order, String)>, side: Side) -> String {
    let terms: Vec<_> = key.map(|(column, order, value)| (order.value(column), order.constant(&value), order)).collect();
    // The operators without and with equality.
    let [strict, loose] = match side {
        Side::After => [3, 2],
        Side::Until => [0, 1],
    };
    let last = if side == Side::After { strict } else { loose };
    let is_alike = terms.windows(2).all(|pair| pair[0].2.operators == pair[1].2.operators);
    if is_alike && 1 < terms.len() {
        // A row comparison can use the index for all columns. It is possible because all columns have the same operator.
        let (columns, values): (Vec<_>, Vec<_>) = terms.iter().map(|(column, value, _)| (column.as_str(), value.as_str())).unzip();
        return format!("ROW({}) {} ROW({})", columns.join(", "), terms[0].2.operators[last], values.join(", "));
    }
    let compare = |at: usize, operator: usize| format!("{} {} {}", terms[at].0, terms[at].2.operators[operator], terms[at].1);
    let Some(end) = terms.len().checked_sub(1) else { return "true".to_owned() };
    // For each column: not on the other side, and either strictly on this side or decided by the columns after it.
    (0..end).rev().fold(compare(end, last), |rest, at| format!("{} AND ({} OR {rest})", compare(at, loose), compare(at, strict)))
}

/// The key columns of these indexes with their comparisons, by the index's oid.
async fn index_orders(oids: &[u32], session: &mut Session) -> Result<HashMap<u32, KeyOrder>, Error> {
    if oids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = session.query(&INDEXES.replace("{operators}", OPERATORS).replace("{indexes}", &list(oids))).await?;
    let index_order = |rows: &[Answer]| {
        let columns = rows.iter().map(|row| Some((row.text(1).to_owned(), Order::read(row, 2)?))).collect::<Option<KeyOrder>>()?;
        Some((rows[0].text(0).parse().ok()?, columns))
    };
    Ok(rows.chunk_by(|a, b| a.text(0) == b.text(0)).filter_map(index_order).collect())
}

fn list(oids: &[u32]) -> String {
    oids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// How values of a type are compared by default.
#[derive(Clone, Debug)]
pub(super) struct DefaultOrder {
    pub(super) order: Order,
    /// The oid of the equality operator.
    equality: String,
    /// Whether equal values are always printed the same.
    pub(super) is_exact: bool,
}

/// The default comparison of these types, by the type's oid. A type without an order is missing in the result.
pub(super) async fn defaults(types: &[u32], session: &mut Session) -> Result<HashMap<u32, DefaultOrder>, Error> {
    let sql = DEFAULTS.replace("{operators}", OPERATORS).replace("{equality}", EQUALITY).replace("{types}", &list(types));
    let default = |row: &Answer| {
        let (equality, is_exact) = (row.text(7).to_owned(), row.is_true(8));
        Some((row.text(0).parse().ok()?, DefaultOrder { order: Order::read(row, 1)?, equality, is_exact }))
    };
    Ok(session.query(&sql).await?.iter().filter_map(default).collect())
}

/// Types and collations of columns.
const COLUMNS: &str = "\
SELECT n.nspname, c.relname, a.attname, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod), \
pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname), COALESCE(co.collisdeterministic, true) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace \
WHERE (n.nspname, c.relname) IN ({tables})";

/// The keys of these feeds' tables, each in the order of the table's unique index. Without an index of the whole table, the order is that of the
/// columns' types.
pub(super) async fn keys(
    feeds: &Feeds,
    wanted: &[&Feed],
    session: &mut Session,
) -> Result<HashMap<FeedId, Result<KeyOrder, Error>>, Error> {
    let tables = tables::of(feeds, session).await?;
    let table_of = |feed: &Feed| tables.iter().find(|table| (&*table.root.schema, &*table.root.name) == (&*feed.schema, &*feed.table));
    let unique: Vec<_> = wanted.iter().map(|feed| Some((table_of(feed)?, table_of(feed)?.uniqueness(&feed.key)?))).collect();
    let index_of_table = |unique: &Option<(&tables::Table, Uniqueness<'_>)>| match unique {
        Some((_, Uniqueness::Index(index))) => Some(index.oid),
        _ => None,
    };
    let orders = index_orders(&unique.iter().filter_map(index_of_table).collect::<Vec<_>>(), session).await?;
    let mut keys = HashMap::new();
    let mut rest = Vec::new();
    for (feed, unique) in wanted.iter().zip(unique) {
        match index_of_table(&unique).and_then(|oid| orders.get(&oid)) {
            Some(order) => drop(keys.insert(feed.id, Ok(order.clone()))),
            None => rest.push((*feed, unique)),
        }
    }
    if rest.is_empty() {
        return Ok(keys);
    }
    let names: Vec<_> = rest.iter().map(|(feed, _)| format!("({}, {})", literal(&feed.schema), literal(&feed.table))).collect();
    let columns = session.query(&COLUMNS.replace("{tables}", &names.join(", "))).await?;
    let types: Vec<u32> = columns.iter().filter_map(|column| column.text(3).parse().ok()).collect();
    let defaults = defaults(&types, session).await?;
    for (feed, unique) in rest {
        let column = |key: &str| columns.iter().find(|row| (row.text(0), row.text(1), row.text(2)) == (&*feed.schema, &*feed.table, key));
        let key: Result<Vec<_>, _> = feed.key.iter().map(|key| Ok((key, type_order(feed, key, column(key), &defaults)?))).collect();
        let key = match (key, &unique) {
            (Ok(key), Some((table, Uniqueness::Partitions(indexes)))) => check_partitions(feed, key, table, indexes, session).await?,
            (key, _) => key,
        };
        keys.insert(feed.id, key.map(|key| key.into_iter().map(|(name, default)| (name.to_string(), default.order)).collect()));
    }
    Ok(keys)
}

/// Returns the key unchanged if the partitions' indexes and the partitioning use the same equality as the columns' types. Otherwise
/// they may distinguish values that are equal by the types' order, and the key is refused.
async fn check_partitions<'k>(
    feed: &Feed,
    key: Vec<(&'k Arc<str>, DefaultOrder)>,
    table: &tables::Table,
    indexes: &[&tables::Index],
    session: &mut Session,
) -> Result<Result<Vec<(&'k Arc<str>, DefaultOrder)>, Error>, Error> {
    let oids: Vec<_> = indexes.iter().map(|index| index.oid).collect();
    let sql = EQUALITIES
        .replace("{equality}", EQUALITY)
        .replace("{indexes}", &if oids.is_empty() { "0".to_owned() } else { list(&oids) })
        .replace("{tables}", &list(&table.partitioned_oids().collect::<Vec<_>>()));
    let differs = |row: &Answer| key.iter().any(|(name, default)| ***name == *row.text(0) && default.equality != row.text(1));
    let rows = session.query(&sql).await?;
    Ok(match rows.iter().find(|row| differs(row)) {
        None => Ok(key),
        Some(row) => Err(unordered(feed, format!("its partitions do not compare key column {:?} as its type does", row.text(0)))),
    })
}

fn unordered(feed: &Feed, reason: String) -> Error {
    let remedy =
        format!("CREATE UNIQUE INDEX ON {} over the key, or set another key or prefeed = \"none\"", table(&feed.schema, &feed.table));
    Error::Keyless { table: feed.name.to_string(), reason, remedy }
}

/// The comparison of a key column by its type's default and its own collation: for tables without a unique index of the whole table.
fn type_order(feed: &Feed, key: &str, column: Option<&Answer>, defaults: &HashMap<u32, DefaultOrder>) -> Result<DefaultOrder, Error> {
    let column = column.ok_or_else(|| Error::TableChanged {
        table: feed.name.to_string(),
        reason: format!("its key column {key:?} is no longer there; name another key for the feed"),
    })?;
    let default = column.text(3).parse().ok().and_then(|oid: u32| defaults.get(&oid)).cloned();
    let Some(mut default) = default else {
        return Err(unordered(feed, format!("its key column {key:?} is of type {}, which has no order", column.text(4))));
    };
    if !column.is_true(6) {
        let reason = format!("its key column {key:?} has the collation {}, which treats different strings as equal", column.text(5));
        return Err(unordered(feed, reason));
    }
    default.order.collation = default.order.collation.and(column.get(5)).map(str::to_owned);
    Ok(default)
}

/// Lets the server plan, for each feed with a table prefeed, the statement that will read the table. No row is read. Adds the server's
/// objections to `found`.
pub(crate) async fn verify(feeds: &Feeds, session: &mut Session, found: &mut Vec<Error>) -> Result<(), Error> {
    let read: Vec<_> = feeds.iter().filter(|feed| feed.prefeed == PrefeedKind::Snapshot && !feed.key.is_empty()).collect();
    let mut keys = keys(feeds, &read, session).await?;
    for feed in read {
        let Some(key) = keys.remove(&feed.id) else { continue };
        let tried = match key {
            Ok(key) => session.query(&explain(feed, &key)).await.map(drop),
            refused => refused.map(drop),
        };
        match tried {
            Ok(()) | Err(Error::TableChanged { .. }) => {}
            // Earlier checks have reported missing privileges on tables. Alone, the error may be about an operator's schema.
            Err(Error::Privilege { .. }) if found.iter().any(|error| matches!(error, Error::Privilege { .. })) => {}
            Err(Error::Refused(error)) if [UNDEFINED_TABLE, LOCK_NOT_AVAILABLE].contains(&error.sqlstate.as_str()) => {}
            Err(Error::Refused(error)) => found.push(Error::Keyless {
                table: feed.name.to_string(),
                reason: format!("its rows cannot be read in the order of its key: {error}"),
                remedy: "set another key, or prefeed = \"none\"".to_owned(),
            }),
            Err(error) if error.fault() == Fault::Transient => return Err(error),
            Err(error) => found.push(error),
        }
    }
    Ok(())
}

const UNDEFINED_TABLE: &str = "42P01";
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// `EXPLAIN` of a statement with the same conditions and order as those that read the table. It does not wait for a table that another session
/// has locked. The server runs statements that are sent together in one transaction, so the setting ends with them.
fn explain(feed: &Feed, key: &KeyOrder) -> String {
    let columns: Vec<_> = key.iter().map(|(column, _)| identifier(column)).collect();
    let ordered = || columns.iter().map(String::as_str).zip(key.iter().map(|(_, order)| order));
    let condition = |side| condition(ordered().map(|(name, order)| (name, order, "NULL".to_owned())), side);
    let from = table(&feed.schema, &feed.table);
    format!(
        "SET LOCAL lock_timeout = '1s'; EXPLAIN SELECT {} FROM {from} WHERE {} AND {} ORDER BY {}",
        columns.join(", "),
        condition(Side::After),
        condition(Side::Until),
        order_by(ordered())
    )
}

#[cfg(test)]
mod tests {
    use super::{Order, Side, condition, order_by};

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
        assert_eq!(condition(key(), Side::After), whole);
        assert_eq!(condition(key().take(1), Side::Until), "\"a\"::integer OPERATOR(pg_catalog.<=) '1'::integer");
        let ordered = order_by([("\"a\"", &number)].into_iter());
        assert_eq!(ordered, "\"a\"::integer USING OPERATOR(pg_catalog.<) NULLS LAST");
    }

    #[test]
    fn columns_of_different_operators_are_compared_one_by_one() {
        let (up, down) = (order("o", "t", false), order("o", "t", true));
        let key = || [("a", &up, "1".to_owned()), ("b", &down, "2".to_owned()), ("c", &up, "3".to_owned())].into_iter();
        let after = "a::t OPERATOR(o.>=) 1::t AND (a::t OPERATOR(o.>) 1::t OR \
                     b::t OPERATOR(o.<=) 2::t AND (b::t OPERATOR(o.<) 2::t OR c::t OPERATOR(o.>) 3::t))";
        assert_eq!(condition(key(), Side::After), after);
        let until = "a::t OPERATOR(o.<=) 1::t AND (a::t OPERATOR(o.<) 1::t OR \
                     b::t OPERATOR(o.>=) 2::t AND (b::t OPERATOR(o.>) 2::t OR c::t OPERATOR(o.<=) 3::t))";
        assert_eq!(condition(key(), Side::Until), until);
        assert_eq!(order_by([("b", &down)].into_iter()), "b::t USING OPERATOR(o.>) NULLS FIRST");
    }
}
