//! Values of each type in events.

use super::world::{World, feed};

/// Type, SQL literal, and the JSON value in the event.
const VALUES: &[(&str, &str, &str)] = &[
    ("bool", "true", "true"),
    ("int2", "-32768", "-32768"),
    ("int4", "2147483647", "2147483647"),
    ("int8", "-9223372036854775808", "-9223372036854775808"),
    ("oid", "4294967295", "4294967295"),
    ("float4", "'0.1'", "0.1"),
    ("float8", "'0.30000000000000004'", "0.30000000000000004"),
    ("float8", "'-0'", "-0"),
    ("float8", "'NaN'", r#""NaN""#),
    ("float8", "'-Infinity'", r#""-Infinity""#),
    ("numeric", "'12345678901234567890.0100'", r#""12345678901234567890.0100""#),
    ("numeric", "'NaN'", r#""NaN""#),
    ("money", "'1234.5'", r#""$1,234.50""#),
    ("regclass", "'pg_class'", r#""pg_class""#),
    ("xid8", "'18446744073709551615'", r#""18446744073709551615""#),
    ("text", r#"E'quote \" slash \\ line \n ä'"#, r#""quote \" slash \\ line \n ä""#),
    ("varchar(9)", "'v'", r#""v""#),
    ("char(4)", "'c'", r#""c   ""#),
    (r#""char""#, "'c'", r#""c""#),
    ("name", "'n'", r#""n""#),
    ("bit(3)", "B'101'", r#""101""#),
    ("varbit", "B'10'", r#""10""#),
    ("xml", "'<a/>'", r#""<a/>""#),
    ("bytea", r"'\x00ff10'", r#""AP8Q""#),
    ("timestamptz", "'2026-11-23 08:25:28.5+01'", r#""2026-11-23T07:25:28.5Z""#),
    ("timestamp", "'2026-11-23 08:25:28'", r#""2026-11-23T08:25:28""#),
    ("timestamp", "'infinity'", r#""infinity""#),
    ("date", "'2026-11-23'", r#""2026-11-23""#),
    ("date", "'0044-03-15 BC'", r#""0044-03-15 BC""#),
    ("time", "'08:25:28.25'", r#""08:25:28.25""#),
    ("timetz", "'08:25:28+01'", r#""08:25:28+01""#),
    ("interval", "'1 year 2 days 3.5 seconds'", r#""P1Y2DT3.5S""#),
    ("json", r#"'{"b": 1.10, "a": [ null ]}'"#, r#"{"b":1.10,"a":[null]}"#),
    ("jsonb", r#"'{"b": 1.10}'"#, r#"{"b":1.10}"#),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", r#""a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11""#),
    ("mood", "'sad'", r#""sad""#),
    ("age", "7", "7"),
    ("ages", "'{1,2}'", "[1,2]"),
    ("inet", "'10.0.0.1/32'", r#""10.0.0.1""#),
    ("cidr", "'10.0.0.0/8'", r#""10.0.0.0/8""#),
    ("macaddr", "'08:00:2b:01:02:03'", r#""08:00:2b:01:02:03""#),
    ("int4range", "'[1,4)'", r#""[1,4)""#),
    ("pair", "'(1,\"a b\")'", r#""(1,\"a b\")""#),
    ("point", "'(1,2)'", r#""(1,2)""#),
    ("tsvector", "'a:1'", r#""'a':1""#),
    ("int4[]", "'{1,NULL,3}'", "[1,null,3]"),
    ("int4[]", "'[0:1]={7,8}'", "[7,8]"),
    ("text[]", r#"'{"a,b","NULL",NULL,"q\"u"}'"#, r#"["a,b","NULL",null,"q\"u"]"#),
    ("int4[]", "'{{1,2},{3,4}}'", "[[1,2],[3,4]]"),
    ("mood[]", "'{sad,ok}'", r#"["sad","ok"]"#),
    ("age[]", "'{1,2}'", "[1,2]"),
    ("numeric[]", "'{1.10}'", r#"["1.10"]"#),
    ("timestamptz[]", "'{2026-11-23 08:25:28+01}'", r#"["2026-11-23T07:25:28Z"]"#),
    ("jsonb[]", r#"ARRAY['{"a": 1}'::jsonb]"#, r#"[{"a":1}]"#),
    ("bytea[]", r"ARRAY['\x00ff10'::bytea]", r#"["AP8Q"]"#),
    ("box[]", "'{(1,1),(0,0);(3,3),(2,2)}'", r#"["(1,1),(0,0)","(3,3),(2,2)"]"#),
    ("int2vector", "'1 2'", r#""1 2""#),
    ("text", "NULL", "null"),
];

#[tokio::test]
async fn values_are_what_the_contract_says() {
    let columns: Vec<_> = VALUES.iter().enumerate().map(|(at, (kind, ..))| format!("c{at} {kind}")).collect();
    let literals: Vec<_> = VALUES.iter().map(|(_, literal, _)| *literal).collect();
    let tables = format!(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN age AS int4; CREATE DOMAIN ages AS int4[]; CREATE TYPE pair AS (a int, b text);\
         CREATE TABLE t (id int PRIMARY KEY, {})",
        columns.join(", ")
    );
    let world = World::new(&tables, vec![feed("t", &["id"])]);
    // Settings of a database must have no effect.
    world.sql(&format!(
        "ALTER DATABASE {0} SET DateStyle = 'German'; ALTER DATABASE {0} SET TimeZone = 'Asia/Tokyo'; \
         ALTER DATABASE {0} SET IntervalStyle = 'sql_standard'; ALTER DATABASE {0} SET bytea_output = 'escape'; \
         ALTER DATABASE {0} SET extra_float_digits = 0; ALTER DATABASE {0} SET quote_all_identifiers = on",
        world.database
    ));
    let mut reader = world.begin().await;
    world.sql(&format!("SET DateStyle = 'ISO'; SET bytea_output = 'hex'; INSERT INTO t VALUES (1, {})", literals.join(", ")));
    let sent = reader.take(1).await;
    let body = sent[0].body.as_deref().unwrap();
    for (at, (kind, literal, expected)) in VALUES.iter().enumerate() {
        let label = format!(r#","c{at}":"#);
        let rest = &body[body.find(&label).unwrap() + label.len()..];
        assert!(
            rest.starts_with(expected) && rest[expected.len()..].starts_with([',', '}']),
            "{kind} {literal}: {}",
            &rest[..40.min(rest.len())]
        );
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8_becomes_bytes() {
    let mut world = World::new("SELECT 1", vec![feed("t", &["id"])]);
    let database = format!("{}_ascii", world.database);
    world
        .server
        .psql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"));
    world.options.database.clone_from(&database);
    world.database = database;
    world.sql("CREATE TABLE t (id int PRIMARY KEY, note text)");
    let mut reader = world.begin().await;
    world.sql(r"SET client_encoding = 'SQL_ASCII'; INSERT INTO t VALUES (1, E'\344b'), (2, 'ok')");
    let sent = reader.take(2).await;
    assert!(sent[0].body.as_deref().unwrap().contains(r#""note":{"base64":"5GI="}"#), "{sent:?}");
    assert_eq!(sent[1].event()["after"]["note"], "ok");
}
