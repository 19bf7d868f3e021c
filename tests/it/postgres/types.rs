//! Every type that a column can have, with 100,000 random rows: live events and existing rows have the same bytes, and both contain what the
//! database prints.

use super::reading::after;
use super::world::{World, feed};
use crate::contract_source::scan_all;
use base64::Engine as _;
use feedline::event::FeedId;
use std::collections::BTreeMap;

/// Rows of each table; ten tables.
const ROWS: usize = 10_000;

/// A type and a random value of it; `g` is the row's number, `r()` a random number below 1.
const TYPES: [&[(&str, &str)]; 10] = [
    &[
        ("bool", "r() < 0.5"),
        ("int2", "(r() * 65535 - 32768)::int2"),
        ("int4", "(r() * 4294967295 - 2147483648)::int4"),
        ("int8", "((r() - 0.5) * 1.8e19)::int8"),
        ("oid", "(r() * 4294967295)::int8::oid"),
        ("xid", "((r() * 4294967295)::int8::text)::xid"),
        ("xid8", "((r() * 1.8e19)::numeric(20,0)::text)::xid8"),
        ("cid", "((r() * 1000)::int::text)::cid"),
        ("tid", "format('(%s,%s)', g, g % 7)::tid"),
        ("pg_lsn", "format('%s/%s', to_hex(g), to_hex((r() * 1e9)::int))::pg_lsn"),
    ],
    &[
        (
            "float4",
            "CASE g % 50 WHEN 0 THEN 'NaN'::float4 WHEN 1 THEN '-Infinity' WHEN 2 THEN '-0' ELSE ((r() - 0.5) * power(10, g % 60 - 30))::float4 END",
        ),
        (
            "float8",
            "CASE g % 50 WHEN 0 THEN 'NaN'::float8 WHEN 1 THEN 'Infinity' WHEN 2 THEN '-0' ELSE (r() - 0.5) * power(10::float8, g % 600 - 300) END",
        ),
        (
            "numeric",
            "CASE g % 50 WHEN 0 THEN 'NaN'::numeric WHEN 1 THEN 'Infinity' ELSE ((r() - 0.5) * 1e15)::numeric * power(10::numeric, g % 40) END",
        ),
        ("numeric(20,5)", "((r() - 0.5) * 1e14)::numeric(20,5)"),
        ("money", "((r() - 0.5) * 1e12)::numeric::money"),
    ],
    &[
        ("text", "s(g)"),
        ("varchar(40)", "left(s(g), 40)"),
        ("char(9)", "left(s(g), 5)"),
        ("name", "left(s(g), 20)::name"),
        ("\"char\"", "chr(33 + g % 90)::\"char\""),
        ("bit(7)", "(g % 128)::bit(7)"),
        ("varbit", "substring(g::bit(32)::varbit FROM 1 FOR 1 + g % 32)"),
        ("xml", "xmlelement(name a, xmlattributes(s(g) AS b), s(g + 1))"),
        ("bytea", "decode(md5(g::text || r()::text), 'hex')"),
        ("uuid", "md5(r()::text)::uuid"),
        ("refcursor", "s(g)::refcursor"),
    ],
    &[
        (
            "date",
            "CASE g % 40 WHEN 0 THEN 'infinity'::date WHEN 1 THEN '0044-03-15 BC' WHEN 2 THEN '12345-01-01' ELSE '2000-01-01'::date + (g - 5000) * 37 END",
        ),
        ("time", "'00:00'::time + r() * interval '1 day'"),
        ("timetz", "('00:00'::time + r() * interval '1 day')::timetz"),
        (
            "timestamp",
            "CASE g % 40 WHEN 0 THEN '-infinity'::timestamp WHEN 1 THEN '0001-01-01 BC' WHEN 2 THEN '10000-01-01' ELSE '2000-01-01'::timestamp + (r() - 0.5) * interval '3000 years' END",
        ),
        (
            "timestamptz",
            "CASE g % 40 WHEN 0 THEN 'infinity'::timestamptz WHEN 1 THEN '0001-01-01 BC' WHEN 2 THEN '10000-01-01' ELSE '2000-01-01'::timestamptz + (r() - 0.5) * interval '3000 years' END",
        ),
        ("timestamptz(0)", "('2000-01-01'::timestamptz + r() * interval '90 years')::timestamptz(0)"),
        ("interval", "(g - 5000) * interval '1 month' + (r() - 0.5) * interval '900 days' + r() * interval '-3 hours'"),
    ],
    &[
        ("json", "format('{\"a\" : [ %s, null,true ], \"b c\":%s }', r() * 1e20, to_json(s(g)))::json"),
        ("jsonb", "jsonb_build_object('n', r()::numeric, 's', s(g), 'l', jsonb_build_array(g, NULL, '{}'::jsonb))"),
        ("jsonpath", "format('$.a[%s]', g)::jsonpath"),
        ("tsvector", "to_tsvector('simple', s(g))"),
        ("tsquery", "plainto_tsquery('simple', s(g))"),
    ],
    &[
        ("point", "point(r() * 100, g)"),
        ("lseg", "lseg(point(r(), g), point(g, r()))"),
        ("path", "format('[(%s,%s),(3,4)]', g, r())::path"),
        ("box", "box(point(r(), g), point(g, r()))"),
        ("polygon", "format('((%s,%s),(3,4),(5,6))', g, r())::polygon"),
        ("line", "line(point(r(), g), point(g + 1, r()))"),
        ("circle", "circle(point(r(), g), 1 + r())"),
    ],
    &[
        ("inet", "('10.0.0.0'::inet + g) "),
        ("cidr", "set_masklen(('10.0.0.0'::inet + (g << 8))::cidr, 24)"),
        ("macaddr", "(lpad(to_hex(g), 12, '0'))::macaddr"),
        ("macaddr8", "(lpad(to_hex(g), 16, '0'))::macaddr8"),
        ("regclass", "'pg_class'::regclass"),
        ("regtype", "'int4'::regtype"),
        ("regproc", "'now'::regproc"),
        ("regprocedure", "'lower(text)'::regprocedure"),
        ("regoper", "'||/'::regoper"),
        ("regoperator", "'+(int4,int4)'::regoperator"),
        ("regnamespace", "'pg_catalog'::regnamespace"),
        ("regrole", "'postgres'::regrole"),
        ("regcollation", "'\"C\"'::regcollation"),
        ("regconfig", "'simple'::regconfig"),
        ("regdictionary", "'simple'::regdictionary"),
        ("aclitem", "'=r/postgres'::aclitem"),
        ("txid_snapshot", "format('%s:%s:%s', g, g + 9, g + 3)::txid_snapshot"),
        ("pg_snapshot", "format('%s:%s:%s', g, g + 9, g + 3)::pg_snapshot"),
    ],
    &[
        ("int4range", "int4range(g, g + (r() * 9)::int)"),
        ("int8range", "int8range(g, NULL, '(]')"),
        ("numrange", "numrange(r()::numeric, 2 + r()::numeric, '[]')"),
        ("tsrange", "tsrange('2000-01-01'::timestamp + g * interval '1 h', NULL)"),
        ("tstzrange", "tstzrange('2000-01-01'::timestamptz + r() * interval '1 h', 'infinity')"),
        ("daterange", "CASE WHEN g % 5 = 0 THEN 'empty'::daterange ELSE daterange('2000-01-01'::date + g, NULL) END"),
        ("int4multirange", "int4multirange(int4range(g, g + 3), int4range(g + 5, g + 9))"),
        ("int8multirange", "int8multirange(int8range(g, g + 3))"),
        ("nummultirange", "nummultirange(numrange(0, r()::numeric))"),
        ("tsmultirange", "tsmultirange(tsrange('2000-01-01', NULL))"),
        ("tstzmultirange", "tstzmultirange(tstzrange('2000-01-01', NULL))"),
        ("datemultirange", "datemultirange(daterange('2000-01-01'::date + g, NULL))"),
    ],
    &[
        ("mood", "(enum_range(NULL::mood))[1 + g % 3]"),
        ("small", "(g % 100)::small"),
        ("pair", "ROW(g, s(g))::pair"),
        ("texts", "ARRAY[s(g), NULL]::texts"),
        ("floats", "floatrange(r(), 2)"),
        ("int2vector", "format('%s %s', g % 9, g % 7)::int2vector"),
        ("oidvector", "format('%s %s', g, g % 7)::oidvector"),
    ],
    &[
        (
            "int4[]",
            "CASE WHEN g % 9 = 0 THEN '[0:1]={7,8}'::int4[] WHEN g % 7 = 0 THEN '{{1,2},{3,NULL}}' WHEN g % 5 = 0 THEN '{}' ELSE ARRAY[g, NULL] END",
        ),
        ("text[]", "ARRAY[s(g), NULL, s(g + 1), 'NULL', '']"),
        ("bool[]", "ARRAY[r() < 0.5, NULL]"),
        ("numeric[]", "ARRAY[r()::numeric, 'NaN']"),
        ("float8[]", "ARRAY[r(), '-Infinity']"),
        ("bytea[]", "ARRAY[decode(md5(g::text), 'hex')]"),
        ("jsonb[]", "ARRAY[to_jsonb(s(g)), '{\"a\": 1}'::jsonb]"),
        ("timestamptz[]", "ARRAY['2000-01-01'::timestamptz + r() * interval '90 years', 'infinity']"),
        ("box[]", "ARRAY[box(point(r(), g), point(g, r())), NULL]"),
        ("mood[]", "enum_range(NULL::mood)"),
        ("pair[]", "ARRAY[ROW(g, s(g))::pair]"),
        ("small[]", "ARRAY[(g % 100)::small]"),
        ("interval[]", "ARRAY[g * interval '1 h']"),
        ("uuid[]", "ARRAY[md5(r()::text)::uuid]"),
    ],
];

const PREPARE: &str = "\
    CREATE TYPE mood AS ENUM ('so \"so\"', 'bad, or not', 'it''s'); CREATE DOMAIN small AS int CHECK (VALUE < 100); \
    CREATE TYPE pair AS (a int, b text); CREATE DOMAIN texts AS text[]; CREATE TYPE floatrange AS RANGE (subtype = float8); CREATE DOMAIN floats AS floatrange; \
    CREATE FUNCTION r() RETURNS float8 LANGUAGE sql VOLATILE AS 'SELECT random()'; \
    CREATE FUNCTION s(g int) RETURNS text LANGUAGE sql AS $$ SELECT (ARRAY['', 'plain', E'tab\\t line\\n back\\\\slash', '\"quoted\"', '{braces, and commas}', \
      'snow ☃ 😀 ä', 'it''s', ' spaces ', 'NULL', repeat('long ', 20)])[1 + abs(g) % 10] || CASE WHEN g % 3 = 0 THEN md5(g::text) ELSE '' END $$";

/// Types that columns cannot have, or whose values only the server can create.
const WITHOUT_COLUMNS: &[&str] = &[
    "pg_node_tree",
    "gtsvector",
    "pg_ndistinct",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
];

/// The value in the event for the database's text, by the contract. It shares no code with the program.
fn expected(kind: &str, text: &str) -> Option<String> {
    let string = || serde_json::to_string(text).unwrap();
    Some(match kind {
        "bool" => (if text == "t" { "true" } else { "false" }).to_owned(),
        "int2" | "int4" | "int8" | "oid" | "small" => text.to_owned(),
        "float4" | "float8" if text.parse::<f64>().is_ok_and(f64::is_finite) => text.to_owned(),
        "bytea" => {
            let bytes: Vec<u8> = (2..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
            format!("\"{}\"", base64::engine::general_purpose::STANDARD.encode(bytes))
        }
        "timestamp" | "timestamptz" | "timestamptz(0)" if text.as_bytes().get(10) == Some(&b' ') && !text.ends_with("BC") => {
            format!("\"{}\"", text.replace(' ', "T").replace("+00", "Z"))
        }
        "json" | "jsonb" => {
            let mut inside = false;
            let mut escaped = false;
            text.chars()
                .filter(|letter| {
                    let keep = inside || !letter.is_ascii_whitespace();
                    inside ^= *letter == '"' && !escaped;
                    escaped = *letter == '\\' && !escaped;
                    keep
                })
                .collect()
        }
        // Arrays are tested value by value elsewhere. Here live and existing rows must agree.
        _ if kind.ends_with(']') || kind == "texts" => return None,
        _ => string(),
    })
}

/// Parses CSV in which every value except NULL is quoted.
fn csv(text: &str) -> Vec<Vec<Option<String>>> {
    let (mut rows, mut row, mut rest) = (Vec::new(), Vec::new(), text);
    while !rest.is_empty() {
        let value = rest.strip_prefix('"').map(|quoted| {
            let (mut value, mut at) = (String::new(), quoted);
            loop {
                let end = at.find('"').unwrap();
                value.push_str(&at[..end]);
                at = &at[end + 1..];
                match at.strip_prefix('"') {
                    Some(more) => (value.push('"'), at = more),
                    None => break,
                };
            }
            rest = at;
            value
        });
        row.push(value);
        if let Some(more) = rest.strip_prefix(',') {
            rest = more;
            continue;
        }
        rest = rest.strip_prefix('\n').unwrap_or(rest);
        rows.push(std::mem::take(&mut row));
    }
    rows
}

#[tokio::test]
async fn live_and_existing_rows_contain_what_the_database_prints() {
    for (number, types) in TYPES.iter().enumerate() {
        let columns: Vec<_> = types.iter().enumerate().map(|(at, (kind, _))| format!("c{at} {kind}")).collect();
        let values: Vec<_> = types.iter().map(|(_, value)| format!("CASE WHEN random() < 0.03 THEN NULL ELSE {value} END")).collect();
        let world =
            World::new(&format!("{PREPARE}; CREATE TABLE t (id int PRIMARY KEY, {})", columns.join(", ")), vec![feed("t", &["id"])]);
        let mut reader = world.begin().await;
        let seed = f64::from(u32::try_from(number).unwrap()) / 10.0;
        world.sql(&format!("SELECT setseed({seed}); INSERT INTO t SELECT g, {} FROM generate_series(1, {ROWS}) g", values.join(", ")));
        let live: BTreeMap<_, _> =
            reader.take(ROWS).await.into_iter().map(|sent| (sent.key, after(sent.body.as_deref().unwrap()).to_owned())).collect();
        drop(reader);
        let existing: BTreeMap<_, _> = scan_all(&mut world.connector(), FeedId(0), 1 << 20, false)
            .await
            .into_iter()
            .map(|row| (row.key, after(row.body.as_deref().unwrap()).to_owned()))
            .collect();
        for (key, live) in &live {
            assert_eq!(existing.get(key), Some(live), "{key} of {types:?}");
        }
        assert_eq!(existing.len(), ROWS);
        let printed = world.sql(
            "SET DateStyle = 'ISO'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'UTC'; SET search_path = 'pg_catalog'; SET extra_float_digits = 1; \
             COPY (SELECT * FROM public.t ORDER BY id) TO STDOUT (FORMAT csv, FORCE_QUOTE *)",
        );
        // psql's output lacks the last line break, after which the last value may be NULL.
        let printed = csv(&(printed + "\n"));
        assert_eq!(printed.len(), ROWS);
        for row in printed {
            let id = row[0].as_deref().unwrap();
            let body = &live[&format!("{{\"id\":{id}}}")];
            let mut parts = vec![format!("\"id\":{id}")];
            for (at, (kind, _)) in types.iter().enumerate() {
                let value = row[at + 1].as_deref().map_or(Some("null".to_owned()), |text| expected(kind, text));
                match value {
                    Some(value) => parts.push(format!("\"c{at}\":{value}")),
                    None => assert!(body.contains(&format!("\"c{at}\":[")), "{kind}: {body}"),
                }
            }
            if types.iter().all(|(kind, _)| !kind.ends_with(']') && *kind != "texts") {
                assert_eq!(*body, format!("{{{}}}", parts.join(",")), "table {number}");
            } else {
                for part in &parts {
                    assert!(body.contains(part.as_str()), "{part} is not in {body}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_type_of_the_catalogue_is_tested_and_documented() {
    let world = World::new("SELECT 1", Vec::new());
    let all = world.sql(
        "SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typrelid = 0 \
         AND NOT (typcategory = 'A' AND typlen = -1 AND typelem <> 0 AND typname LIKE '\\_%') ORDER BY 1",
    );
    let plain = |kind: &str| kind.split('(').next().unwrap().trim_matches('"').to_owned();
    let tested: Vec<_> = TYPES.iter().flat_map(|types| types.iter()).map(|(kind, _)| plain(kind)).collect();
    let page = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/postgres.md")).unwrap();
    for kind in all.lines().filter(|kind| !WITHOUT_COLUMNS.contains(kind)) {
        let synonyms = [("bpchar", "char"), ("varchar", "varchar")];
        let tested_as = synonyms.iter().find(|(name, _)| *name == kind).map_or(kind, |(_, synonym)| synonym);
        assert!(tested.iter().any(|name| name == tested_as), "{kind} is not tested");
        assert!(page.contains(&format!("`{kind}`")), "docs/postgres.md does not say what {kind} looks like");
    }
}
